"""Public data as TensorFlow Datasets prepares them; most tests write such folders themselves.

The last ones let the package write them, and are skipped where it isn't installed: pip install
'tf-largebatch[data]', then pytest tests/data/test_prepared.py.
"""

import http.server
import os
import socket
import sys
import threading
import types

import numpy as np
import pytest

from jpeg_files import levels, write_tfrecord
from tf_largebatch import data

pytestmark = pytest.mark.tensorflow

SHAPE = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def png(name):
    """A function from a number to the bytes of an image of grey level 5 * number."""
    import tensorflow as tf

    return lambda n: tf.io.encode_png(np.full(SHAPE[name], 5 * n, np.uint8)).numpy()


def prepare(root, name, version="3.0.1", files=2):
    """Ten training examples and three held out, as the package would write them."""
    folder = root / name / version
    folder.mkdir(parents=True)
    for split, numbers in (("train", range(10)), ("test", range(3))):
        for i in range(files):
            write_tfrecord(
                folder / f"{name}-{split}.tfrecord-{i:05}-of-{files:05}",
                list(numbers)[i::files],
                encode=png(name),
            )
    return folder


def test_mnist_is_read_in_the_order_of_the_files(tmp_path):
    prepare(tmp_path, "mnist")
    splits = data.load("mnist", str(tmp_path))
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert splits.train.labels.tolist() == order and splits.test.labels.tolist() == [0, 2, 1]
    assert splits.train.input_shape == (28, 28, 1) and splits.train.num_classes == 10
    expected = np.float32(order)[:, np.newaxis, np.newaxis, np.newaxis] * 5 / 255
    np.testing.assert_allclose(splits.train.images, expected + np.zeros((10, 28, 28, 1)), 1e-6)
    assert splits.train.augmentation == "none"


def test_cifar10_is_standardised_and_augmented(tmp_path):
    prepare(tmp_path, "cifar10")
    train = data.load("cifar10", str(tmp_path)).train
    mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
    np.testing.assert_allclose(train.images[3] * std + mean, np.full((32, 32, 3), 30 / 255), 1e-5)
    assert train.augmentation == "cifar"
    assert data.load("cifar10", str(tmp_path), augmentation="none").train.augmentation == "none"


def test_the_newest_version_of_the_default_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare(tmp_path, "mnist", version="3.0.1").rename(tmp_path / "mnist" / "10.0.0")
    (tmp_path / "mnist" / "9.0.0").mkdir()
    (tmp_path / "mnist" / "incomplete.AB_11.0.0").mkdir()
    assert data.load("mnist").train.num_examples == 10


def test_imagenet2012_is_decoded_while_it_is_read(tmp_path):
    from tf_largebatch.data.batches import evaluation_batches

    folder = tmp_path / "imagenet2012" / "5.1.0"
    folder.mkdir(parents=True)
    for split, number in (("train", 1), ("validation", 2)):
        path = folder / f"imagenet2012-{split}.tfrecord-00000-of-00001"
        write_tfrecord(path, [number, number + 10])
    splits = data.load("imagenet2012", tmp_path, image_size=16, cache=True)
    assert (splits.train.num_classes, splits.train.input_shape) == (1000, (16, 16, 3))
    ((images, labels, _),) = evaluation_batches(splits.test, batch_size=2).as_numpy_iterator()
    assert labels.tolist() == levels(images) == [2, 12]


def test_a_damaged_record_or_a_missing_file_is_named(tmp_path):
    folder = prepare(tmp_path, "mnist")
    path = folder / "mnist-train.tfrecord-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    words = "record 4 of .*mnist-train.tfrecord-00001-of-00002 of mnist cannot be used.*corrupted"
    with pytest.raises(ValueError, match=words):
        data.load("mnist", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="mnist-train.tfrecord-00001-of-00002 is missing"):
        data.load("mnist", tmp_path)
    (folder / "mnist-train.tfrecord-00000-of-00002").rename(
        folder / "mnist-train.array_record-00000-of-00001"
    )
    with pytest.raises(ValueError, match="none in another format. Prepare it again, with file_fo"):
        data.load("mnist", tmp_path)


