"""Examples held in memory, checked once where they enter."""

import dataclasses

import numpy as np

from tf_largebatch.scaling import check_count


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Labelled images in memory, of which any can be read at any time.

    Attributes:
        name: What messages call the data.
        images: (num_examples, *input_shape), kept as float32.
        labels: (num_examples,) classes from 0 to num_classes - 1, kept as int32.
        num_classes: The number of classes.

    Raises:
        ValueError: If there is no example, the lengths differ, an image isn't finite in float32,
            or a label isn't an integer in range; the message names the first offending record.

    >>> source = ArraySource("zeros", np.zeros((6, 28, 28, 1)), [0, 1, 2, 0, 1, 2], num_classes=3)
    >>> source.num_examples, source.input_shape, source.images.dtype
    (6, (28, 28, 1), dtype('float32'))
    """

    name: str
    images: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    num_classes: int

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


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """What a model is trained on and what it is judged by.

    Attributes:
        train: The `ArraySource` to train on.
        test: The held-out one, of the same input shape and the same number of classes.

    Raises:
        ValueError: If the two don't fit the same model.
    """

    train: ArraySource
    test: ArraySource

    def __post_init__(self):
        train = (self.train.input_shape, self.train.num_classes)
        test = (self.test.input_shape, self.test.num_classes)
        if train != test:
            raise ValueError(
                "train and test must have the same input_shape and num_classes. Received: "
                f"train {train}, test {test}. Resize the images or pass both the larger "
                "num_classes."
            )
