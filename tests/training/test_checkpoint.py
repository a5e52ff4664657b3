"""Checkpoints: whole or not at all, exact, and refused where they don't fit."""

import json
import os
import warnings

import keras
import numpy as np
import pytest

from replicas import strategy_of
from tf_largebatch import LAMB, LARS
from tf_largebatch.training import checkpoint, files
from tf_largebatch.training.trainer import build_metrics

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def bucket(tmp_path):
    """A folder in TensorFlow's memory, which stands for one in an object store.

    As there, the path has a scheme, and only `tf.io.gfile` can open it. Unlike there, an object
    shows while it is written, and "wb" writes behind what was there: worse, so that it tests more.
    """
    return f"ram://{tmp_path.name}"


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path, bucket):
    return f"{tmp_path if request.param == 'local' else bucket}/checkpoints"


def write(path, data):
    import tensorflow as tf

    files.remove(path)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(bytes(data))


def model_with(optimizer, units=3, prefix="a"):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(name=f"{prefix}_bn"),
            keras.layers.Dense(units, name=f"{prefix}_out"),
        ]
    )
    model.compile(optimizer=optimizer, loss="mse", weighted_metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    build_metrics(model, np.zeros((1, 4), "float32"), np.zeros((1, units), "float32"))
    return model


def step(model, count=3):
    random = np.random.default_rng(0)
    for _ in range(count):
        x, y = random.normal(size=(8, 4)), random.normal(size=(8, model.output_shape[-1]))
        model.train_on_batch(x.astype("float32"), y.astype("float32"))
    return model


def everything(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize(
    "make", [lambda: LAMB(0.1), lambda: LARS(0.1), lambda: keras.optimizers.AdamW(0.1)]
)
def test_round_trip_into_a_fresh_instance(folder, make):
    """Weights, moving statistics, dropout's seed and slots: the runs go on alike, bit for bit."""
    first = step(model_with(make()))
    path = checkpoint.save(folder, first, update=3, progress={"best": 0.5})
    second = model_with(make(), prefix="b")
    assert checkpoint.restore(folder, second) == (3, {"best": 0.5})
    for one, other in zip(everything(step(first)), everything(step(second)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert path.endswith("update-00000003.npz")


def test_bfloat16_weights(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    first = step(model_with(LAMB(0.1)))
    checkpoint.save(tmp_path, first, update=1, progress={})
    second = model_with(LAMB(0.1))
    checkpoint.restore(tmp_path, second)
    assert second.layers[-1].kernel.dtype == "bfloat16"
    for one, other in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mixed_float16_keeps_the_loss_scale(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    first = step(model_with(LAMB(0.1)))
    first.optimizer.dynamic_scale.assign(1234.0)
    checkpoint.save(tmp_path, first, update=1, progress={})
    second = model_with(LAMB(0.1))
    checkpoint.restore(tmp_path, second)
    assert float(second.optimizer.dynamic_scale) == 1234.0
    for one, other in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_few_are_kept_and_no_temporary(folder):
    model = model_with(LAMB(0.1))
    for update in range(5):
        checkpoint.save(folder, model, update=update, progress={})
    kept = [f"update-0000000{i}.npz" for i in (4, 3, 2)]
    assert checkpoint.paths(folder) == [f"{folder}/{name}" for name in kept]
    markers = [f"{name}.complete" for name in kept] if files.is_remote(folder) else []
    assert files.names(folder) == sorted(kept + markers)


def test_no_checkpoint_is_none(tmp_path, bucket):
    model = model_with(LAMB(0.1))
    assert checkpoint.restore(tmp_path, model) is None
    assert checkpoint.restore(tmp_path / "missing", model) is None
    assert checkpoint.restore(bucket, model) is None


def test_who_does_not_write_takes_part_only(folder):
    model = model_with(LAMB(0.1))
    path = checkpoint.save(folder, model, update=3, progress={}, write=False)
    assert files.kind(folder) is None
    assert checkpoint.save(folder, model, update=3, progress={}) == path


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: model_with(LAMB(0.1), units=5), "has shape"),
        (lambda: model_with(LARS(0.1)), "velocity is not expected"),
        (lambda: model_with(LAMB(0.1, use_ema=True)), "average is missing"),
    ],
)
def test_of_another_model_or_optimizer(tmp_path, other, words):
    checkpoint.save(tmp_path, step(model_with(LAMB(0.1))), update=1, progress={})
    model = other()
    before = everything(model)
    with pytest.raises(ValueError, match=f"another model or optimizer.*{words}"):
        checkpoint.restore(tmp_path, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)


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


def test_nan_weights_are_not_saved(tmp_path):
    model = model_with(LAMB(0.1))
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * np.nan)
    with pytest.raises(checkpoint.NonFiniteWeightsError, match="a_out/kernel holds NaN"):
        checkpoint.save(tmp_path, model, update=2, progress={})
    assert not list(tmp_path.iterdir())


def test_nothing_is_unpickled(tmp_path):
    """An object array, which only pickle could hold, is a damaged checkpoint."""
    model = model_with(LAMB(0.1))
    path = checkpoint.save(tmp_path, model, update=1, progress={})
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(bytes(arrays["record"]).decode())
    arrays[next(iter(record["arrays"]))] = np.array([{"a": 1}], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.restore(tmp_path, model)


def replicated(seed):
    """A model on two replicas, each of which has added something else to its metrics."""
    import tensorflow as tf

    with strategy_of(2).scope():
        model = model_with(LAMB(0.1))
    strategy = model.distribute_strategy
    for variable in model.metrics_variables:
        for i, part in enumerate(strategy.experimental_local_results(variable.value)):
            part.assign(tf.fill(part.shape, seed + 10.0 * i))
    return model


def parts_of(model):
    split = model.distribute_strategy.experimental_local_results
    return [[p.numpy() for p in split(v.value)] for v in model.metrics_variables]


@pytest.mark.parametrize("workers", ["one", "several"])
def test_each_replica_gets_its_own_part_of_the_metrics(tmp_path, monkeypatch, workers):
    """`several`: by the exchange between workers, here on the replicas of one process."""
    if workers == "several":
        monkeypatch.setattr(checkpoint, "_has_other_workers", lambda strategy: True)
    first, second = replicated(1.5), replicated(4.0)
    for table, parts in zip(checkpoint.metric_parts(first).values(), parts_of(first), strict=True):
        np.testing.assert_array_equal(table, [1.5, 11.5])
        np.testing.assert_array_equal(table, parts)
    checkpoint.save(tmp_path, first, update=3, progress={})
    assert checkpoint.restore(tmp_path, second) == (3, {})
    np.testing.assert_array_equal(parts_of(second), parts_of(first))


def test_on_fewer_replicas_the_metrics_add_up(tmp_path):
    first, second = replicated(1.5), model_with(LAMB(0.1))
    checkpoint.save(tmp_path, first, update=3, progress={})
    checkpoint.restore(tmp_path, second)
    np.testing.assert_array_equal(parts_of(second), [[13.0]] * len(parts_of(second)))
    checkpoint.save(tmp_path, second, update=4, progress={})
    checkpoint.restore(tmp_path, first)
    np.testing.assert_array_equal(parts_of(first), [[13.0, 0.0]] * len(parts_of(first)))


def test_workers_that_see_other_checkpoints(tmp_path, monkeypatch):
    """A folder of which each machine has its own would let them train on apart."""
    model = replicated(1.5)
    checkpoint.save(tmp_path, model, update=3, progress={})
    before = everything(model)
    monkeypatch.setattr(checkpoint, "_has_other_workers", lambda strategy: True)
    monkeypatch.setattr(
        checkpoint, "_gathered", lambda strategy, tables: [np.array([tables[0][0], -1])]
    )
    with pytest.raises(ValueError, match="find update 3, none. Use a folder"):
        checkpoint.restore(tmp_path, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)
