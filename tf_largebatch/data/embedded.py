"""Data that a package on every machine carries inside itself: nothing to download."""

import numpy as np

from tf_largebatch.data.source import ArraySource, Splits
from tf_largebatch.scaling import check_count

_SIDE = 8  # pixels
_HELD_OUT = 360  # of 1,797: a fifth
_SPLIT_SEED = 0  # never the training seed: every run is judged by the same digits


def digits(image_size=28, channels=1, augmentation="none"):
    """Scikit-learn's digits: 1,797 real handwritten digits by 13 people, 8x8 pixels.

    They are the test set of the UCI "Optical recognition of handwritten digits" (Alpaydin and
    Kaynak 1998). 1,437 are to train on and 360 are held out, drawn once, the same for every seed,
    each class in proportion; every writer is on both sides.

    The 17 grey levels become 0, 1/16 ... 1. The digits are enlarged bilinearly in NumPy, so that
    the pixels are the same on every machine. They aren't standardised.

    Args:
        image_size: Height and width to enlarge them to, in pixels; at least 8.
        channels: 1, or 3 equal ones for models of colour images.
        augmentation: `"none"`, or `"cifar"`: pad, crop, flip, cutout.

    Returns:
        `Splits(train, test)` of sources with images (n, image_size, image_size, channels) and 10
        classes.

    Raises:
        ValueError: If `image_size` isn't an integer of at least 8, or another argument is out of
            range.
        ImportError: If scikit-learn isn't installed.

    >>> splits = digits()
    >>> splits.train.images.shape, splits.test.images.shape
    ((1437, 28, 28, 1), (360, 28, 28, 1))
    >>> [int(n) for n in np.bincount(splits.test.labels)]
    [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    """
    image_size = check_count("image_size", image_size, at_least=_SIDE)
    channels = check_count("channels", channels)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which isn't installed. Install it: "
            "pip install scikit-learn, or the extra: pip install 'tf-largebatch[kernels]'."
        ) from error
    bunch = load_digits()
    images = enlarge((bunch.images / 16).astype(np.float32), image_size)[..., np.newaxis]
    images = np.repeat(images, channels, axis=-1)
    train, test = (
        ArraySource("digits", images[part], bunch.target[part], 10, augmentation)
        for part in split_digits(bunch.target)
    )
    return Splits(train=train, test=test)


def digits32(augmentation="none"):
    """The digits as 32x32 pixels in three equal colours, for models of CIFAR-10's shape.

    Args:
        augmentation: `"none"`, or `"cifar"`, which also mirrors half of them.

    Returns:
        `Splits(train, test)`, as `digits`.

    Raises:
        ValueError, ImportError: As `digits`.

    >>> digits32().train.input_shape
    (32, 32, 3)
    """
    return digits(image_size=32, channels=3, augmentation=augmentation)


def split_digits(labels):
    """The records to train on and the records held out, each in a fixed order.

    Args:
        labels: (1797,) classes, by which the split is stratified.

    Returns:
        Two arrays of record numbers, (1437,) and (360,), which together hold each record once.
    """
    from sklearn.model_selection import train_test_split

    records = np.arange(len(labels))
    return train_test_split(records, test_size=_HELD_OUT, stratify=labels, random_state=_SPLIT_SEED)


def enlarge(images, size):
    """Resize square images bilinearly, with half-pixel centres and edges repeated.

    Sums of two products each and no matrix product, whose order of summation would be the
    machine's.

    Args:
        images: (n, side, side) float32.
        size: The new side, in pixels.

    Returns:
        (n, size, size) float32.

    >>> enlarge(np.float32([[[0, 1], [0, 1]]]), 4)[0, 0]
    array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    side = images.shape[1]
    centres = (np.arange(size) + 0.5) * (side / size) - 0.5  # in old pixels
    centres = centres.clip(0, side - 1)
    low = np.floor(centres).astype(int)
    high = np.minimum(low + 1, side - 1)
    t = (centres - low).astype(np.float32)  # (size,)
    images = images[:, :, low] * (1 - t) + images[:, :, high] * t  # (n, side, size)
    t = t[:, np.newaxis]
    return images[:, low] * (1 - t) + images[:, high] * t  # (n, size, size)
