"""LeNet, in the two forms that large-batch papers train on MNIST.

Both take (batch, height, width, channels) images, channels last, and return logits, never
probabilities: compile them with a loss that has `from_logits=True`. Weights start as in Keras,
Glorot-uniform kernels and zero biases.
"""

import keras
from keras import layers

from models import _classifier


def lenet5(input_shape=(28, 28, 1), num_classes=10):
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition").

    As it is commonly built: ReLU for the paper's scaled tanh, max-pooling for its trainable
    averages, a linear layer for its radial basis output, and conv2 joined to all six maps instead
    of by the paper's table. The paper pads 28x28 digits to 32x32; here conv1 does, by 'same'.

    | layer  | output       | parameters |
    |--------|--------------|------------|
    | conv1  | (28, 28, 6)  |        156 |
    | pool1  | (14, 14, 6)  |            |
    | conv2  | (10, 10, 16) |      2,416 |
    | pool2  | (5, 5, 16)   |            |
    | fc1    | (120,)       |     48,120 |
    | fc2    | (84,)        |     10,164 |
    | logits | (10,)        |        850 |
    | all    |              |     61,706 |

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 12.
        num_classes: Length of the logits.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, in float32 also
        under a policy that computes in half precision (in float64 under a float64 policy).

    Raises:
        ValueError: If `input_shape` isn't three positive integers, or the image is too small, or
            `num_classes` isn't a positive integer.

    >>> model = lenet5()
    >>> model.count_params(), model.output_shape
    (61706, (None, 10))
    >>> [layer.name for layer in model.layers if layer.weights]
    ['conv1', 'conv2', 'fc1', 'fc2', 'logits']
    """
    image = _classifier.image("lenet5", input_shape, num_classes, least_size=12)
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(image)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 5, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(120, activation="relu", name="fc1")(x)
    x = layers.Dense(84, activation="relu", name="fc2")(x)
    return keras.Model(image, _classifier.logits(x, num_classes), name="lenet5")


def lenet_caffe(input_shape=(28, 28, 1), num_classes=10):
    """The LeNet of Caffe's MNIST example (Jia et al. 2014, arXiv:1408.5093).

    Wider than LeNet-5, no padding, and linear between convolution and pooling: its one ReLU
    follows fc1. Caffe rounds pooled sizes up and Keras down; at 28x28 they agree.

    | layer  | output       | parameters |
    |--------|--------------|------------|
    | conv1  | (24, 24, 20) |        520 |
    | pool1  | (12, 12, 20) |            |
    | conv2  | (8, 8, 50)   |     25,050 |
    | pool2  | (4, 4, 50)   |            |
    | fc1    | (500,)       |    400,500 |
    | logits | (10,)        |      5,010 |
    | all    |              |    431,080 |

    Args:
        input_shape: (height, width, channels) of one image; height and width at least 16.
        num_classes: Length of the logits.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`.

    >>> lenet_caffe().count_params()
    431080
    """
    image = _classifier.image("lenet_caffe", input_shape, num_classes, least_size=16)
    x = layers.Conv2D(20, 5, name="conv1")(image)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(50, 5, name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(500, activation="relu", name="fc1")(x)
    return keras.Model(image, _classifier.logits(x, num_classes), name="lenet_caffe")
