"""Data that lie in a folder: JPEGs in a subfolder for each class, or TFRecord files."""

import os
import re

import numpy as np
import tensorflow as tf

from tf_largebatch.data.jpeg import JpegSource
from tf_largebatch.data.records import FileRecords
from tf_largebatch.data.source import Splits
from tf_largebatch.data.tfrecords import TFRecords
from tf_largebatch.scaling import check_count

_TEST = ("validation", "val", "test")  # what the held-out part may be called
_JPEG = (".jpg", ".jpeg")


def image_folder(data_dir, **options):
    """Folders of JPEGs: `data_dir`/train/CLASS/*.jpg and `data_dir`/validation/CLASS/*.jpg.

    The classes are the subfolders of train, two or more, in alphabetical order, and the examples
    are ordered by class, then by file; the held-out part may also be called val or test. Left out
    are files of other endings, and files and folders whose names begin with a dot. Any file system
    that TensorFlow knows will do.

    Args:
        data_dir: The folder.
        options: Those of `tf_largebatch.data.jpeg.JpegSource`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If a folder is missing, a class of train has no image, a class of the held-out
            part isn't one of train, a name isn't in UTF-8, or an option is out of range.
    """
    data_dir = _folder(data_dir, "image_folder")
    parts = set(_subfolders(data_dir))
    test = next((part for part in _TEST if part in parts), None)
    if "train" not in parts or test is None:
        raise ValueError(
            f"data_dir must hold the folders train and {', '.join(_TEST[:-1])} or {_TEST[-1]}, "
            f"each with a folder for each class. Received: {data_dir}, which holds "
            f"{_listed(sorted(parts))}."
        )
    train = os.path.join(data_dir, "train")
    classes = _subfolders(train)
    if len(classes) < 2:
        raise ValueError(
            f"{train} must hold a folder for each class, at least two. Received: "
            f"{_listed(classes)}."
        )
    return Splits(
        train=_classes_in(train, classes, options, each=True),
        test=_classes_in(os.path.join(data_dir, test), classes, options),
    )


def _classes_in(folder, classes, options, *, each=False):
    """The source of a part; `each`: no class may be without an image."""
    paths, labels = [], []
    for name in _subfolders(folder):
        if name not in classes:
            raise ValueError(
                f"Each class of the held-out part must be one of train's {len(classes)}. Received: "
                f"{os.path.join(folder, name)}."
            )
        inside = os.path.join(folder, name)
        names = _names_in(inside)
        found = sorted(name for name in names if name.lower().endswith(_JPEG))
        if each and not found:
            raise ValueError(
                f"Each class must have files *.jpg or *.jpeg to train on. Received: {inside}, "
                f"which holds {_listed(sorted(names))}. Remove the folder if it is no class."
            )
        paths += [os.path.join(inside, file) for file in found]
        labels += [classes.index(name)] * len(found)
    if not paths:
        raise ValueError(
            f"{folder} must hold a folder for each class, with files *.jpg or *.jpeg. Received: "
            f"{_listed(_subfolders(folder))}."
        )
    records = FileRecords(paths, np.int32(labels))
    return JpegSource(name=folder, records=records, num_classes=len(classes), **options)


def tfrecords(data_dir, *, num_classes=None, first_label=0, **options):
    """TFRecord files of JPEGs: `data_dir`/train* and `data_dir`/validation*.

    Each record is a `tf.train.Example` as TensorFlow Datasets writes it (image, label) or the
    ImageNet scripts of TensorFlow's models do (image/encoded, image/class/label). The names may
    also be preceded by the name of the data and a hyphen (imagenet2012-train.tfrecord-00000-of-
    01024), and the held-out files may also be called val or test. What isn't offered: compressed
    files, which can't be read from the middle, and ArrayRecord files.

    An index of the records is made once and kept as `data_dir`/train.index.npz. On a remote file
    system that reads all of the data once.

    Args:
        data_dir: The folder.
        num_classes: The number of classes, which the files don't say.
        first_label: The number of the first class: 0, or 1 in the files of TensorFlow's models.
        options: Those of `tf_largebatch.data.jpeg.JpegSource`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If files are missing, or not whole; or an option is out of range.
    """
    data_dir = _folder(data_dir, "tfrecords")
    if num_classes is None:
        raise ValueError(
            "The source tfrecords must be told num_classes, for the files don't say it. Received: "
            "None. Pass num_classes=10, for example (to train.py: --data_options=num_classes=10)."
        )
    num_classes = check_count("num_classes", num_classes)
    first_label = check_count("first_label", first_label, at_least=0)
    names = _names_in(data_dir)
    found = {part: _files_of(part, names) for part in ("train", *_TEST)}
    test = next((part for part in _TEST if found[part]), None)
    if not found["train"] or test is None:
        raise ValueError(
            f"data_dir must hold files train* and {', '.join(f'{p}*' for p in _TEST[:-1])} or "
            f"{_TEST[-1]}*, whose names have tfrecord or -of- in them. Received: {data_dir}, which "
            f"holds {_listed(names)}."
        )

    def source(part):
        check_complete(data_dir, found[part])
        records = TFRecords(
            [os.path.join(data_dir, name) for name in found[part]],
            index_path=os.path.join(data_dir, f"{part}.index.npz"),
            first_label=first_label,
        )
        return JpegSource(
            name=os.path.join(data_dir, part), records=records, num_classes=num_classes, **options
        )

    return Splits(train=source("train"), test=source(test))


def check_complete(folder, names):
    """Raises a ValueError that names the first shard missing of a set NAME-00000-of-00008."""
    shards = [re.fullmatch(r"(.+-)\d{5}(-of-(\d{5}))", name) for name in names]
    for shard in filter(None, shards):
        before, after, count = shard.groups()
        wanted = (f"{before}{number:05}{after}" for number in range(int(count)))
        missing = next((name for name in wanted if name not in names), None)
        if missing:
            raise ValueError(
                f"The files must be complete. Received: {folder}, where {missing} is missing."
            )


def _files_of(part, names):
    pattern = re.compile(rf"(.+-)?{part}[-.].*(tfrecord|-of-\d+).*|{part}\.tfrecords?")
    return sorted(name for name in names if pattern.fullmatch(name))


def _folder(data_dir, source):
    data_dir = None if data_dir is None else os.path.expanduser(data_dir)
    if data_dir is None or not tf.io.gfile.isdir(data_dir):
        raise ValueError(
            f"The source {source} must be told the folder of the data, data_dir. Received: "
            f"data_dir={data_dir!r}"
            + ("." if data_dir is None else ", which isn't a folder.")
            + " Data that need none: crops."
        )
    return os.fspath(data_dir)


def _names_in(folder):
    """What a folder holds, but for what systems and editors hide there."""
    try:
        names = tf.io.gfile.listdir(folder)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The names of files must be in UTF-8. Received: {folder}, which holds "
            f"{error.object!r}. Rename it."
        ) from None
    return [name.rstrip("/") for name in names if not name.startswith(".")]  # remote ones end in /


def _subfolders(folder):
    names = _names_in(folder)
    return sorted(name for name in names if tf.io.gfile.isdir(os.path.join(folder, name)))


def _listed(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
