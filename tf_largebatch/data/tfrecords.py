"""TFRecord files of which any record can be read at any time.

A TFRecord file is a chain of [length, checksum of it, bytes, checksum of them]: 8, 4, length and 4
bytes. Reading the lengths alone gives an index, after which a record is one read at its offset. So
files need no interleaving: the order of the examples is the shuffle's, wherever they lie, and as
many files as `JpegSource.parallel_reads` says are read at a time.
"""

import dataclasses
import functools
import io
import os
import struct
import zipfile

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_largebatch.data.records import constant

_LENGTH = struct.Struct("<Q")
_AROUND = 16  # bytes of a record beside its own

# What the two common writers call the image and its label: TensorFlow Datasets, which counts
# classes from 0, and the ImageNet scripts of TensorFlow's models, MLPerf's too, from 1.
_KEYS = (("image", "label"), ("image/encoded", "image/class/label"))


@dataclasses.dataclass(frozen=True, eq=False)
class TFRecords:
    """`tf.train.Example` protos in uncompressed TFRecord files; their order is the files'.

    TensorFlow's own reader fetches a record at its offset, on any file system that it knows, and
    checks both checksums.

    Attributes:
        files: Paths, of which at least one holds a record.
        index_path: Where to keep the index, so that the next run needn't read all the lengths;
            made again if the files' sizes or dates have changed. None keeps nothing.
        first_label: The number of the first class: 0, or 1.

    Raises:
        ValueError: If a file isn't a whole TFRecord file, none holds a record, or the first record
            has no image and label under the names that we know.
    """

    files: list = dataclasses.field(repr=False)
    index_path: str | None = None
    first_label: int = 0

    labels = None  # in the records

    def __post_init__(self):
        if not len(self):
            raise ValueError(f"There is no record in the files. Received: {self.files}.")
        with tf.device("CPU"):
            first = self.raw(0).numpy()
        try:
            found = tf.train.Example.FromString(first).features.feature
        except DecodeError:
            raise ValueError(
                f"{self.name_of(0)} must be a tf.train.Example proto. Received: {len(first):,} "
                "bytes that are none. Write the files again."
            ) from None
        keys = next((keys for keys in _KEYS if set(keys) <= set(found)), None)
        if keys is None:
            raise ValueError(
                f"{self.name_of(0)} must have an image and its label, under the names "
                f"{' or '.join(' and '.join(keys) for keys in _KEYS)}. Received: "
                f"{', '.join(sorted(found))}."
            )
        object.__setattr__(self, "keys", keys)

    @functools.cached_property
    def index(self):
        """(3, records) int64: the number of the file, and the record's offset and length there."""
        return load_index(self.files, self.index_path)

    def __len__(self):
        return self.index.shape[1]

    def name_of(self, example):
        """What messages call the record: its number within its file."""
        files = self.index[0]
        number = example - np.searchsorted(files, files[example])
        return f"record {number} of {self.files[files[example]]}"

    @functools.cached_property
    def _tables(self):
        return constant(self.files), constant(self.index)

    def raw(self, example):
        """() string."""
        files, index = self._tables
        file, offset, length = tf.unstack(index[:, example])
        record = tf.raw_ops.TFRecordDatasetV2(
            filenames=[files[file]],
            compression_type="",
            buffer_size=length + _AROUND,  # one read
            byte_offsets=[offset],
        )
        kind = {"output_types": [tf.string], "output_shapes": [()]}
        record = tf.raw_ops.TakeDataset(input_dataset=record, count=1, **kind)
        return tf.raw_ops.DatasetToSingleElement(dataset=record, **kind)[0]

    def parse(self, raw, example):
        """The image's bytes and its label, () string and () int64."""
        del example
        image, label = self.keys
        features = tf.io.parse_single_example(
            raw,
            {
                image: tf.io.FixedLenFeature((), tf.string),
                label: tf.io.FixedLenFeature((), tf.int64),
            },
        )
        return features[image], features[label] - self.first_label


def load_index(files, index_path=None):
    """The index of TFRecord files: kept from an earlier run, or made now and kept.

    Args:
        files: Paths.
        index_path: Where it is kept, if anywhere. Where that can't be written it is made each time.

    Returns:
        (3, records) int64: number of the file, offset, length.

    Raises:
        ValueError: If a file isn't a whole uncompressed TFRecord file.
    """
    stats = [tf.io.gfile.stat(file) for file in files]
    sizes = np.int64([stat.length for stat in stats])
    dates = np.int64([stat.mtime_nsec for stat in stats])
    names = np.array([os.path.basename(file) for file in files])
    try:
        with tf.io.gfile.GFile(index_path, "rb") if index_path else io.BytesIO() as kept:
            kept = np.load(io.BytesIO(kept.read()), allow_pickle=False)
            own = {"names": names, "sizes": sizes, "dates": dates}
            if all(np.array_equal(kept[name], value) for name, value in own.items()):
                return kept["index"]
    except (tf.errors.OpError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # there is none, or not a whole one
    parts = [_records_of(file, size) for file, size in zip(files, sizes.tolist(), strict=True)]
    numbers = np.repeat(np.arange(len(files)), [len(part) for part in parts])
    index = np.concatenate([numbers[np.newaxis], np.concatenate(parts).T])
    if index_path:
        _keep(index_path, names=names, sizes=sizes, dates=dates, index=index)
    return index


def _records_of(file, size):
    """(records, 2) int64: the offsets and lengths of one file's records."""
    found, offset = [], 0
    # Locally the lengths alone are read. TensorFlow's files have a buffer and read all in between.
    is_remote = "://" in file
    with tf.io.gfile.GFile(file, "rb") if is_remote else open(file, "rb", buffering=0) as opened:
        while offset < size:
            opened.seek(offset)
            header = opened.read(_LENGTH.size)
            length = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else size
            if offset + _AROUND + length > size:
                raise ValueError(
                    f"{file} isn't a whole TFRecord file: its record {len(found)}, at byte "
                    f"{offset:,}, would end beyond the file's {size:,} bytes. It is truncated, "
                    "compressed, or no TFRecord file; copy or write it again."
                )
            found.append((offset, length))
            offset += _AROUND + length
    return np.array(found, np.int64).reshape(-1, 2)


def _keep(path, **arrays):
    """Writes under another name first, so that no other worker ever reads half an index."""
    unfinished = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    content = io.BytesIO()
    np.savez(content, **arrays)
    try:
        with tf.io.gfile.GFile(unfinished, "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(unfinished, path, overwrite=True)
    except tf.errors.OpError:
        pass  # the folder is read-only
