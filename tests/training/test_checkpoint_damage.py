"""Checkpoints are whole or not at all, wherever a save was killed and whatever cut it short."""

import os
import warnings

import numpy as np
import pytest

from checkpointed import everything, model_with, step
from tf_largebatch import LAMB
from tf_largebatch.training import checkpoint, files

pytestmark = pytest.mark.tensorflow


def write(path, data):
    import tensorflow as tf

    files.remove(path)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(bytes(data))


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.99])
def test_cut_short(folder, kept_share):
    model = step(model_with(LAMB(0.1)))
    path = checkpoint.save(folder, model, update=1, progress={})
    whole = files.read(path)
    write(path, whole[: int(len(whole) * kept_share)])
    before = everything(model)
    with pytest.raises(ValueError, match="damaged or cut short"):
        checkpoint.restore(folder, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)


def test_every_flipped_byte_is_noticed(folder):
    """Weights and record are covered by the archive's sums, on the disk padding between isn't."""
    model = step(model_with(LAMB(0.1)))
    path = checkpoint.save(folder, model, update=1, progress={})
    whole = files.read(path)
    expected = everything(model)
    noticed, places = 0, range(0, len(whole), 97)
    for place in places:
        data = bytearray(whole)
        data[place] ^= 0x10
        write(path, data)
        try:
            checkpoint.restore(folder, model)
        except ValueError:
            noticed += 1
            continue
        for one, two in zip(expected, everything(model), strict=True):
            np.testing.assert_array_equal(one, two)
    assert noticed == len(places) or not files.is_remote(folder)


def test_failed_writing_leaves_the_old_one(folder, monkeypatch):
    model = model_with(LAMB(0.1))
    checkpoint.save(folder, model, update=1, progress={})
    before = files.names(folder)

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(folder, model, update=2, progress={})
    assert files.names(folder) == before


def three_checkpoints(folder):
    """A model whose bias is the number of updates in each of its checkpoints."""
    model = model_with(LAMB(0.1))
    for update in (1, 2, 3):
        model.layers[-1].bias.assign([update] * 3)
        checkpoint.save(folder, model, update=update, progress={})
    return model


@pytest.mark.parametrize("marker", [None, b"", b'{"bytes": 1', b'{"bytes": 1, "crc32": 1}', b"7"])
def test_without_a_sound_marker_the_one_before_is_used(bucket, marker):
    """As after a kill between object and marker, or within the marker."""
    model = three_checkpoints(bucket)
    newest = checkpoint.paths(bucket)[0]
    files.remove(f"{newest}.complete")
    if marker is not None:
        write(f"{newest}.complete", marker)
    assert len(checkpoint.paths(bucket)) == (2 if marker is None else 3)
    with pytest.warns(UserWarning, match=r"00000003.npz \(.*Going on from .*00000002.npz"):
        assert checkpoint.restore(bucket, model) == (2, {})
    np.testing.assert_array_equal(model.layers[-1].bias, [2, 2, 2])


def test_unfinished_ones_are_removed_and_written_again(bucket):
    model = three_checkpoints(bucket)
    newest, _, oldest = checkpoint.paths(bucket)
    for path in (newest, oldest):  # killed while it wrote the one, or deleted the other
        files.remove(f"{path}.complete")
    write(newest, files.read(newest)[:1000])
    checkpoint.remove_unfinished(bucket)
    assert files.names(bucket) == ["update-00000002.npz", "update-00000002.npz.complete"]
    write(newest, b"half, and this time it stays")
    checkpoint.save(bucket, model, update=3, progress={})
    assert checkpoint.restore(bucket, model) == (3, {})


