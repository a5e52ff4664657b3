"""The folder of a run, on a disk and on a remote file system; and what starts from another run."""

import json
import pathlib

import keras
import numpy as np
import pytest

from tf_largebatch import recipes
from tf_largebatch.training import checkpoint, files, run_folder
from tf_largebatch.training.callbacks import CSVLogger, save_model
from tf_largebatch.training.warm_start import warm_start

pytestmark = pytest.mark.tensorflow


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    """ram:// is in TensorFlow's memory; it stands for an object store, such as gs://."""
    return f"{tmp_path if request.param == 'local' else f'ram://{tmp_path.name}'}/run"


def recipe(**changes):
    return recipes.load("lenet_digits").rows[0].recipe.replace(**changes)


def write(path, data):
    import tensorflow as tf

    files.remove(path)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(data)


def held(folder):
    """The names and contents of all files in a folder and below."""
    import tensorflow as tf

    paths = (f"{place}/{name}" for place, _, names in tf.io.gfile.walk(folder) for name in names)
    return {path: files.read(path) for path in paths}


def test_a_new_run_and_its_resumption(folder):
    run_folder.open_run(folder, recipe(seed=3), resume=False)
    assert files.names(folder) == ["config.json"]
    config = run_folder.read_config(folder)
    assert (config["seed"], config["recipe"]) == (3, "lenet_digits")
    before = held(folder)
    # What may change may: the configuration of the start stays.
    run_folder.open_run(folder, recipe(seed=3, max_updates=4), resume=True)
    assert held(folder) == before


def test_resume_of_nothing_is_a_new_run(folder):
    run_folder.open_run(folder, recipe(), resume=True)
    assert run_folder.read_config(folder) is not None


@pytest.mark.parametrize(
    "seed, resume, words",
    [
        (0, False, r"isn't empty. Received: .*run, which holds config.json, .*Pass --resume"),
        (5, True, "another configuration.*seed 0 -> 5"),
    ],
)
def test_a_folder_that_holds_a_run(folder, seed, resume, words):
    run_folder.open_run(folder, recipe(seed=0), resume=False)
    write(f"{folder}/unfinished-7-config.json", b"{")
    before = held(folder)
    with pytest.raises(ValueError, match=words):
        run_folder.open_run(folder, recipe(seed=seed), resume=resume)
    assert held(folder) == before


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"\xff\xfe", b"{}"])
def test_a_damaged_configuration(folder, content):
    files.make_folder(folder)
    write(f"{folder}/config.json", content)
    words = "another configuration" if content == b"{}" else "can't be read"
    with pytest.raises(ValueError, match=words):
        run_folder.open_run(folder, recipe(), resume=True)
    assert run_folder.read_config(folder) == ({} if content == b"{}" else None)
    assert files.read(f"{folder}/config.json") == content


def test_what_is_no_run(folder):
    files.make_folder(folder)
    write(f"{folder}/thesis.txt", b"mine")
    with pytest.raises(ValueError, match="holds no run to resume"):
        run_folder.open_run(folder, recipe(), resume=True)
    assert files.names(folder) == ["thesis.txt"]
    assert run_folder.read_config(folder) is None
    with pytest.raises(ValueError, match=r"thesis.txt, which is a file"):
        run_folder.open_run(f"{folder}/thesis.txt", recipe(), resume=False)
    assert files.read(f"{folder}/thesis.txt") == b"mine"


@pytest.mark.parametrize("path", ["{}/file/run", "nosuchstore://bucket/run"])
def test_a_folder_that_cannot_be(tmp_path, path):
    (tmp_path / "file").write_text("mine")
    words = "can't be read or written. Received: .*(Not a directory|not implemented)"
    with pytest.raises(ValueError, match=words):
        run_folder.open_run(path.format(tmp_path), recipe(), resume=False)


