"""Grouped convolution that trains at full speed on a CPU."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="models")
class GroupedConv2D(layers.Conv2D):
    """`keras.layers.Conv2D` that convolves its `groups` one after the other.

    Weights and result are the same. On TensorFlow, Keras has XLA compile each grouped convolution
    on its own, and on a CPU its gradients are then many times slower than those of the parts.

    >>> layer = GroupedConv2D(6, 3, groups=2)
    >>> tuple(layer(ops.ones((1, 5, 5, 4))).shape), tuple(layer.kernel.shape)
    ((1, 3, 3, 6), (3, 3, 2, 6))
    """

    def convolution_op(self, inputs, kernel):
        """Keras' hook for the convolution itself: of each group with its part of the kernel."""
        axis = -1 if self.data_format == "channels_last" else 1
        parts = zip(
            ops.split(inputs, self.groups, axis=axis),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        convolve = super().convolution_op
        return ops.concatenate([convolve(x, k) for x, k in parts], axis=axis)