def test_copied_from_a_local_folder(tmp_path, bucket):
    """None has a marker, then: they are judged by their own sums, and none is deleted."""
    model = three_checkpoints(tmp_path)
    for path in tmp_path.iterdir():
        write(f"{bucket}/{path.name}", path.read_bytes())
    checkpoint.remove_unfinished(bucket)
    assert checkpoint.restore(bucket, model) == (3, {})
    newest = f"{bucket}/update-00000003.npz"
    write(newest, files.read(newest)[:-9])
    with pytest.warns(UserWarning, match=r"Going on from .*00000002.npz"):
        assert checkpoint.restore(bucket, model) == (2, {})


def test_the_first_one_cut_short_is_none(bucket):
    """A run that was killed there starts again by the same command."""
    model = model_with(LAMB(0.1))
    path = checkpoint.save(bucket, model, update=1, progress={})
    files.remove(f"{path}.complete")
    write(path, files.read(path)[:1000])
    checkpoint.remove_unfinished(bucket)
    with pytest.warns(UserWarning, match="There is none before it"):
        assert checkpoint.restore(bucket, model) is None


def test_a_store_that_does_not_answer_is_not_damage(bucket, monkeypatch):
    import tensorflow as tf

    model = three_checkpoints(bucket)

    def unavailable(path, _):
        raise tf.errors.UnavailableError(None, None, f"no answer about {path}")

    monkeypatch.setattr(tf.io.gfile, "GFile", unavailable)
    with pytest.raises(OSError, match=r"no answer about .*00000003"):
        checkpoint.restore(bucket, model)


class Killed(BaseException):
    """What no handler survives: from then on nothing is done."""


# NumPy 2.1 leaves an archive that it couldn't write to the garbage collector, which dies here, too.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function ZipFile.__del__:pytest.PytestUnraisableExceptionWarning"
)
def test_killed_at_any_operation(bucket, monkeypatch):
    """Whatever a save had done when it was killed, it or the one before is there, and it goes on.

    The save writes checkpoint 3 over the remains of an earlier attempt, and deletes checkpoint 1.
    """
    import tensorflow as tf

    gfile = tf.io.gfile
    steps_left = [0]

    def live():
        steps_left[0] -= 1
        if steps_left[0] < 0:
            raise Killed

    class File(gfile.GFile):
        def write(self, data):
            if steps_left[0] == 0:
                super().write(data[: len(data) // 2])
            live()
            super().write(data)

    def mortal(function):
        def call(*arguments, **options):
            live()
            return function(*arguments, **options)

        return call

    model = model_with(LAMB(0.1))
    for update in (1, 2):
        model.layers[-1].bias.assign([update] * 3)
        checkpoint.save(bucket, model, update=update, progress={})
    write(f"{bucket}/update-00000003.npz", b"remains")
    before = {name: files.read(f"{bucket}/{name}") for name in files.names(bucket)}
    count, survived, outcomes = -1, False, set()
    while not survived:
        count += 1
        folder = f"{bucket}/{count}"
        for name, data in before.items():
            write(f"{folder}/{name}", data)
        model.layers[-1].bias.assign([3] * 3)
        steps_left[0] = count
        with monkeypatch.context() as patch:
            patch.setattr(gfile, "GFile", File)
            patch.setattr(gfile, "remove", mortal(gfile.remove))
            patch.setattr(gfile, "makedirs", mortal(gfile.makedirs))
            try:
                checkpoint.save(folder, model, update=3, progress={}, keep=2)
                survived = True
            except Killed:
                pass
        checkpoint.remove_unfinished(folder)
        with warnings.catch_warnings():  # of half a marker
            warnings.simplefilter("ignore", UserWarning)
            update, _ = checkpoint.restore(folder, model)
        outcomes.add(update)
        np.testing.assert_array_equal(model.layers[-1].bias, [update] * 3)
        names = files.names(folder)
        assert len(names) == 2 * len(checkpoint.paths(folder))
    assert outcomes == {2, 3} and count > 20
    assert [os.path.basename(p)[:15] for p in checkpoint.paths(folder)] == [
        "update-00000003", "update-00000002",
    ]  # fmt: skip
