"""Local response normalisation, which AlexNet and GoogLeNet have and Keras has not."""

import keras
import numpy as np
from keras import ops

from models import _classifier


@keras.saving.register_keras_serializable(package="models")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each channel by what its neighbours in the same place hold.

    With n = `size` channels around channel c, those beyond the first and the last being zero,

        y_c = x_c / (k + alpha / n * sum_i x_i^2)^beta.

    This is Caffe's form (its LRN layer, across channels; k = 1), in which the large-batch papers'
    networks were trained: alpha is divided by n, as in `torch.nn.LocalResponseNorm`. The paper
    (Krizhevsky et al. 2012, section 3.3) and TensorFlow's op don't divide: the paper's k = 2,
    alpha = 1e-4 is `alpha=5e-4, k=2.0` here. Under half precision the arithmetic is still in
    float32, and the result alone is rounded.

    Args:
        size: channels in a sum, an odd number.
        alpha: weight of their mean square.
        beta: the exponent.
        k: what keeps the division from zero.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        ValueError: If `size` isn't an odd positive integer, or `k` isn't above 0.

    One channel of 3, the mean square of five being 9/5:

    >>> layer = LocalResponseNormalization(alpha=5.0, beta=0.5)
    >>> layer(np.array([[3.0]])).numpy()  # 3 / sqrt(1 + 9)
    array([[0.948683]], dtype=float32)
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0, **kwargs):
        super().__init__(**kwargs)
        if not _classifier.is_positive_integer(size) or size % 2 == 0:
            raise ValueError(
                "size must be an odd positive integer: a channel and as many on either side. "
                f"Received: size={size!r}."
            )
        if not k > 0:
            raise ValueError(f"k must be above 0, or zeros divide by zero. Received: k={k!r}.")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, inputs):
        """Normalises (..., channels) inputs over neighbouring channels; the shape stays."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        # Sums over neighbours as a product with a band of ones: several times faster than shifted
        # sums, as exp(log) is than a power, above all in the gradient.
        channels, half = x.shape[-1], self.size // 2
        band = np.tri(channels, k=half) - np.tri(channels, k=-half - 1)
        total = ops.matmul(ops.square(x), ops.convert_to_tensor(band, x.dtype))
        y = x * ops.exp(-self.beta * ops.log(self.k + self.alpha / self.size * total))
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """The shape of the inputs."""
        return input_shape

    def get_config(self):
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return {**super().get_config(), **own}
