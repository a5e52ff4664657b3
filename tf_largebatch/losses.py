"""Losses that Keras lacks."""

import keras


@keras.saving.register_keras_serializable(package="tf_largebatch")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer labels against logits, with label smoothing.

    Args:
        label_smoothing: float in [0, 1): this share of each label is spread evenly over classes.

    >>> loss = SmoothedCrossEntropy(0.1)
    >>> round(float(loss([1], [[0.0, 0.0]])), 4)
    0.6931
    """

    def __init__(
        self, label_smoothing=0.0, name="cross_entropy", reduction="sum_over_batch_size", **base
    ):
        super().__init__(name=name, reduction=reduction, **base)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """The loss of each example, (...) float32: labels (...), ints; logits (..., classes)."""
        logits = keras.ops.cast(y_pred, "float32")
        if self.label_smoothing == 0:  # spares a second array as large as a vocabulary's logits
            return keras.ops.sparse_categorical_crossentropy(y_true, logits, from_logits=True)
        labels = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            labels, logits, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        """The arguments, as plain Python values."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
