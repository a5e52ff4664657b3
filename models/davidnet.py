"""DavidNet, the nine layers of D. Page's DAWNBench entry on CIFAR-10."""

import keras
from keras import layers
from keras.initializers import VarianceScaling

from models import _classifier

# PyTorch's start of convolutions and linear layers: uniform within 1 / sqrt(inputs).
_PYTORCH = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}


def davidnet(input_shape=(32, 32, 3), num_classes=10):
    """The network that the thesis trains in Table 6.7 (github.com/davidcpage/cifar10-fast).

    3x3 convolutions without biases, each with batch normalisation (momentum .9, epsilon 1e-5) and
    ReLU; layers 1 and 3 add two of them to their own output. The logits, without biases, are
    scaled by 1/8. Weights start as in PyTorch. For images of another size the last pooling still
    takes in the whole image.

    | layer    | output        | parameters |
    |----------|---------------|------------|
    | prep     | (32, 32, 64)  |      1,856 |
    | layer1   | (16, 16, 128) |    369,408 |
    | layer2   | (8, 8, 256)   |    295,424 |
    | layer3   | (4, 4, 512)   |  5,901,312 |
    | pool     | (512,)        |            |
    | logits   | (10,)         |      5,120 |
    | all      |               |  6,573,120 |

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 8.
        num_classes: Length of the logits.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`.

    >>> davidnet().count_params() - 4480  # less the moving statistics
    6573120
    """
    return _davidnet("davidnet", input_shape, num_classes, 1.0)


def davidnet_small(input_shape=(32, 32, 3), num_classes=10, *, width=0.25):
    """DavidNet with fewer channels: no published network.

    Args:
        input_shape, num_classes: As of `davidnet`.
        width: Factor on the channels, 64 to 512; each becomes a multiple of 8.

    Returns:
        As `davidnet`.

    Raises:
        ValueError: As `lenet5`, or if `width` isn't positive.

    >>> davidnet_small().count_params()
    414064
    """
    return _davidnet("davidnet_small", input_shape, num_classes, width)


def _davidnet(name, input_shape, num_classes, width):
    image = _classifier.image(name, input_shape, num_classes, least_size=8)
    filters = [_classifier.scaled(64 * 2**i, width) for i in range(4)]
    x = _convolution(image, filters[0], "prep")
    for i in (1, 2, 3):
        x = _convolution(x, filters[i], f"layer{i}")
        x = layers.MaxPooling2D(2, name=f"layer{i}_pool")(x)
        if i != 2:
            branch = _convolution(x, filters[i], f"layer{i}_residual1")
            branch = _convolution(branch, filters[i], f"layer{i}_residual2")
            x = layers.Add(name=f"layer{i}_add")([x, branch])
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    x = _classifier.logits(
        x, num_classes, use_bias=False, kernel_initializer=VarianceScaling(**_PYTORCH)
    )
    x = layers.Rescaling(0.125, dtype=x.dtype, name="scaled_logits")(x)
    return keras.Model(image, x, name=name)


def _convolution(x, filters, name):
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=VarianceScaling(**_PYTORCH),
        name=name,
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