def test_a_store_that_does_not_answer_is_not_an_empty_one(folder, monkeypatch):
    """Else the run in it would be begun anew, over what is there."""
    import tensorflow as tf

    run_folder.open_run(folder, recipe(), resume=False)
    before = held(folder)

    def unavailable(path):
        raise tf.errors.UnavailableError(None, None, "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, "stat", unavailable)
        with pytest.raises(ValueError, match=r"can't be read or written.*\(no answer\)"):
            run_folder.open_run(folder, recipe(), resume=True)
    assert held(folder) == before


def test_names_as_object_stores_give_them(tmp_path, monkeypatch):
    """Folders with a slash, and the folder itself as an empty name."""
    import tensorflow as tf

    monkeypatch.setattr(tf.io.gfile, "listdir", lambda folder: ["checkpoints/", "", "a.csv"])
    assert files.names(tmp_path) == ["a.csv", "checkpoints"]


def test_failed_writing_leaves_nothing(folder, monkeypatch):
    """The rename fails here, as it may where permissions are missing."""
    import tensorflow as tf

    def denied(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "not yours")

    monkeypatch.setattr(tf.io.gfile, "rename", denied)
    with pytest.raises(ValueError, match=r"can't be read or written.*\(not yours\)"):
        run_folder.open_run(folder, recipe(), resume=False)
    assert files.names(folder) == []


def test_resuming_removes_what_a_killed_run_was_writing(folder):
    run_folder.open_run(folder, recipe(), resume=False)
    kept = [
        "config.json", "tensorboard/train/events.out.tfevents.1", "checkpoints/mine.txt",
        "checkpoints/update-00000002.npz", "checkpoints/update-00000002.npz.complete",
    ]  # fmt: skip
    left = [
        "unfinished-1-final.keras", "checkpoints/unfinished-1-update-00000003.npz",
        "tensorboard/train/unfinished-1-events.out.tfevents.1",
    ]  # fmt: skip
    if files.is_remote(folder):
        left.append("checkpoints/update-00000003.npz")  # its marker was to come
    for name in [*kept[1:], *left]:
        files.make_folder(f"{folder}/{name}".rpartition("/")[0])
        write(f"{folder}/{name}", b"1")
    run_folder.open_run(folder, recipe(), resume=True)
    assert sorted(held(folder)) == sorted(f"{folder}/{name}" for name in kept)


def log(epochs):
    return b"epoch,loss\r\n" + b"".join(b"%d,0.%d\r\n" % (i, i) for i in range(epochs))


@pytest.mark.parametrize("done, end", [(3, b""), (2, b""), (2, b"4,0."), (0, b"")])
def test_cutting_the_log(folder, done, end):
    files.make_folder(folder)
    write(f"{folder}/log.csv", log(5) + end)
    run_folder.cut_logs(folder, done)
    assert files.read(f"{folder}/log.csv") == (log(done) if done else b"")
    assert files.names(folder) == ["log.csv"]


@pytest.mark.parametrize("cut", [0, 3])
def test_cutting_tensorboards_files(folder, cut):
    """The last record may have been cut short by a kill; none of those before it is lost."""
    import tensorflow as tf

    events = [tf.compat.v1.Event(file_version="brain.Event:2")]
    for step in range(4):
        value = tf.compat.v1.Summary.Value(tag="epoch_loss", simple_value=step)
        events.append(tf.compat.v1.Event(step=step, summary=tf.compat.v1.Summary(value=[value])))
    for part in ("train", "validation"):
        files.make_folder(f"{folder}/tensorboard/{part}")
        path = f"{folder}/tensorboard/{part}/events.out.tfevents.1"
        with tf.io.TFRecordWriter(path) as writer:
            for event in events:
                writer.write(event.SerializeToString())
        if cut:
            write(path, files.read(path)[:-cut])
    run_folder.cut_logs(folder, 3)
    assert len(held(folder)) == 2
    for path in held(folder):
        found = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
        assert found == events[:4]


def test_no_logs_to_cut(folder):
    run_folder.cut_logs(folder, 1)
    assert files.kind(folder) is None


def small_model(units=2):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="d")], name="small")


@pytest.mark.parametrize("source", ["", "/final.keras", "/w.weights.h5"])
def test_starting_from_another_run(folder, tmp_path, monkeypatch, source):
    """Keras copies a remote file for that, and leaves nothing behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    first, second = small_model(), small_model()
    files.make_folder(folder)
    save_model(first, f"{folder}/final.keras")
    first.save_weights(tmp_path / "w.weights.h5")
    write(f"{folder}/w.weights.h5", (tmp_path / "w.weights.h5").read_bytes())
    warm_start(second, f"{folder}{source}")
    assert not list(scratch.iterdir())
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_started_from(folder):
    model = small_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match="where there is no run"):
        warm_start(model, folder)
    files.make_folder(folder)
    with pytest.raises(ValueError, match=r"where there is no final.keras"):
        warm_start(model, folder)
    write(f"{folder}/final.keras", b"no model")
    with pytest.raises(ValueError, match="can't be read as weights of small"):
        warm_start(model, folder)
    save_model(small_model(units=5), f"{folder}/final.keras")
    with pytest.raises(ValueError, match="can't be read as weights of small"):
        warm_start(model, folder)
    with pytest.raises(ValueError, match=r"can't be read.*not implemented"):
        warm_start(model, "nosuchstore://bucket/run")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_on_a_remote_file_system(tmp_path):
    """Configuration, checkpoints, Keras' log and the model: all is found again there."""
    folder = f"ram://{tmp_path.name}/run"
    run_folder.open_run(folder, recipe(), resume=False)
    model = small_model()
    model.compile("sgd", "mse")
    log = CSVLogger(f"{folder}/log.csv")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), epochs=3, verbose=0, callbacks=[log])
    checkpoint.save(f"{folder}/checkpoints", model, update=2, progress={"epochs_done": 2})
    run_folder.open_run(folder, recipe(), resume=True)
    _, progress = checkpoint.restore(f"{folder}/checkpoints", model)
    run_folder.cut_logs(folder, progress["epochs_done"])
    rows = files.read(f"{folder}/log.csv").decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]
    log = CSVLogger(f"{folder}/log.csv", append=True)
    model.fit(
        np.ones((4, 3)), np.ones((4, 2)), initial_epoch=2, epochs=3, verbose=0, callbacks=[log]
    )
    rows = files.read(f"{folder}/log.csv").decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2"]
    assert json.loads(files.read(f"{folder}/config.json"))["recipe"] == "lenet_digits"
    assert not pathlib.Path("ram:").exists()
