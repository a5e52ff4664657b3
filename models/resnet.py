"""ResNet-50 as large-batch papers train it: v1.5 strides, each block's last gamma at zero.

"ResNet-50-v2" in the thesis is this network in Goyal's setting (76.3 %), not the pre-activation
network that Keras calls ResNetV2.
"""

import keras
from keras import layers
from keras.initializers import RandomNormal

from models import _classifier


def resnet50(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    strides="v1.5",
    zero_gamma=True,
    use_bias=False,
):
    """ResNet-50 (He et al. 2016, arXiv:1512.03385) with the start of Goyal et al. 2017.

    Bottleneck blocks, 3, 4, 6 and 3 of them. By arXiv:1706.02677, section 5.1: kernels start
    He-normal, the logits' normal with deviation .01, and the gamma of each block's last batch
    normalisation at zero, so that a block starts as its shortcut. Batch normalisation has momentum
    .9 and epsilon 1e-5.

    | `strides`, `use_bias`   | trainable parameters | multiply-adds at 224x224 |
    |-------------------------|----------------------|--------------------------|
    | "v1.5", False           |           25,557,032 |            4,089,184,256 |
    | "v1", False             |           25,557,032 |            3,857,973,248 |
    | "v1", True              |           25,583,592 |            3,857,973,248 |

    The last row is `keras.applications.ResNet50`. All have 53,120 moving statistics besides.

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 17.
        num_classes: Length of the logits.
        strides: "v1.5": a block that halves the image does it in its 3x3 convolution (Goyal,
            MLPerf, torchvision, keras-hub). "v1": in its first 1x1, as in the paper.
        zero_gamma: Whether the last gamma of each block starts at 0; else at 1.
        use_bias: Whether convolutions have biases, which batch normalisation cancels.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`, or if `strides` is another.

    >>> model = resnet50((32, 32, 3), 1000)
    >>> sum(w.size for w in map(keras.ops.convert_to_numpy, model.trainable_variables))
    25557032
    """
    options = {"strides": strides, "zero_gamma": zero_gamma, "use_bias": use_bias}
    return _resnet("resnet50", input_shape, num_classes, (3, 4, 6, 3), 1.0, **options)


def resnet_small(
    input_shape=(64, 64, 3),
    num_classes=10,
    *,
    blocks=(1, 1, 1, 1),
    width=0.25,
    strides="v1.5",
    zero_gamma=True,
    use_bias=False,
):
    """A ResNet of `resnet50`'s blocks with fewer and narrower ones: no published network.

    By default 14 layers and a quarter of the channels: 16 to 128 within blocks, 64 to 512 between.

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 17, with
            fewer than four stages less.
        num_classes: Length of the logits.
        blocks: Blocks of each stage, whose channels double; the first keeps the image's size,
            the others halve it.
        width: Factor on the channels within blocks; each becomes a multiple of 8.
        strides, zero_gamma, use_bias: As of `resnet50`.

    Returns:
        As `resnet50`.

    Raises:
        ValueError: As `resnet50`, or if `blocks` isn't one or more positive integers, or `width`
            isn't positive.

    >>> resnet_small(blocks=(3, 4, 6, 3), width=1, num_classes=1000).count_params() - 53120
    25557032
    """
    if not isinstance(blocks, (tuple, list)) or not (
        blocks and all(map(_classifier.is_positive_integer, blocks))
    ):
        raise ValueError(
            "blocks of resnet_small must be positive integers, one a stage. Received: "
            f"blocks={blocks!r}. Pass (1, 1, 1, 1), for example."
        )
    options = {"strides": strides, "zero_gamma": zero_gamma, "use_bias": use_bias}
    return _resnet("resnet_small", input_shape, num_classes, blocks, width, **options)


def _resnet(name, input_shape, num_classes, blocks, width, *, strides, zero_gamma, use_bias):
    # The stem halves the image twice, and each stage but the first once more.
    least_size = 2 ** len(blocks) + 1
    image = _classifier.image(name, input_shape, num_classes, least_size=least_size)
    if strides not in ("v1.5", "v1"):
        raise ValueError(
            f"strides of {name} must be 'v1.5' or 'v1'. Received: strides={strides!r}."
        )
    x = _convolution(image, _classifier.scaled(64, width), 7, "conv1", 2, use_bias=use_bias)
    x = layers.ReLU(name="relu1")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for stage, count in enumerate(blocks, start=1):
        filters = _classifier.scaled(64 * 2 ** (stage - 1), width)
        for i in range(1, count + 1):
            halves, block = stage > 1 and i == 1, f"stage{stage}_block{i}"
            shortcut = x
            if i == 1:
                stride = 2 if halves else 1
                shortcut = _convolution(
                    x, 4 * filters, 1, f"{block}_shortcut", stride, use_bias=use_bias
                )
            first, second = (1, 1) if not halves else (2, 1) if strides == "v1" else (1, 2)
            x = _convolution(x, filters, 1, f"{block}_conv1", first, use_bias=use_bias)
            x = layers.ReLU(name=f"{block}_relu1")(x)
            x = _convolution(x, filters, 3, f"{block}_conv2", second, use_bias=use_bias)
            x = layers.ReLU(name=f"{block}_relu2")(x)
            gamma = "zeros" if zero_gamma else "ones"
            x = _convolution(x, 4 * filters, 1, f"{block}_conv3", gamma=gamma, use_bias=use_bias)
            x = layers.Add(name=f"{block}_add")([shortcut, x])
            x = layers.ReLU(name=f"{block}_relu3")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = _classifier.logits(x, num_classes, kernel_initializer=RandomNormal(stddev=0.01))
    return keras.Model(image, x, name=name)


def _convolution(x, filters, size, name, stride=1, *, use_bias, gamma="ones"):
    if size > 1:  # by hand, for "same" pads strided convolutions on one side only
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        size,
        strides=stride,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_bn"
    )(x)
