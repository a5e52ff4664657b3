"""VGG-19, the network with the most arithmetic to a parameter in the thesis's Table 5.2."""

import keras
from keras import layers

from models import _classifier

# Convolutions and filters of the five blocks.
_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def vgg19(
    input_shape=(224, 224, 3),
    num_classes=1000,
    *,
    dropout=0.5,
    input_scale=_classifier.PIXEL_DEVIATION,
):
    """VGG-19 (Simonyan and Zisserman 2015, arXiv:1409.1556, configuration E).

    Sixteen 3x3 convolutions with ReLU in five blocks, each closed by a 2x2 max-pooling, then two
    layers of 4096 with dropout. Weights start Glorot-uniform, biases at zero: by the paper that
    trains without the pre-training that it used itself. 143,667,240 parameters, 19.63 billion
    multiply-adds at 224x224.

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 32.
        num_classes: Length of the logits.
        dropout: Rate after fc1 and fc2.
        input_scale: What the images are multiplied by: the paper only subtracts the mean of pixels
            of 0 to 255, each layer's start weakens what it is given, and images usually come
            divided by their deviation as well. 1 for images that don't.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`, or if `input_scale` isn't a number above 0.

    >>> model = vgg19((32, 32, 3), 10)
    >>> sum(isinstance(layer, (layers.Conv2D, layers.Dense)) for layer in model.layers)
    19
    """
    image = _classifier.image("vgg19", input_shape, num_classes, least_size=32)
    x = _classifier.rescaled("vgg19", image, input_scale)
    for block, (convolutions, filters) in enumerate(_BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", name=f"block{block}_conv{i}"
            )(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for i in (1, 2):
        x = layers.Dense(4096, activation="relu", name=f"fc{i}")(x)
        x = layers.Dropout(dropout, name=f"dropout{i}")(x)
    return keras.Model(image, _classifier.logits(x, num_classes), name="vgg19")
