"""Where the bytes of an image lie: in memory or in files, each to be read at any time.

Records have a length, `labels`, which is None where only reading tells, `name_of(example)` for
messages, and two functions of one example's number in TensorFlow graph code: `raw(example)`, the
bytes as they are stored, and `parse(raw, example)`, the JPEG and its label in them, an integer of
any size. What is cached is the first, before anything is decoded.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf


def constant(values):
    """A tensor in the memory of the host, wherever the graph that uses it is being made."""
    with tf.init_scope(), tf.device("CPU"):
        return tf.constant(values)


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryRecords:
    """JPEGs in memory.

    Attributes:
        items: Their bytes.
        labels: (len(items),) integers.
    """

    items: list = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)

    def __len__(self):
        return len(self.items)

    def name_of(self, example):
        """What messages call the record."""
        return f"record {example}"

    @functools.cached_property
    def _tables(self):
        return constant(self.items), constant(np.int32(self.labels))

    def raw(self, example):
        """() string."""
        return self._tables[0][example]

    def parse(self, raw, example):
        """The JPEG and its label, () string and () int32."""
        return raw, self._tables[1][example]


class FileRecords(MemoryRecords):
    """JPEGs in files of their own, of which the paths lie in memory: `items`."""

    def name_of(self, example):
        """What messages call the record."""
        return self.items[example]

    def raw(self, example):
        """() string."""
        return tf.io.read_file(super().raw(example))
