"""What a compiled model minimises, taken apart: losses before their mean, and their weights."""

from typing import NamedTuple

import keras
import tensorflow as tf

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class Losses(NamedTuple):
    """The losses of one output on one replica's micro-batch.

    `values` : float32 at least, (examples,) or (examples, ...), as the loss gives them;
    `weights`: of the same shape and dtype, or None for equal ones; `factor`: the output's part in
    the whole, Keras' `loss_weights`.
    """

    values: tf.Tensor
    weights: tf.Tensor | None
    factor: float


class Objective:
    """The compiled losses of a model:  sum over outputs of factor * sum(w * loss) / sum(w).

    Args:
        model: compiled with one loss, or with a list or dict of losses in the structure of its
            outputs (None: an output without a loss), and perhaps with `loss_weights`.

    Raises:
        ValueError: if a loss isn't a mean over examples, a structure doesn't fit, or the model's
            training step is its own.
    """

    def __init__(self, model):
        if type(model).train_step is not keras.Model.train_step or (
            type(model).compute_loss is not keras.Model.compute_loss
        ):
            raise ValueError(
                f"Trainer runs a step of its own, and {type(model).__name__} overrides "
                "`train_step` or `compute_loss`. Train it with `fit`, or move what is special into "
                "a layer or a loss."
            )
        compiled = model._compile_loss
        # A dict of outputs is keyed as the user keyed it; a list by the names of its layers.
        outputs = getattr(model, "_outputs_struct", None)
        names = sorted(outputs) if isinstance(outputs, dict) else getattr(model, "output_names", [])
        names = list(names or [])
        self._names = names
        self._losses = [_per_example(loss) for loss in self._in_order(model.loss, "loss")]
        if not any(self._losses):
            raise ValueError(
                f"Trainer needs a model compiled with a loss. Received: loss={model.loss!r}."
            )
        if names and len(self._losses) != len(names):
            raise ValueError(
                f"There must be a loss for each of the outputs {names}, or None. Received "
                f"{len(self._losses)}: loss={model.loss!r}."
            )
        factors = getattr(compiled, "_user_loss_weights", None)
        if isinstance(factors, int | float):
            factors = [factors] * len(self._losses)
        self._factors = [1.0] * len(self._losses)
        if factors is not None:
            self._factors = [
                1.0 if f is None else float(f) for f in self._in_order(factors, "loss_weights")
            ]
        self._check_length(self._factors, "loss_weights")

    def losses(self, labels, outputs, weights=None):
        """The `Losses` of each output that has one.

        Args:
            labels, outputs: in the structure of the model's outputs.
            weights: None, one tensor for all outputs, or such a structure; (examples,) or as far
                into the losses' shape as it goes.
        """
        outputs = self._in_order(outputs, "outputs")
        labels = self._in_order(labels, "labels")
        several = isinstance(weights, dict | list | tuple)
        given = self._in_order(weights, "weights") if several else [weights] * len(self._losses)
        for name, values in (("outputs", outputs), ("labels", labels), ("weights", given)):
            self._check_length(values, name)
        found = []
        for loss, y, output, w, factor in zip(
            self._losses, labels, outputs, given, self._factors, strict=True
        ):
            if loss is None:
                continue
            if getattr(output, "_keras_mask", None) is not None:
                raise ValueError(
                    "Trainer doesn't know how many elements a Keras mask leaves in the whole "
                    "global batch. Received an output with a mask, as `mask_zero=True` makes it. "
                    "Leave that out, and give the same as weights beside the labels."
                )
            values = loss(y, output)
            if values.dtype != tf.float64:
                values = tf.cast(values, tf.float32)
            found.append(Losses(values, None if w is None else _broadcast(w, values), factor))
        return found

    @property
    def factors(self):
        """The part of each output that has a loss in the whole."""
        pairs = zip(self._losses, self._factors, strict=True)
        return [factor for loss, factor in pairs if loss is not None]

    def weights_given(self, weights):
        """The weights of each output that has a loss, as given: tensors or None."""
        several = isinstance(weights, dict | list | tuple)
        given = self._in_order(weights, "weights") if several else [weights] * len(self._losses)
        self._check_length(given, "weights")
        return [w for loss, w in zip(self._losses, given, strict=True) if loss is not None]

    def _in_order(self, structure, what):
        """A list or dict in the order of the outputs; anything else is that of the only output."""
        if isinstance(structure, dict):
            unknown = sorted(set(structure) - set(self._names))
            if self._names and unknown:
                raise ValueError(
                    f"{what} must be keyed by the model's outputs, {self._names}. Received the "
                    f"keys {unknown}."
                )
            return [structure.get(name) for name in self._names or sorted(structure)]
        return list(structure) if isinstance(structure, list | tuple) else [structure]

    def _check_length(self, values, what):
        if len(values) != len(self._losses):
            raise ValueError(
                f"{what} must have the structure of the losses: {len(self._losses)} of them. "
                f"Received {len(values)}. Compile with one loss an output, None for an output "
                "that has none."
            )


def _per_example(loss):
    """A function of (labels, output) that doesn't yet take the mean; None for None."""
    if loss is None:
        return None
    if not isinstance(loss, keras.losses.Loss):
        loss = keras.losses.get(loss)
    if not isinstance(loss, keras.losses.Loss):
        return loss
    if loss.reduction not in _MEANS:
        raise ValueError(
            "Trainer divides the sum of the losses by the sum of their weights over the global "
            f"batch. Received a loss with reduction={loss.reduction!r}, which can't be expressed "
            f"so. Use one of {list(_MEANS)}."
        )

    def call(labels, output):
        # As Loss.__call__ does before the mean: bfloat16 outputs are judged in float32.
        labels, output = (
            keras.tree.map_structure(
                lambda x: keras.ops.convert_to_tensor(x, dtype=loss.dtype), values
            )
            for values in (labels, output)
        )
        return loss.call(labels, output)

    return call


def _broadcast(weights, values):
    """Weights in the shape of the losses: (examples,) weighs all elements of an example alike."""
    weights = tf.cast(weights, values.dtype)
    missing = len(values.shape) - len(weights.shape)
    if missing < 0:
        raise ValueError(
            "Weights must not go further into the shape than the losses do. Received: weights of "
            f"shape {tuple(weights.shape)}, losses of shape {tuple(values.shape)}."
        )
    shape = tf.concat([tf.shape(weights), tf.ones(missing, tf.int32)], 0)
    return tf.reshape(weights, shape) * tf.ones_like(values)
