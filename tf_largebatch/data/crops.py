"""A small stand-in for ImageNet that needs no download: JPEG crops of two photographs."""

from importlib import resources

import numpy as np
import tensorflow as tf

from tf_largebatch.data.jpeg import JpegSource
from tf_largebatch.data.records import MemoryRecords
from tf_largebatch.data.source import Splits

_ROWS, _COLUMNS = 2, 2  # cells of a photograph
_STRIPE = 64  # pixels, a fifth of a cell's width
_TRAIN_STRIPES, _TEST_STRIPES = (0, 2, 4), (1, 3)
_WIDTHS, _HEIGHTS = (40, _STRIPE), (40, 160)  # pixels of a crop, both ends included
_TRAIN, _TEST = 240, 60  # crops of a class
_SEED = 0  # never the training seed: every run is judged by the same crops
_QUALITY = 90


def crops(image_size=64, augmentation="weak", **options):
    """Crops of the two photographs that scikit-learn carries, as JPEGs of mixed sizes in memory.

    Each photograph, 427x640 pixels, is cut into 2x2 cells, and the 8 cells are the classes: say
    from which part of which photograph a crop is. A cell is five upright stripes, 64 pixels wide;
    crops of the first, third and fifth are to train on, crops of the other two are held out, so
    that no pixel is on both sides. What can be learnt is colour and texture that carry over from a
    stripe to its neighbours. That is easier than it would be in photographs never seen, and says
    nothing about them; it is for trying out a pipeline or an optimizer, not for results. Three
    layers of convolution get about three quarters of the held-out crops right after six epochs.

    The crops are drawn once, the same for every seed: 1,920 to train on and 480 held out, each
    class in proportion, 40 to 64 pixels wide and 40 to 160 high.

    Args:
        image_size: Side of the images that the model sees, in pixels.
        augmentation: `"none"`, `"weak"` or `"heavy"`.
        options: The others of `tf_largebatch.data.jpeg.JpegSource`.

    Returns:
        `Splits(train, test)` of sources with images (image_size, image_size, 3) and 8 classes.

    Raises:
        ValueError: If an option is out of range.
        ImportError: If scikit-learn isn't installed.

    >>> splits = crops()
    >>> splits.train.num_examples, splits.test.num_examples, splits.train.input_shape
    (1920, 480, (64, 64, 3))
    """
    random = np.random.default_rng(_SEED)
    images = photographs()

    def source(stripes, count):
        jpegs, labels = [], []
        for label, (photograph, top, left, height) in enumerate(cells()):
            for _ in range(count):
                stripe = left + random.choice(stripes) * _STRIPE
                w, h = (int(random.integers(*ends, endpoint=True)) for ends in (_WIDTHS, _HEIGHTS))
                x = stripe + random.integers(_STRIPE - w + 1)
                y = top + random.integers(height - h + 1)
                crop = images[photograph][y : y + h, x : x + w]
                jpegs.append(tf.io.encode_jpeg(crop, quality=_QUALITY).numpy())
                labels.append(label)
        return JpegSource(
            name="crops",
            records=MemoryRecords(jpegs, np.int32(labels)),
            num_classes=len(cells()),
            image_size=image_size,
            augmentation=augmentation,
            **options,
        )

    return Splits(train=source(_TRAIN_STRIPES, _TRAIN), test=source(_TEST_STRIPES, _TEST))


def cells():
    """The classes: (photograph, top, left, height) of each cell, in pixels; all are 320 wide.

    >>> len(cells()), cells()[0], cells()[-1]
    (8, (0, 0, 0, 213), (1, 213, 320, 213))
    """
    height, width = 427 // _ROWS, 640 // _COLUMNS
    return [
        (photograph, row * height, column * width, height)
        for photograph in range(2)
        for row in range(_ROWS)
        for column in range(_COLUMNS)
    ]


def photographs():
    """Two photographs, of a palace in China and of a flower, each (427, 640, 3) uint8.

    Raises:
        ImportError: If scikit-learn isn't installed.
    """
    try:
        folder = resources.files("sklearn.datasets.images")
    except ImportError as error:
        raise ImportError(
            "The photographs come with scikit-learn, which isn't installed. Install it: "
            "pip install scikit-learn, or the extra: pip install 'tf-largebatch[kernels]'."
        ) from error
    files = [(folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")]
    with tf.device("CPU"):
        return [tf.io.decode_jpeg(file, channels=3).numpy() for file in files]
