"""The embedded digits and the sources that hold them."""

import sys
import zlib

import numpy as np
import pytest

from tf_largebatch import data
from tf_largebatch.data import embedded
from tf_largebatch.data.source import ArraySource, Splits


@pytest.fixture(scope="module")
def splits():
    return data.digits()


def records():
    labels = np.array([n % 10 for n in range(1797)])
    return embedded.split_digits(labels)


def test_shapes_dtypes_and_range(splits):
    for source, n in [(splits.train, 1437), (splits.test, 360)]:
        assert (source.name, source.num_examples, source.num_classes) == ("digits", n, 10)
        assert source.input_shape == (28, 28, 1)
        assert source.images.shape == (n, 28, 28, 1) and source.images.dtype == np.float32
        assert source.labels.shape == (n,) and source.labels.dtype == np.int32
        assert source.images.min() == 0.0 and source.images.max() == 1.0


def test_split_holds_each_record_once():
    train, test = records()
    assert (len(train), len(test)) == (1437, 360)
    assert sorted([*train, *test]) == list(range(1797))


def test_split_is_stratified(splits):
    train, test = (np.bincount(s.labels, minlength=10) for s in (splits.train, splits.test))
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert abs(test - (train + test) * 360 / 1797).max() < 1


def test_split_is_the_same_for_every_seed_and_every_version(splits):
    np.random.seed(987)
    again = data.digits()
    for part in ("train", "test"):
        np.testing.assert_array_equal(
            getattr(again, part).images, getattr(splits, part).images, strict=True
        )
    # Results are comparable only while this stays what it is.
    assert zlib.crc32(splits.test.labels.tobytes()) == 1473915990
    assert zlib.crc32(splits.test.images.tobytes()) == 1876097472


