"""JPEG images, read, decoded and augmented while the model trains."""

import dataclasses
import os
import re
import threading

import numpy as np
import tensorflow as tf

from tf_largebatch.data.augmentation import decode, draw
from tf_largebatch.data.source import LabelledImages
from tf_largebatch.scaling import check_count, check_number

AUGMENTATIONS = ("none", "weak", "heavy")
_DECODABLE_BYTES = 2**29  # TensorFlow refuses more, even of what it is to crop
_SEARCHED = 100  # records tried to stand in for a bad one; if none will do, the disk is gone


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class JpegSource(LabelledImages):
    """Labelled JPEGs of any sizes, of which any can be read at any time.

    The sizes may differ, up to half a gigabyte decoded: an image is cropped while it is decoded and
    resized to one size. An image is decoded by one thread, the order kept. How a camera was held
    (EXIF) isn't heeded.

    Attributes:
        name: What messages call the data.
        records: Where the bytes lie (`tf_largebatch.data.records`).
        num_classes: The number of classes.
        image_size: Side of the images that the model sees, in pixels.
        augmentation: `"none"`, `"weak"` or `"heavy"` (`tf_largebatch.data.augmentation`), in
            training; evaluation crops the centre.
        min_area: The smallest part of an image that `"heavy"` may keep.
        cache: Keep in memory the bytes of each file once read; they are decoded each time, or
            augmentation would freeze. It saves a network disk; a local one is cached by the system.
        parallel_reads: Images under way at a time; None: four for each core, so that the cores go
            on with the next ones while a large one is decoded. Where reading waits for a network,
            pass more.
        skip_bad_records: What a record that can't be used leads to. False: a
            `tf.errors.InvalidArgumentError` that names it and says what is wrong. True: in training
            the next good record of the source stands in for it, in evaluation it counts for
            nothing. Either way `bad_records` lists what was met.

    Raises:
        ValueError: If an option is out of range, there is no record, or a label that is known
            without reading the record is.

    >>> from tf_largebatch.data.records import MemoryRecords
    >>> jpeg = tf.io.encode_jpeg(np.full((40, 60, 3), 255, np.uint8)).numpy()
    >>> white = JpegSource(name="white", records=MemoryRecords([jpeg], [0]), num_classes=1)
    >>> pixels, labels, present = white.read(tf.constant([0]))
    >>> pixels.shape, labels.numpy(), present.numpy()
    (TensorShape([1, 224, 224, 3]), array([0], dtype=int32), array([1.], dtype=float32))
    """

    name: str
    records: object = dataclasses.field(repr=False)
    num_classes: int
    image_size: int = 224
    augmentation: str = "heavy"
    min_area: float = 0.05
    cache: bool = False
    parallel_reads: int | None = None
    skip_bad_records: bool = False

    parallel_batches = 2  # the second begins while the last images of the first are decoded

    def __post_init__(self):
        check_count("image_size", self.image_size)
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation of {self.name} must be one of {', '.join(AUGMENTATIONS)}. Received: "
                f"augmentation={self.augmentation!r}."
            )
        if check_number("min_area", self.min_area) > 1:
            raise ValueError(f"min_area must be at most 1. Received: min_area={self.min_area}.")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        reads = 4 * cores if self.parallel_reads is None else self.parallel_reads
        object.__setattr__(self, "parallel_reads", check_count("parallel_reads", reads))
        if not len(self.records):
            raise ValueError(f"{self.name} has no examples. Check the folder that they came from.")
        labels = np.asarray([] if self.records.labels is None else self.records.labels)
        outside = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
        if outside.size:
            raise ValueError(
                f"{self.records.name_of(outside[0])} of {self.name}: "
                f"{self._label_is_outside(labels[outside[0]])} ({outside.size} such in all)."
            )
        table = None
        if self.cache:
            with tf.init_scope(), tf.device("CPU"):
                table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")
        object.__setattr__(self, "_cached", table)
        object.__setattr__(self, "_bad", {})
        object.__setattr__(self, "_lock", threading.Lock())

    @property
    def num_examples(self):
        """The number of examples, one epoch's worth."""
        return len(self.records)

    @property
    def input_shape(self):
        """The shape of one image, without the batch."""
        return (self.image_size, self.image_size, 3)

    @property
    def bad_records(self):
        """The records that couldn't be used so far, by this process: {name: what is wrong}."""
        return dict(sorted(self._bad.items()))

    def read(self, examples, keys=None):
        """As every source (`tf_largebatch.data.source`): (images, labels, present)."""
        size = examples.shape[0]
        drawn = draw(keys, self.augmentation)

        def one(row, example, drawn):
            return row, *self._read_one(example, drawn)

        # A row that fails leaves a gap. The last row can't fail, so that there is always a batch.
        last = (np.int64(size), np.zeros(self.input_shape, np.float32), np.int32(0))
        rows, pixels, labels = (
            tf.data.Dataset.from_tensor_slices((tf.range(size, dtype=tf.int64), examples, drawn))
            .map(one, num_parallel_calls=self.parallel_reads, deterministic=True)
            .ignore_errors()
            .concatenate(tf.data.Dataset.from_tensors(last))
            .batch(size + 1)
            .get_single_element()
        )
        mend = self._filled if self.skip_bad_records else self._refused
        pixels, labels, present = tf.cond(
            tf.shape(rows)[0] == size + 1,
            lambda: (pixels[:size], labels[:size], tf.ones(size)),
            lambda: mend(examples, drawn, rows, pixels, labels),
        )
        pixels = tf.ensure_shape(pixels, (size, *self.input_shape))
        return pixels, tf.ensure_shape(labels, (size,)), tf.ensure_shape(present, (size,))

    def _read_one(self, example, drawn):
        jpeg, label = self.records.parse(self._raw(example), example)
        if self.records.labels is None:  # they couldn't be checked before
            in_range = (label >= 0) & (label < self.num_classes)
            with tf.control_dependencies([tf.debugging.Assert(in_range, [label])]):
                jpeg = tf.identity(jpeg)
        pixels = decode(jpeg, drawn, image_size=self.image_size, min_area=self.min_area)
        return pixels, tf.cast(label, tf.int32)

    def _raw(self, example):
        if self._cached is None:
            return self.records.raw(example)
        kept = self._cached.lookup(example)

        def first_time():
            raw = self.records.raw(example)
            with tf.control_dependencies([self._cached.insert(example, raw)]):
                return tf.identity(raw)

        return tf.cond(tf.strings.length(kept) > 0, lambda: kept, first_time)

    def _refused(self, examples, drawn, rows, pixels, labels):
        """Raises what `_why` says of the first gap."""
        del drawn, labels
        whole = tf.range(tf.size(rows, tf.int64))
        gap = tf.argmin(tf.cast(rows == whole, tf.int32))  # the first
        why = tf.numpy_function(self._why, [examples[gap]], tf.string)
        with tf.control_dependencies([tf.debugging.Assert(False, [why])]):
            size = examples.shape[0]
            return tf.identity(pixels[:size]), tf.zeros(size, tf.int32), tf.zeros(size)

    def _filled(self, examples, drawn, rows, pixels, labels):
        """The batch with its gaps filled by the next good records."""
        size = examples.shape[0]
        place = tf.searchsorted(rows, tf.range(tf.constant(size, tf.int64)))  # of each row

        def stand_in(row):
            example, own = examples[row], {name: part[row] for name, part in drawn.items()}
            why = tf.numpy_function(self._why, [example], tf.string)
            none = (tf.zeros(self.input_shape), -1)
            pixels, label = (
                tf.data.Dataset.range(example + 1, example + 1 + _SEARCHED)
                .map(lambda other: self._read_one(other % self.num_examples, own))
                .ignore_errors()
                .concatenate(tf.data.Dataset.from_tensors(none))
                .take(1)
                .get_single_element()
            )
            why = tf.strings.join([why, f" Nor can the {_SEARCHED} records after it."])
            with tf.control_dependencies([tf.debugging.Assert(label >= 0, [why])]):
                return tf.identity(pixels), label, 0.0

        def one(row):
            here = place[row]
            return tf.cond(
                rows[here] == row,
                lambda: (pixels[here], labels[here], 1.0),
                lambda: stand_in(row),
            )

        return tf.data.Dataset.range(size).map(one).batch(size).get_single_element()

    def _why(self, example):
        """One sentence on what is wrong with a record, which is also noted."""
        try:
            with tf.device("CPU"):
                jpeg, label = self.records.parse(self.records.raw(example), example)
            jpeg, label = jpeg.numpy(), int(label)
            if not 0 <= label < self.num_classes:
                what = self._label_is_outside(label)
            elif not jpeg.startswith(b"\xff\xd8"):
                what = f"its {len(jpeg):,} bytes aren't a JPEG"
            elif not jpeg.rstrip(b"\0").endswith(b"\xff\xd9"):
                what = f"the JPEG is truncated, after {len(jpeg):,} bytes"
            else:
                what = _what_is_wrong_inside(jpeg)
        except tf.errors.OpError as error:
            what = re.sub(r"\{\{.*?\}\} ?| \[Op:\w+\]| name: *$", "", error.message).rstrip(" .")
        name = self.records.name_of(int(example))
        with self._lock:
            self._bad[name] = what
        return (
            f"{name} of {self.name} cannot be used: {what}. Mend it, remove it, or pass "
            "skip_bad_records=True."
        ).encode()

    def _label_is_outside(self, label):
        what = f"its label must lie between 0 and {self.num_classes - 1}. Received: {label}"
        if self.records.labels is None and label == self.num_classes:
            what += " (if the classes count from 1, pass first_label=1)"
        return what


def _what_is_wrong_inside(jpeg):
    """Of a file that begins and ends as a JPEG does."""
    try:
        with tf.device("CPU"):
            height, width, _ = map(int, tf.image.extract_jpeg_shape(jpeg))
    except tf.errors.OpError:
        return "the JPEG is damaged"
    if height * width * 3 >= _DECODABLE_BYTES:
        return (
            f"its {width:,}x{height:,} pixels in three colours are more than the "
            f"{_DECODABLE_BYTES:,} bytes that can be decoded"
        )
    return "the JPEG is damaged"
