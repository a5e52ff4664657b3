"""AlexNet as Caffe trains it, and its two forms with batch normalisation that LARS was shown on.

Convolutions 2, 4 and 5 have two groups, as on the paper's two GPUs. Weights start as in the Caffe
files that each form is taken from: normal with deviation .01, .005 in fc6 and fc7. That start, and
the constant in LRN, are for pixels of 0 to 255 less their mean, divided by 256 in `alexnet_bn_val2`
alone. Images usually come divided by their deviation as well, so a first layer without weights
multiplies them by it again. Were it left out, conv5 of `alexnet` would hold hardly more than what
biases make, and the loss stay that of chance for hundreds of updates.
"""

import keras
from keras import layers
from keras.initializers import Constant, RandomNormal

from models import _classifier
from models._classifier import PIXEL_DEVIATION
from models.grouped import GroupedConv2D
from models.lrn import LocalResponseNormalization

# Filters, kernel size, groups, followed by a pooling.
_CONVOLUTIONS = (
    (96, 11, 1, True),
    (256, 5, 2, True),
    (384, 3, 1, False),
    (384, 3, 2, False),
    (256, 3, 2, True),
)
# The biases that the Caffe files start convolutions 1 to 5 with, None for no bias; then those of
# fc6 and fc7, and of the logits.
_BIASES = {
    "lrn": ((0.0, 0.1, 0.0, 0.1, 0.1), 0.1, 0.0),
    "bn": ((None, None, None, None, 0.1), 0.1, 0.0),
    "bn_val2": ((0.01, 0.01, 0.01, 0.01, 0.01), 0.1, 0.01),
}


def alexnet(
    input_shape=(227, 227, 3), num_classes=1000, *, dropout=0.5, input_scale=PIXEL_DEVIATION
):
    """AlexNet (Krizhevsky et al. 2012) as in Caffe's bvlc_alexnet, for crops of 227x227.

    Normalisation comes before pooling, as in the paper (Caffe's own CaffeNet swaps them).

    | layer  | after it       | output        | parameters |
    |--------|----------------|---------------|------------|
    | conv1  | ReLU, LRN      | (55, 55, 96)  |     34,944 |
    | pool1  |                | (27, 27, 96)  |            |
    | conv2  | ReLU, LRN      | (27, 27, 256) |    307,456 |
    | pool2  |                | (13, 13, 256) |            |
    | conv3  | ReLU           | (13, 13, 384) |    885,120 |
    | conv4  | ReLU           | (13, 13, 384) |    663,936 |
    | conv5  | ReLU           | (13, 13, 256) |    442,624 |
    | pool5  |                | (6, 6, 256)   |            |
    | fc6    | ReLU, dropout  | (4096,)       | 37,752,832 |
    | fc7    | ReLU, dropout  | (4096,)       | 16,781,312 |
    | logits |                | (1000,)       |  4,097,000 |
    | all    |                |               | 60,965,224 |

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 67.
        num_classes: Length of the logits.
        dropout: Rate after fc6 and fc7.
        input_scale: What the images are multiplied by; 1 for pixels of 0 to 255 less their mean.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`, or if `input_scale` isn't a number above 0.

    >>> [layer.name for layer in alexnet((67, 67, 3), 10).layers if layer.weights]
    ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'logits']
    """
    image = _classifier.image("alexnet", input_shape, num_classes, least_size=67)
    return _alexnet("alexnet", image, num_classes, "lrn", dropout, input_scale)


def alexnet_bn(
    input_shape=(227, 227, 3), num_classes=1000, *, dropout=0.5, input_scale=PIXEL_DEVIATION
):
    """AlexNet with batch normalisation for LRN, the "AlexNet-BN" of the large-batch papers.

    B. Ginsburg's models/alexnet_bn/train_val.prototxt (nvcaffe): convolution, batch normalisation
    with gamma and beta, ReLU, pooling, five times. No convolution has a bias but conv5, whose bias
    the normalisation cancels; it is kept to be the published network. 60,966,856 trainable
    parameters, and 2,752 moving statistics.

    Args:
        input_shape, num_classes, dropout, input_scale: As of `alexnet`.

    Returns:
        As `alexnet`.

    Raises:
        ValueError: As `alexnet`.

    >>> model = alexnet_bn((67, 67, 3), 10)
    >>> [v.path for v in model.trainable_variables[:4]]
    ['conv1/kernel', 'conv1_bn/gamma', 'conv1_bn/beta', 'conv2/kernel']
    """
    image = _classifier.image("alexnet_bn", input_shape, num_classes, least_size=67)
    return _alexnet("alexnet_bn", image, num_classes, "bn", dropout, input_scale)