def test_a_label_out_of_range_is_named(tmp_path):
    folder = prepare(tmp_path, "mnist", files=1)
    write_tfrecord(folder / "mnist-train.tfrecord-00000-of-00001", [3, 10], encode=png("mnist"))
    with pytest.raises(ValueError, match="labels of mnist must lie.*label 10 in record 1"):
        data.load("mnist", tmp_path)


def one_sentence(error):
    return str(error).count(". ") == 0 and str(error).endswith(".")


def test_without_the_package_the_embedded_data_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for name, instead in (("mnist", "digits"), ("cifar10", "digits32")):
        words = f"{name} isn't in data_dir={tmp_path}.*tf-largebatch.data.*no download: {instead}."
        with pytest.raises(ImportError, match=words) as caught:
            data.load(name, str(tmp_path))
        assert one_sentence(caught.value)


class Package(types.ModuleType):
    """The part of tensorflow-datasets that is called, with data at an address of our choice."""

    def __init__(self, url, download_and_prepare):
        super().__init__("tensorflow_datasets")
        self.download = types.SimpleNamespace(DownloadError=RuntimeError)
        self.builder = lambda name, data_dir, file_format: types.SimpleNamespace(
            url_infos={f"{url}/{name}.gz": "size and checksum"},
            download_and_prepare=download_and_prepare,
        )


@pytest.fixture
def site():
    """The address of a web site on this machine that knows no file."""
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": print})
    handler.translate_path = lambda self, path: os.devnull + path
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["refused", "silent"])
def away(request, monkeypatch):
    """The address of a port at which nobody listens, or nobody answers."""
    pytest.importorskip("requests")
    monkeypatch.setattr("tf_largebatch.data.prepared._PATIENCE_S", 0.5)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if request.param == "silent":
            port.listen()
        yield f"http://127.0.0.1:{port.getsockname()[1]}"


def test_without_network_the_package_is_not_asked_and_the_embedded_data_are_named(
    tmp_path, monkeypatch, away
):
    def download_and_prepare():
        pytest.fail("it would try for minutes")

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", Package(away, download_and_prepare))
    with pytest.raises(ConnectionError, match="no network.*no download: digits.") as caught:
        data.load("mnist", str(tmp_path))
    assert one_sentence(caught.value)


@pytest.mark.parametrize("place", ["a.gz.INFO", "mnist/a.gz.INFO", "manual/a.gz"])
def test_without_network_archives_that_are_there_are_used(tmp_path, monkeypatch, away, place):
    path = tmp_path / "downloads" / place
    path.parent.mkdir(parents=True)
    path.touch()
    package = Package(away, lambda: prepare(tmp_path, "mnist"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    assert data.load("mnist", str(tmp_path)).train.num_examples == 10


def test_with_network_the_package_prepares_the_data(tmp_path, monkeypatch, site):
    pytest.importorskip("requests")
    package = Package(site, lambda: prepare(tmp_path, "mnist"))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    assert data.load("mnist", str(tmp_path)).train.num_examples == 10


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (OSError("Max retries exceeded"), ConnectionError, "can't be downloaded .no network"),
        (RuntimeError("HTTP code: 404"), ConnectionError, "can't be downloaded .no network"),
        (
            PermissionError(13, "Permission denied", "/data/mnist"),
            OSError,
            "can't be written there .Permission denied: /data/mnist.",
        ),
    ],
)
def test_why_a_download_failed_is_said(tmp_path, monkeypatch, site, error, kind, words):
    pytest.importorskip("requests")

    def download_and_prepare():
        raise error

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", Package(site, download_and_prepare))
    with pytest.raises(kind, match=f"mnist isn't in data_dir=.*{words}") as caught:
        data.load("mnist", str(tmp_path))
    assert one_sentence(caught.value)