def test_size_8_gives_the_original_pixels():
    from sklearn.datasets import load_digits

    train, test = data.digits(image_size=8).train, data.digits(image_size=8).test
    ours = np.concatenate([train.images, test.images])[..., 0] * 16
    theirs = load_digits().images
    assert sorted(map(tuple, ours.reshape(1797, 64))) == sorted(map(tuple, theirs.reshape(-1, 64)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("size", [9, 28, 31])
def test_enlarging_is_tensorflows_bilinear(size):
    import tensorflow as tf

    small = np.random.default_rng(size).uniform(size=(3, 8, 8)).astype("float32")
    theirs = tf.image.resize(small[..., np.newaxis], (size, size), "bilinear")[..., 0]
    np.testing.assert_allclose(embedded.enlarge(small, size), theirs, atol=1e-6)


@pytest.mark.parametrize("size", [7, 0, 28.0, None])
def test_refuses_a_size_that_would_shrink_or_is_no_integer(size):
    with pytest.raises(ValueError, match="image_size must be a whole number of at least 8.*Rec"):
        data.digits(image_size=size)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn.*tf-largebatch\[kernels\]"):
        data.digits()


def test_load_by_name(splits):
    loaded = data.load("digits", data_dir="ignored")
    np.testing.assert_array_equal(loaded.train.images, splits.train.images)


def test_digits32_fit_models_of_cifar10(splits):
    loaded = data.load("digits32")
    assert loaded.train.input_shape == loaded.test.input_shape == (32, 32, 3)
    expected = data.digits(image_size=32).test.images
    np.testing.assert_array_equal(loaded.test.images, np.concatenate([expected] * 3, -1))
    np.testing.assert_array_equal(loaded.train.labels, splits.train.labels)
    assert loaded.train.augmentation == "none"


@pytest.mark.tensorflow
def test_arrays_are_augmented_in_training_alone():
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    plain = data.load("digits32").train
    given = data.load("digits32", augmentation="cifar").train
    options = {"global_batch_size": 64, "seed": 0, "total_updates": 2}
    found, expected = (
        list(training_batches(s, **options).as_numpy_iterator()) for s in (given, plain)
    )
    for (images, labels), (before, same) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(labels, same)
        assert (abs(images - before).max(axis=(1, 2, 3)) > 0).mean() > 0.9
    images, _, _ = next(evaluation_batches(given, batch_size=64).as_numpy_iterator())
    np.testing.assert_array_equal(images, plain.images[:64])


def test_an_unknown_source_is_answered_with_the_nearest_and_the_list():
    names = (
        "c4, cifar10, crops, digits, digits32, english, english_lm, image_folder, imagenet2012, "
        "lm_folder, mnist, parallel_text, phrases, questions, squad, text_folder, tfrecords, "
        "topics, topics_lm, wiki40b, wikipedia, wikipedia_books, wmt16"
    )
    with pytest.raises(ValueError, match=f"'digit'. Nearest: digits.*The sources are: {names}"):
        data.load("digit")
    with pytest.raises(ValueError, match=rf"'zzz'. The sources are: {names}\.$"):
        data.load("zzz")


@pytest.mark.parametrize(
    "name, option, words",
    [
        ("digits", "size", "digits has no option 'size'. .*: augmentation, channels, image_size"),
        ("digits32", "image_size", "digits32 has no option 'image_size'. It has: augmentation"),
        ("mnist", "image_size", "mnist has no option 'image_size'. It has: none"),
    ],
)
def test_an_unknown_option_is_answered_with_the_list(name, option, words):
    with pytest.raises(ValueError, match=words):
        data.load(name, **{option: 8})


@pytest.mark.tensorflow
def test_sources_of_jpegs_take_the_options_of_jpegs():
    words = "has no option 'agmentation'. Nearest: augmentation.*cache, .*image_size, min_area"
    for name in ("crops", "imagenet2012", "image_folder", "tfrecords"):
        with pytest.raises(ValueError, match=words):
            data.load(name, agmentation="none")


def good(**changes):
    images = np.zeros((6, 4, 4, 1))
    return {"name": "toy", "images": images, "labels": [0, 1, 2] * 2, "num_classes": 3, **changes}


def spoilt(record, value, dtype="float64"):
    images = np.zeros((6, 4, 4, 1), dtype)
    images[record, 2, 1, 0] = value
    return images


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"labels": [0, 1, 2]}, r"one label for each image.*6 images and labels of shape \(3,\)"),
        ({"labels": np.eye(6)}, r"shape \(6, 6\).*argmax"),
        ({"labels": [0, 1, 3, 0, 4, 2]}, "num_classes - 1 = 2.*label 3 in record 2.*2 such"),
        ({"labels": [0, 1, 2, 0, 1, -1]}, "label -1 in record 5"),
        ({"labels": [0.0] * 6}, "must be integers.*float64.*astype"),
        ({"labels": [], "images": np.zeros((0, 4, 4, 1))}, "toy has no examples.*Received"),
        ({"images": spoilt(4, np.nan)}, "finite.*record 4"),
        ({"images": spoilt(1, -np.inf)}, "finite.*record 1"),
        ({"images": spoilt(3, 1e300)}, "finite in float32.*record 3"),
        ({"images": np.zeros(6)}, r"\(num_examples, \*input_shape\).*Received: shape \(6,\)"),
        ({"images": np.full((6, 2), "a")}, "real numbers.*<U1"),
        ({"num_classes": 0}, "num_classes must be a whole number.*Received: num_classes=0"),
        ({"augmentation": "weak"}, "one of none, cifar. Received: augmentation='weak'"),
        ({"augmentation": "cifar"}, r"8x8 or larger. Received: toy of shape \(6, 4, 4, 1\)"),
    ],
)
def test_a_source_refuses_bad_records(changes, words):
    with pytest.raises(ValueError, match=words):
        ArraySource(**good(**changes))


def test_a_source_keeps_float32_and_int32_and_stays_as_it_was_checked():
    source = ArraySource(**good(images=np.full((6, 4, 4, 1), 255, "uint8")))
    assert source.images.dtype == np.float32 and source.images.max() == 255
    assert source.labels.dtype == np.int32
    with pytest.raises(AttributeError, match="labels"):
        source.labels = [0]


@pytest.mark.parametrize("changes", [{"images": np.zeros((6, 5, 5, 1))}, {"num_classes": 4}])
def test_splits_must_fit_one_model(changes):
    with pytest.raises(ValueError, match="for the same task and the same network. Received: train"):
        Splits(train=ArraySource(**good()), test=ArraySource(**good(**changes)))