def alexnet_bn_val2(
    input_shape=(227, 227, 3), num_classes=1000, *, dropout=0.5, input_scale=PIXEL_DEVIATION / 256
):
    """The second AlexNet-BN of nvcaffe, models/alexnet_bn/train_val2.prototxt.

    Convolution with a bias, ReLU, pooling, and only then batch normalisation, without gamma and
    beta: after pool1, pool2, conv3 and conv4, that is before each of the next four convolutions.
    60,965,224 trainable parameters, as in `alexnet`, and 2,240 moving statistics.

    Args:
        input_shape, num_classes, dropout, input_scale: As of `alexnet`.

    Returns:
        As `alexnet`.

    Raises:
        ValueError: As `alexnet`.

    >>> model = alexnet_bn_val2((67, 67, 3), 10)
    >>> [v.path for v in model.variables[:4]]
    ['conv1/kernel', 'conv1/bias', 'conv1_bn/moving_mean', 'conv1_bn/moving_variance']
    """
    image = _classifier.image("alexnet_bn_val2", input_shape, num_classes, least_size=67)
    return _alexnet("alexnet_bn_val2", image, num_classes, "bn_val2", dropout, input_scale)


def alexnet_small(
    input_shape=(64, 64, 3), num_classes=10, *, normalization="bn", width=0.25, dropout=0.5
):
    """AlexNet's layers for images of 29 to about 100 pixels: no published network.

    conv1 is 5x5 with stride 2, padded; all else is as in `alexnet`, with a quarter of the channels
    and of fc6 and fc7. Kernels but the last start He-normal: the published deviations suit the
    published widths. That start suits standardised images, which aren't multiplied by anything;
    LRN has its constant for them.

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 29.
        num_classes: Length of the logits.
        normalization: "lrn" as in `alexnet`, "bn" as in `alexnet_bn`, "bn_val2" as in
            `alexnet_bn_val2`.
        width: Factor on the channels and on fc6 and fc7; each becomes a multiple of 8.
        dropout: Rate after fc6 and fc7.

    Returns:
        As `alexnet`.

    Raises:
        ValueError: As `lenet5`, or if `normalization` is another, or `width` isn't positive.

    >>> alexnet_small(width=0.5).count_params() > 3 * alexnet_small().count_params()
    True
    """
    image = _classifier.image("alexnet_small", input_shape, num_classes, least_size=29)
    if normalization not in _BIASES:
        raise ValueError(
            f"normalization of alexnet_small must be one of {', '.join(map(repr, _BIASES))}. "
            f"Received: normalization={normalization!r}."
        )
    return _alexnet(
        "alexnet_small", image, num_classes, normalization, dropout, width=width, small=True
    )


def _alexnet(
    name, image, num_classes, normalization, dropout, input_scale=1.0, *, width=1.0, small=False
):
    biases, dense_bias, logits_bias = _BIASES[normalization]
    stem = {"kernel_size": 11, "strides": 4}
    # alpha * (scale * x)^2 = (alpha * scale^2) * x^2
    lrn = {"alpha": 1e-4 * PIXEL_DEVIATION**2} if small else {}
    if small:
        stem = {"kernel_size": 5, "strides": 2, "padding": "same"}

    def kernels(stddev):
        return "he_normal" if small else RandomNormal(stddev=stddev)

    x = image if small else _classifier.rescaled(name, image, input_scale)
    for i, (filters, size, groups, pooled) in enumerate(_CONVOLUTIONS, start=1):
        bias = biases[i - 1]
        x = GroupedConv2D(
            _classifier.scaled(filters, width),
            groups=groups,
            use_bias=bias is not None,
            kernel_initializer=kernels(0.01),
            bias_initializer=Constant(bias or 0.0),
            name=f"conv{i}",
            **(stem if i == 1 else {"kernel_size": size, "padding": "same"}),
        )(x)
        if normalization == "bn":
            x = _batch_normalization(i)(x)
        x = layers.ReLU(name=f"relu{i}")(x)
        if normalization == "lrn" and i <= 2:
            x = LocalResponseNormalization(name=f"lrn{i}", **lrn)(x)
        if pooled:
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{i}")(x)
        if normalization == "bn_val2" and i <= 4:
            x = _batch_normalization(i, center=False, scale=False)(x)
    x = layers.Flatten(name="flatten")(x)
    for i in (6, 7):
        x = layers.Dense(
            _classifier.scaled(4096, width),
            activation="relu",
            kernel_initializer=kernels(0.005),
            bias_initializer=Constant(dense_bias),
            name=f"fc{i}",
        )(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    x = _classifier.logits(
        x,
        num_classes,
        kernel_initializer=RandomNormal(stddev=0.01),
        bias_initializer=Constant(logits_bias),
    )
    return keras.Model(image, x, name=name)


def _batch_normalization(i, **affine):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name=f"conv{i}_bn", **affine)
