"""Public data sets as TensorFlow Datasets prepares them on disk."""

import os
import re
import threading

import numpy as np
import tensorflow as tf

from tf_largebatch.data.folders import check_complete
from tf_largebatch.data.jpeg import JpegSource
from tf_largebatch.data.source import ArraySource, Splits
from tf_largebatch.data.tfrecords import TFRecords

# Of CIFAR-10's training images, in red, green and blue; in pixel values of 0 to 1.
CIFAR10_MEAN = np.float32([0.4914, 0.4822, 0.4465])
CIFAR10_STD = np.float32([0.2470, 0.2435, 0.2616])

_PREPARED_URL = "https://storage.googleapis.com/tfds-data"  # where the package keeps data itself
_PATIENCE_S = 5


def mnist(data_dir=None):
    """MNIST (LeCun et al. 1998): 60,000 handwritten digits and 10,000 held out, 28x28 pixels.

    Args:
        data_dir: TensorFlow Datasets' folder; None: $TFDS_DATA_DIR or ~/tensorflow_datasets. What
            isn't there yet is downloaded into it, by the package tensorflow-datasets.

    Returns:
        `Splits(train, test)` with images (n, 28, 28, 1), the grey levels as 0 to 1, in 10 classes.

    Raises:
        ValueError: If a file is damaged or incomplete, or a label out of range.
        ImportError, ConnectionError: If the data must be downloaded but can't be.
    """
    folder = prepared_folder("mnist", data_dir, instead="digits")
    train, test = (_arrays(folder, "mnist", split) for split in ("train", "test"))
    return Splits(
        train=ArraySource("mnist", train[0] / np.float32(255), train[1], num_classes=10),
        test=ArraySource("mnist", test[0] / np.float32(255), test[1], num_classes=10),
    )


def cifar10(data_dir=None, augmentation="cifar"):
    """CIFAR-10 (Krizhevsky 2009): 50,000 small photographs and 10,000 held out, 32x32 pixels.

    They are standardised by the mean and the deviation of each colour.

    Args:
        data_dir: As for `mnist`.
        augmentation: `"cifar"` (pad, crop, flip, cutout) or `"none"`.

    Returns:
        `Splits(train, test)` with images (n, 32, 32, 3) in 10 classes.

    Raises:
        ValueError, ImportError, ConnectionError: As `mnist`.
    """
    folder = prepared_folder("cifar10", data_dir, instead="digits32")

    def source(split):
        images, labels = _arrays(folder, "cifar10", split)
        images = (images / np.float32(255) - CIFAR10_MEAN) / CIFAR10_STD
        return ArraySource("cifar10", images, labels, num_classes=10, augmentation=augmentation)

    return Splits(train=source("train"), test=source("test"))


def imagenet2012(data_dir=None, **options):
    """ImageNet (Russakovsky et al. 2015): 1,281,167 photographs and 50,000 held out, 1,000 classes.

    The classes count from 0, in the order of their WordNet numbers. The data can't be downloaded
    without an account: TensorFlow Datasets prepares them from two archives in its folder
    downloads/manual.

    Args:
        data_dir: As for `mnist`.
        options: Those of `tf_largebatch.data.jpeg.JpegSource`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If the data aren't there, a file is incomplete, or an option is out of range.
    """
    folder = prepared_folder("imagenet2012", data_dir, instead="crops", download=False)

    def source(split):
        files = split_files(folder, "imagenet2012", split)
        records = TFRecords(files, index_path=os.path.join(folder, f"{split}.index.npz"))
        return JpegSource(name="imagenet2012", records=records, num_classes=1000, **options)

    return Splits(train=source("train"), test=source("validation"))