def test_data_of_a_configuration_are_found_without_the_package(tmp_path, monkeypatch):
    from tf_largebatch.data.prepared import prepared_folder, split_files

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    folder = tmp_path / "wmt16_translate" / "de-en" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "wmt16_translate-test.tfrecord-00000-of-00001").touch()
    found = prepared_folder("wmt16_translate/de-en", tmp_path, instead="none")
    assert found == str(folder)
    (file,) = split_files(found, "wmt16_translate/de-en", "test")
    assert file == str(folder / "wmt16_translate-test.tfrecord-00000-of-00001")


def test_imagenet2012_says_how_it_is_prepared(tmp_path):
    with pytest.raises(ValueError, match="downloads/manual.*no download: crops.") as caught:
        data.load("imagenet2012", str(tmp_path))
    assert one_sentence(caught.value)


def build(root, name, encoding, num_shards):
    """Prepares the real digits by the real package, under the name of another data set."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from sklearn.datasets import load_digits

    shape = SHAPE.get(name, (None, None, 3))
    side = shape[0] or 24

    class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format=encoding),
                    "label": tfds.features.ClassLabel(num_classes=1000 if "net" in name else 10),
                }
            )
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            parts = {"train": (0, 300), "test": (300, 340), "validation": (300, 340)}
            return {split: self._generate_examples(*part) for split, part in parts.items()}

        def _generate_examples(self, low, high):
            images, labels = load_digits(return_X_y=True)
            for i in range(low, high):
                image = np.kron(images[i].reshape(8, 8) * 15, np.ones((-(-side // 8),) * 2))
                image = np.repeat(image[:side, :side, np.newaxis], shape[-1], -1).astype(np.uint8)
                yield i, {"image": image, "label": int(labels[i])}

    Digits.name = name
    builder = Digits(data_dir=str(root), file_format="tfrecord")
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    builder.download_and_prepare(download_config=config)
    return builder, tfds.ReadConfig(interleave_cycle_length=1)


@pytest.mark.filterwarnings("default")  # the package's own
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_what_the_package_writes_is_what_it_reads(tmp_path, name):
    builder, config = build(tmp_path, name, "png", num_shards=3)
    expected = list(builder.as_dataset(split="train", read_config=config).as_numpy_iterator())
    train = data.load(name, str(tmp_path)).train
    assert train.labels.tolist() == [example["label"] for example in expected]
    images = np.float32([example["image"] for example in expected])
    scale = [np.ptp(images) / np.ptp(train.images[..., c]) for c in range(images.shape[-1])]
    difference = train.images * scale - images
    assert np.ptp(difference, axis=(0, 1, 2)).max() < 1e-3


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("shuffle", ["global", "per_worker"])
@pytest.mark.parametrize("num_shards, pipelines", [(1, 4), (3, 2), (5, 5)])
def test_pipelines_see_each_prepared_example_once(tmp_path, num_shards, pipelines, shuffle):
    from tf_largebatch.data.batches import training_batches

    builder, config = build(tmp_path, "imagenet2012", "jpeg", num_shards)
    expected = [int(e["label"]) for e in builder.as_dataset(split="train", read_config=config)]
    train = data.load("imagenet2012", str(tmp_path), image_size=8, augmentation="none").train
    found = []
    for i in range(pipelines):
        batches = training_batches(
            train, global_batch_size=60, seed=0, total_updates=5, shuffle=shuffle,
            pipeline=i, num_pipelines=pipelines,
        )  # fmt: skip
        for images, labels in batches.as_numpy_iterator():
            found += zip(labels.tolist(), map(bytes, images), strict=True)
    assert sorted(label for label, _ in found) == sorted(expected)
    assert len(set(found)) >= 295  # of 300 digits, nearly all of which differ
