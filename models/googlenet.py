"""GoogLeNet (Inception v1), without batch normalisation, as its paper and Caffe have it."""

import keras
from keras import layers
from keras.initializers import Constant

from models import _classifier
from models.lrn import LocalResponseNormalization

# The paper's Table 1: filters of the 1x1 branch, of the 3x3 and its reduction, of the 5x5 and its
# reduction, and of the projection after the pooling.
_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# Caffe's "xavier" divides by the number of inputs alone.
_START = {"kernel_initializer": "lecun_uniform", "bias_initializer": Constant(0.2)}


def googlenet(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    auxiliary_heads=False,
    dropout=0.4,
    input_scale=_classifier.PIXEL_DEVIATION,
):
    """GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842, Table 1).

    With the two local response normalisations and the start of Caffe's bvlc_googlenet. The network
    itself has 6,998,552 parameters and makes 1.58 billion multiply-adds at 224x224. The two heads
    that the paper adds for training, after modules 4a and 4d, bring 6,379,728 more, together
    13,378,280 (the 13.5 million of the thesis's Table 5.2); they are not for prediction.

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 17, with
            auxiliary heads 65.
        num_classes: Length of the logits.
        auxiliary_heads: Whether the model has the two heads' logits as outputs, too. The paper
            adds their losses with weight 0.3: `loss_weights` of `compile`. Each output wants the
            labels under its name.
        dropout: Rate before the logits; the auxiliary heads drop 0.7.
        input_scale: What the images are multiplied by: Caffe's start, and the constant in LRN, are
            for pixels of 0 to 255 less their mean, and images usually come divided by their
            deviation as well. 1 for images that don't.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, or to a dict of
        three such, the network's own called "logits". They are of the dtype that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`, or if `input_scale` isn't a number above 0.

    >>> googlenet((64, 64, 3), 10).output_shape
    (None, 10)
    >>> sorted(googlenet((65, 65, 3), 10, auxiliary_heads=True).output)
    ['auxiliary_4a_logits', 'auxiliary_4d_logits', 'logits']
    """
    name = "googlenet with auxiliary heads" if auxiliary_heads else "googlenet"
    least_size = 65 if auxiliary_heads else 17
    image = _classifier.image(name, input_shape, num_classes, least_size=least_size)
    x = _classifier.rescaled(name, image, input_scale)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _convolution(x, 64, 7, "conv1", strides=2, padding="valid")
    x = _pool(x, "pool1")
    x = LocalResponseNormalization(name="lrn1")(x)
    x = _convolution(x, 64, 1, "conv2_reduce")
    x = _convolution(x, 192, 3, "conv2")
    x = LocalResponseNormalization(name="lrn2")(x)
    x = _pool(x, "pool2")
    heads = {}
    for module, filters in _MODULES.items():
        x = _inception(x, filters, f"inception_{module}")
        if auxiliary_heads and module in ("4a", "4d"):
            heads[f"auxiliary_{module}_logits"] = _auxiliary_head(
                x, num_classes, f"auxiliary_{module}"
            )
        if module in ("3b", "4e"):
            x = _pool(x, f"pool{module[0]}")
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = _classifier.logits(x, num_classes, kernel_initializer="lecun_uniform")
    return keras.Model(image, {"logits": x, **heads} if heads else x, name="googlenet")


def _inception(x, filters, name):
    one, reduce3, three, reduce5, five, projection = filters
    branches = [
        _convolution(x, one, 1, f"{name}_1x1"),
        _convolution(_convolution(x, reduce3, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"),
        _convolution(_convolution(x, reduce5, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"),
        _convolution(_pool(x, f"{name}_pool", strides=1), projection, 1, f"{name}_projection"),
    ]
    return layers.Concatenate(name=name)(branches)


def _auxiliary_head(x, num_classes, name):
    x = layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
    x = _convolution(x, 128, 1, f"{name}_conv")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_fc", **_START)(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return _classifier.logits(
        x, num_classes, name=f"{name}_logits", kernel_initializer="lecun_uniform"
    )


def _convolution(x, filters, size, name, strides=1, padding="same"):
    return layers.Conv2D(
        filters, size, strides=strides, padding=padding, activation="relu", name=name, **_START
    )(x)


def _pool(x, name, strides=2):
    # Caffe rounds pooled sizes up, as "same" does.
    return layers.MaxPooling2D(3, strides=strides, padding="same", name=name)(x)