def prepared_folder(name, data_dir=None, *, instead, download=True):
    """Where data lie that TensorFlow Datasets prepared; they are prepared first, if need be.

    Args:
        name: The package's name of the data: "mnist", or with a configuration
            "wmt16_translate/de-en".
        data_dir: As for `mnist`.
        instead: The source that an error names, as one that needs no download.
        download: Whether what isn't there is downloaded.

    Returns:
        The folder of the newest version, `data_dir`/`name`/1.2.3.

    Raises:
        ValueError: If the data aren't there and `download` is False.
        ImportError: If they aren't there, nor is the package.
        ConnectionError: If they aren't there and can't be downloaded. Where the network is away
            that takes seconds; the package itself would try for more than three minutes.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
    data_dir = os.path.expanduser(data_dir)
    found = _newest(data_dir, name)
    if found is None and not download:
        raise ValueError(
            f"{name} isn't in data_dir={data_dir}: prepare it there once, with "
            f"tensorflow_datasets.builder({name!r}, data_dir=...).download_and_prepare() and its "
            f"archives in downloads/manual, or use data that need no download: {instead}."
        )
    if found is None:
        _download(name, data_dir, instead)
        found = _newest(data_dir, name)
    if found is None:
        raise ValueError(
            f"{name} was prepared, but {os.path.join(data_dir, name)} holds no version of it."
        )
    return found


def _newest(data_dir, name):
    folder = os.path.join(data_dir, name)
    versions = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    versions = [v.rstrip("/") for v in versions if re.fullmatch(r"\d+\.\d+\.\d+/?", v)]
    if not versions:
        return None
    return os.path.join(folder, max(versions, key=lambda v: [int(n) for n in v.split(".")]))


def _download(name, data_dir, instead):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{name} isn't in data_dir={data_dir}, and downloading it needs tensorflow-datasets "
            f"(pip install 'tf-largebatch[data]'); data that need no download: {instead}."
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="tfrecord")
        if not _has_archives(name, data_dir) and not _answers(builder.url_infos or ()):
            raise ConnectionError("No answer from where the data come from.")
        builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:  # requests' errors are OSErrors
        what, kind = "downloaded (no network?)", ConnectionError
        if getattr(error, "filename", None) is not None:
            what, kind = f"written there ({error.strerror}: {error.filename})", OSError
        raise kind(
            f"{name} isn't in data_dir={data_dir} and can't be {what}; data that need no download: "
            f"{instead}."
        ) from error


def _has_archives(name, data_dir):
    """Whether archives lie there that may be all it takes: downloaded before, or by hand."""
    folder, name = os.path.join(data_dir, "downloads"), name.partition("/")[0]
    patterns = ("*.INFO", os.path.join(name, "*.INFO"), os.path.join("manual", "*"))
    return any(tf.io.gfile.glob(os.path.join(folder, pattern)) for pattern in patterns)


def _answers(urls):
    """Whether the first address of the data answers within seconds.

    Asked before the package is: its own ten attempts, each waiting twice as long, take 204 s.
    """
    import requests  # as the package does, by the same proxies

    url = next((url for url in urls if url.startswith("http")), _PREPARED_URL)
    found = []

    def ask():
        try:
            found.append(requests.head(url, timeout=_PATIENCE_S, allow_redirects=True).status_code)
        except requests.RequestException:
            pass

    # The time limit of requests leaves out the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return bool(found) and found[0] < 500  # a gateway's own errors are of 500 and above


def split_files(folder, name, split):
    """The TFRecord files of one split in a folder from `prepared_folder`, in order.

    Raises:
        ValueError: If there are none, or one is missing.
    """
    prefix = f"{name.partition('/')[0]}-{split}."
    names = tf.io.gfile.listdir(folder)
    files = sorted(n for n in names if n.startswith(f"{prefix}tfrecord"))
    if not files:
        other = " in another format" if any(n.startswith(prefix) for n in names) else ""
        raise ValueError(
            f"{folder} must hold {name}'s split {split} as TFRecord files, {prefix}tfrecord*. "
            f"Received: it has none{other}. Prepare it again, with file_format='tfrecord'."
        )
    check_complete(folder, files)
    return [os.path.join(folder, n) for n in files]


def _arrays(folder, name, split):
    """All images, (n, height, width, channels) uint8, and labels, in the order of the files."""
    images, labels = [], []
    for file in split_files(folder, name, split):
        records = TFRecords([file])
        numbers = tf.data.Dataset.range(len(records))
        decoded = numbers.map(
            lambda n, records=records: _decoded(*records.parse(records.raw(n), n)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        iterator = iter(decoded.prefetch(tf.data.AUTOTUNE))
        for number in range(len(records)):
            try:
                image, label = next(iterator)
            except tf.errors.OpError as error:
                raise ValueError(
                    f"{records.name_of(number)} of {name} cannot be used. Received: "
                    f"{error.message.splitlines()[0]}. Prepare the data again."
                ) from None
            images.append(image.numpy())
            labels.append(int(label))
    return np.stack(images), np.int64(labels)


def _decoded(png, label):
    return tf.io.decode_png(png), label
