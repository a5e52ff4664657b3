"""Data in a folder: what is found there, in which order, and what is missing."""

import os

import pytest

from jpeg_files import fill, levels, write_tfrecord
from tf_largebatch import data

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "train", dog=[5, 4], cat=[3, 1, 2], ant=[0])
    fill(tmp_path / "val", dog=[7], cat=[8, 6])
    (tmp_path / "train" / "README.txt").write_text("x")
    (tmp_path / "train" / "cat" / "._001.jpg").write_text("as macOS leaves them")
    fill(tmp_path / "train" / ".ipynb_checkpoints", cat=[9])
    fill(tmp_path / "train", **{".ipynb_checkpoints/dog": [9]})
    (tmp_path / "train" / ".ipynb_checkpoints" / "009.jpg").write_bytes(b"x")
    return tmp_path


def test_classes_are_the_subfolders_and_the_order_is_theirs(folder):
    splits = data.load("image_folder", str(folder), image_size=16)
    train = splits.train
    assert (train.num_examples, train.num_classes, train.input_shape) == (6, 3, (16, 16, 3))
    assert train.name == str(folder / "train") and train.augmentation == "heavy"
    names = [path.removeprefix(str(folder)) for path in train.records.items]
    assert names == [
        "/train/ant/000.JPEG",
        "/train/cat/001.JPEG", "/train/cat/002.JPEG", "/train/cat/003.JPEG",
        "/train/dog/004.JPEG", "/train/dog/005.JPEG",
    ]  # fmt: skip
    assert train.records.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert splits.test.records.labels.tolist() == [1, 1, 2]


def test_images_come_with_their_labels(folder):
    from tf_largebatch.data.batches import evaluation_batches

    splits = data.load("image_folder", folder, image_size=8)
    ((images, labels, _),) = evaluation_batches(splits.test, batch_size=3).as_numpy_iterator()
    assert levels(images) == [6, 8, 7]
    assert labels.tolist() == [1, 1, 2]


def test_a_truncated_file_is_named_and_can_be_skipped(folder):
    import tensorflow as tf

    from tf_largebatch.data.batches import training_batches

    path = folder / "train" / "cat" / "002.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    for skip in (False, True):
        train = data.load("image_folder", folder, image_size=8, skip_bad_records=skip).train
        batches = training_batches(train, global_batch_size=6, seed=0, total_updates=2)
        if skip:
            labels = [sorted(labels.tolist()) for _, labels in batches.as_numpy_iterator()]
            assert labels == [[0, 1, 1, 1, 2, 2]] * 2
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match="train/cat/002.JPEG of"):
                list(batches)
        assert train.bad_records == {str(path): "the JPEG is truncated, after 200 bytes"}


def test_image_folder_says_what_is_missing(folder, tmp_path):
    with pytest.raises(ValueError, match="data_dir. Received: data_dir=None. .*none: crops"):
        data.load("image_folder")
    with pytest.raises(ValueError, match="gone', which isn't a folder"):
        data.load("image_folder", str(tmp_path / "gone"))
    (folder / "val" / "emu").mkdir()
    with pytest.raises(ValueError, match="one of train's 3. Received: .*val/emu"):
        data.load("image_folder", folder)
    (folder / "val").rename(folder / "held_out")
    with pytest.raises(ValueError, match="train and validation, val or test.*held_out, train"):
        data.load("image_folder", folder)
    fill(folder / "test", dog=[])
    with pytest.raises(ValueError, match=r"test must hold.*\*.jpeg. Received: dog"):
        data.load("image_folder", folder)


def test_a_class_without_images_to_train_on_is_named(folder):
    path = folder / "train" / "ant" / "000.JPEG"
    path.rename(path.with_suffix(".png"))
    with pytest.raises(ValueError, match="train on. Received: .*train/ant, which holds 000.png."):
        data.load("image_folder", folder)
    path.parent.rename(folder / "train" / ".ant")
    assert data.load("image_folder", folder).train.num_classes == 2
    (folder / "train" / "cat").rename(folder / "cat")
    with pytest.raises(ValueError, match="train must hold .* at least two. Received: dog."):
        data.load("image_folder", folder)


def test_names_may_be_in_any_script_and_files_may_be_links(tmp_path):
    fill(tmp_path / "own", **{"猫 \n": [1, 2], "ä": [3]})
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for name in ("猫 \n", "ä"):
            (tmp_path / part / name).symlink_to(tmp_path / "own" / name)
    (tmp_path / "own" / "ä" / "4.jpg").symlink_to(tmp_path / "own" / "猫 \n" / "002.JPEG")
    train = data.load("image_folder", tmp_path, image_size=8, augmentation="none").train
    images, labels, _ = train.read(range_of(train))
    assert levels(images.numpy()) == [3, 2, 1, 2] and labels.numpy().tolist() == [0, 0, 1, 1]
    try:
        (tmp_path / "own" / "ä" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    with pytest.raises(ValueError, match=r"in UTF-8. Received: .*train/ä, which .*xff.jpg'. Ren"):
        data.load("image_folder", tmp_path)


def range_of(source):
    import tensorflow as tf

    return tf.range(source.num_examples, dtype=tf.int64)


@pytest.mark.parametrize(
    "train, test",
    [
        (["train-00000-of-00002", "train-00001-of-00002"], "validation-00000-of-00001"),
        (["own-train.tfrecord-00000-of-00001"], "own-test.tfrecord-00000-of-00001"),
        (["train.tfrecord"], "val.tfrecords"),
    ],
)
def test_tfrecords_are_found_by_their_names(tmp_path, train, test):
    for i, name in enumerate(train):
        write_tfrecord(tmp_path / name, [2 * i, 2 * i + 1])
    write_tfrecord(tmp_path / test, [1])
    (tmp_path / "train.txt").write_text("x")
    for _ in range(2):  # made, then kept
        splits = data.load("tfrecords", str(tmp_path), num_classes=4, cache=True)
        assert (splits.train.num_examples, splits.test.num_examples) == (2 * len(train), 1)
        part = "test" if "test" in test else "val" + "idation" * test.startswith("validation")
        kept = {path.name for path in tmp_path.glob("*.npz")}
        assert kept == {"train.index.npz", f"{part}.index.npz"}


def test_tfrecords_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="must be told num_classes"):
        data.load("tfrecords", tmp_path)
    with pytest.raises(ValueError, match="must hold files train.* and validation.*holds nothing"):
        data.load("tfrecords", tmp_path, num_classes=4)
    write_tfrecord(tmp_path / "train-00000-of-00003", [1])
    write_tfrecord(tmp_path / "train-00002-of-00003", [1])
    write_tfrecord(tmp_path / "validation-00000-of-00001", [1])
    with pytest.raises(ValueError, match="complete.*where train-00001-of-00003 is missing"):
        data.load("tfrecords", tmp_path, num_classes=4)
    write_tfrecord(tmp_path / "train-00001-of-00003", [1])
    assert data.load("tfrecords", tmp_path, num_classes=4).train.num_examples == 3
