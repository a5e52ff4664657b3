"""The embedded JPEGs: as many as promised, of mixed sizes, held out without a shared pixel."""

import sys
import zlib

import numpy as np
import pytest

from tf_largebatch import data

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def splits():
    return data.load("crops", data_dir="ignored")


def shapes(source):
    """(n, 3) int32: heights, widths and channels, from the headers."""
    import tensorflow as tf

    return np.array([tf.image.extract_jpeg_shape(jpeg) for jpeg in source.records.items])


def test_counts_shapes_and_classes(splits):
    for source, each in [(splits.train, 240), (splits.test, 60)]:
        assert (source.name, source.num_examples, source.num_classes) == ("crops", 8 * each, 8)
        assert source.input_shape == (64, 64, 3) and source.augmentation == "weak"
        assert np.bincount(source.records.labels).tolist() == [each] * 8


def test_they_are_jpegs_of_mixed_sizes(splits):
    found = shapes(splits.test)
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([40, 40, 3], [160, 64, 3])
    assert len({tuple(shape) for shape in found.tolist()}) > 300


def test_no_pixel_is_on_both_sides(monkeypatch):
    """Of photographs in which each pixel says where it is, without the JPEG in between."""
    import tensorflow as tf

    from tf_largebatch.data import crops

    places = np.arange(2 * 427 * 640, dtype=np.int64).reshape(2, 427, 640, 1)
    taken = []

    def encode_jpeg(pixels, quality):
        del quality
        taken.append(pixels)
        return tf.constant(b"")

    monkeypatch.setattr(crops, "photographs", lambda: list(places))
    monkeypatch.setattr(tf.io, "encode_jpeg", encode_jpeg)
    splits = crops.crops()
    train, test = taken[:1920], taken[1920:]
    seen = [np.unique(np.concatenate([p.ravel() for p in part])) for part in (train, test)]
    assert not np.intersect1d(*seen).size
    assert [len(s) for s in seen] > [0.55 * places.size, 0.35 * places.size]
    for pixels, label in zip(train, splits.train.records.labels, strict=True):
        photograph, y, x = np.unravel_index(pixels.ravel()[[0, -1]], (2, 427, 640))
        assert set(4 * photograph + 2 * (y // 213) + x // 320) == {label}


def test_they_are_the_same_for_every_seed_and_every_version(splits):
    np.random.seed(987)
    again = data.load("crops")
    assert again.train.records.items == splits.train.records.items
    # Results are comparable only while this stays what it is. (The bytes are libjpeg's matter.)
    assert zlib.crc32(shapes(splits.test).tobytes()) == 3405456767


def test_they_can_be_trained_on(splits):
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    images, labels = next(
        training_batches(
            splits.train, global_batch_size=48, seed=0, total_updates=1
        ).as_numpy_iterator()
    )
    assert images.shape == (48, 64, 64, 3) and len(set(labels)) == 8
    assert abs(images.mean()) < 1 and 0.3 < images.std() < 2
    batches = list(evaluation_batches(splits.test, batch_size=128).as_numpy_iterator())
    assert sum(mask.sum() for _, _, mask in batches) == 480


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets.images", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn.*tf-largebatch\[kernels\]"):
        data.load("crops")
