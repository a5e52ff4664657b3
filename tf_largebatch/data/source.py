"""What a model is trained on: examples of which any can be read at any time.

A source has a `name` and `num_examples`; `task`, which says what is learnt from it
(`tf_largebatch.training.tasks`); `model_arguments`, what a network must know of it to be built;
`bad_records`, {name: what is wrong} of the records that couldn't be used so far;
`parallel_batches`, how many to read at a time; and `read(examples, keys)`, in TensorFlow graph
code:

- examples: (batch,) int64, numbers from 0 to num_examples - 1; batch is static.
- keys: (batch, 2) int32, one for each example and epoch, of which alone all that is random about
  the examples is a function; None for evaluation, which draws nothing anew.
- It returns inputs, labels and weights, whose first dimension is batch and whose shapes are static:
  tensors or dicts of them. The weights have the structure of the labels, are float32, and 0 where
  there is nothing to be learnt or judged.

Labelled images, the task "classification": inputs (batch, *input_shape) float32, labels (batch,)
int32, and weights (batch,): 1, or 0 where the record can't be used and another one stands in for
it, which training takes as it comes.

Text of many lengths: a source may have `lengths`, one for each example, and `bucket_boundaries`;
its batches are then of like length, and it has `read(examples, keys, length)`, which pads to the
scalar `length`, so that the second dimension isn't static (`tf_largebatch.data.buckets`). And a
source of text has `vocabulary`, a tuple of its tokens in the order of their numbers, which a run
keeps beside its weights. A source may have `notes`: a tuple of sentences without a full stop, about
what loading did to the data that a reader of the results should know; empty if there is nothing.

So one mechanism gives every source its order, its resume and its shards
(`tf_largebatch.data.batches`). Here are the images that lie in memory, checked once where they
enter; `tf_largebatch.data.jpeg` has those that are decoded on the way.
"""

import dataclasses
import functools

import numpy as np

from tf_largebatch.scaling import check_count

AUGMENTATIONS = ("none", "cifar")


class LabelledImages:
    """What all sources of labelled images share; they have `input_shape` and `num_classes`."""

    task = "classification"

    @property
    def model_arguments(self):
        """The shape of an image, without the batch, and the length of the logits."""
        return {"input_shape": tuple(self.input_shape), "num_classes": self.num_classes}


