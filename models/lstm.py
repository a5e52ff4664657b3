"""The LSTM that the LEGW paper trains on MNIST: an image is a sequence of its rows."""

import keras
from keras import layers, ops

from models import _classifier


def mnist_lstm(input_shape=(28, 28, 1), num_classes=10, *, units=128, projection=128):
    """One LSTM layer over the rows of an image (You et al. 2019, arXiv:1901.08256, "MNIST").

    Each row first passes a linear layer to 128 numbers, so that the LSTM's four gates are one
    256x512 matrix, as the paper counts it. Weights start as in Keras: Glorot-uniform kernels, an
    orthogonal recurrent one, zero biases but 1 in the forget gate.

    | layer      | output    | parameters |
    |------------|-----------|------------|
    | rows       | (28, 28)  |            |
    | projection | (28, 128) |      3,712 |
    | lstm       | (128,)    |    131,584 |
    | logits     | (10,)     |      1,290 |
    | all        |           |    136,586 |

    Args:
        input_shape: (height, width, channels) of one image. Height is the length of the sequence,
            width times channels what the network sees at a time; any size works.
        num_classes: Length of the logits.
        units: Size of the LSTM's state.
        projection: Outputs of the linear layer before the LSTM; 0 leaves the layer out.

    Returns:
        A `keras.Model` from (batch, *input_shape) to (batch, num_classes) logits, of the dtype
        that `lenet5` gives.

    Raises:
        ValueError: As `lenet5`, or if `units` isn't a positive integer, or `projection` isn't one
            and isn't 0.

    >>> mnist_lstm().count_params(), mnist_lstm(projection=0).count_params()
    (136586, 81674)
    """
    image = _classifier.image("mnist_lstm", input_shape, num_classes, least_size=1)
    if not _classifier.is_positive_integer(units):
        raise ValueError(
            f"units of mnist_lstm must be a positive integer. Received: units={units!r}."
        )
    if not _classifier.is_positive_integer(projection) and projection not in (0, None):
        raise ValueError(
            "projection of mnist_lstm must be a positive integer, or 0 for none. Received: "
            f"projection={projection!r}."
        )
    height, width, channels = input_shape
    x = layers.Reshape((height, width * channels), name="rows")(image)
    if projection:
        x = layers.Dense(projection, name="projection")(x)
    x = layers.LSTM(units, recurrent_initializer=Orthogonal(), name="lstm")(x)
    return keras.Model(image, _classifier.logits(x, num_classes), name="mnist_lstm")


@keras.saving.register_keras_serializable(package="models")
class Orthogonal(keras.initializers.Orthogonal):
    """Keras' orthogonal start for weights of any floating type: TensorFlow has no QR in bfloat16.

    >>> q = Orthogonal(seed=0)((2, 2), dtype="bfloat16")
    >>> bool(ops.all(ops.abs(q @ ops.transpose(q) - ops.eye(2, dtype="bfloat16")) < 0.02))
    True
    """

    def __call__(self, shape, dtype=None):
        dtype = keras.backend.standardize_dtype(dtype)
        wide = keras.backend.result_type(dtype, "float32")
        return ops.cast(super().__call__(shape, dtype=wide), dtype)