class Text:
    """What all sources of text share; they have a `tokenizer`, a `Vocabulary`."""

    parallel_batches = -1  # tf.data.AUTOTUNE

    @property
    def vocabulary(self):
        """All tokens, a tuple of str in the order of their ids."""
        return self.tokenizer.tokens

    @property
    def model_arguments(self):
        """The number of tokens."""
        return {"vocabulary_size": self.tokenizer.size}


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource(LabelledImages):
    """Labelled images in memory, of which any can be read at any time.

    Attributes:
        name: What messages call the data.
        images: (num_examples, *input_shape), kept as float32.
        labels: (num_examples,) classes from 0 to num_classes - 1, kept as int32.
        num_classes: The number of classes.
        augmentation: What training does to them: `"none"`, or `"cifar"`: pad, crop, flip, cutout
            (`tf_largebatch.data.augmentation`), for images (height, width, channels) of 8x8 or
            more, standardised.

    Raises:
        ValueError: If there is no example, the lengths differ, an image isn't finite in float32,
            or a label isn't an integer in range; the message names the first offending record. Or
            if the augmentation is unknown or doesn't fit the images.

    >>> source = ArraySource("zeros", np.zeros((6, 28, 28, 1)), [0, 1, 2, 0, 1, 2], num_classes=3)
    >>> source.num_examples, source.input_shape, source.images.dtype
    (6, (28, 28, 1), dtype('float32'))
    """

    name: str
    images: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    num_classes: int
    augmentation: str = "none"

    parallel_batches = -1  # tf.data.AUTOTUNE

    def __post_init__(self):
        num_classes = check_count("num_classes", self.num_classes)
        labels = np.asarray(self.labels)
        images = self._checked_images()
        if len(images) == 0:
            raise ValueError(
                f"{self.name} has no examples. Received: images of shape {images.shape}. "
                "Check the path or the filter that they came from."
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"{self.name} must have one label for each image, in one dimension. Received: "
                f"{len(images)} images and labels of shape {labels.shape}. "
                "One-hot labels become classes by labels.argmax(-1)."
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"The labels of {self.name} must be integers. Received: dtype {labels.dtype}. "
                'If they are whole numbers, pass labels.astype("int32").'
            )
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if outside.size:
            raise ValueError(
                f"The labels of {self.name} must lie between 0 and num_classes - 1 = "
                f"{num_classes - 1}. Received: label {labels[outside[0]]} in record {outside[0]} "
                f"({outside.size} such in all). Raise num_classes, or subtract 1 from labels that "
                "count from 1."
            )
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation of {self.name} must be one of {', '.join(AUGMENTATIONS)}. Received: "
                f"augmentation={self.augmentation!r}."
            )
        if self.augmentation == "cifar" and (images.ndim != 4 or min(images.shape[1:3]) < 8):
            raise ValueError(
                f"The augmentation cifar needs images of shape (n, height, width, channels), 8x8 "
                f"or larger. Received: {self.name} of shape {images.shape}."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))
        object.__setattr__(self, "num_classes", num_classes)

    def _checked_images(self):
        images = np.asarray(self.images)
        if images.ndim < 2 or images.dtype.kind not in "biuf":
            raise ValueError(
                f"The images of {self.name} must be real numbers of shape (num_examples, "
                f"*input_shape). Received: shape {images.shape}, dtype {images.dtype}. "
                "Stack them first, with np.stack(images)."
            )
        with np.errstate(over="ignore"):  # what overflows is reported as not finite, below
            images = images.astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(images).all(axis=tuple(range(1, images.ndim))))
        if bad.size:
            raise ValueError(
                f"The images of {self.name} must be finite in float32. Received: a NaN or an "
                f"infinity in record {bad[0]} ({bad.size} such in all). Mend or drop the records."
            )
        return images

    @property
    def num_examples(self):
        """The number of examples, one epoch's worth."""
        return len(self.labels)

    @property
    def input_shape(self):
        """The shape of one image, without the batch."""
        return self.images.shape[1:]

    @property
    def bad_records(self):
        """None: all have been checked."""
        return {}

    @functools.cached_property
    def _tensors(self):
        import tensorflow as tf

        # On the host, where they are read; a GPU would hold the data for nothing.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.images), tf.constant(self.labels)

    def read(self, examples, keys=None):
        """As every source (see above): (images, labels, present)."""
        import tensorflow as tf

        images, labels = (tf.gather(tensor, examples) for tensor in self._tensors)
        if self.augmentation == "cifar" and keys is not None:
            from tf_largebatch.data.augmentation import pad_crop_flip_cutout

            images = pad_crop_flip_cutout(images, keys)
        return images, labels, tf.ones_like(labels, tf.float32)


def notes_of_longer(count, total, things, limit, became):
    """The `notes` of a source some of whose texts were too long.

    Args:
        count, total: How many were, and of how many.
        things: What they are, in the plural.
        limit: What they are longer than.
        became: What has become of them.

    Returns:
        A tuple of one str, or of none if `count` is 0.

    >>> notes_of_longer(10, 50, "training pairs", "max_length=20", "left out")
    ('10 of 50 training pairs are longer than max_length=20 and were left out',)
    """
    if not count:
        return ()
    are, were = ("is", "was") if count == 1 else ("are", "were")
    return (f"{count} of {total} {things} {are} longer than {limit} and {were} {became}",)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """What a model is trained on and what it is judged by.

    Attributes:
        train: The source to train on.
        test: The held-out one, of the same task and for the same network.

    Raises:
        ValueError: If the two don't fit the same model.
    """

    train: object
    test: object

    def __post_init__(self):
        train, test = (
            {"task": part.task, **part.model_arguments} for part in (self.train, self.test)
        )
        if train != test:
            raise ValueError(
                "train and test must be for the same task and the same network. Received: "
                f"train {train}, test {test}. Resize the images, pass both the larger "
                "num_classes, or give both the same vocabulary."
            )
