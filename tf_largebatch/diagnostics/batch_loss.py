"""The loss of a compiled model on one batch, as a function of the weights alone."""

import keras
import tensorflow as tf

from tf_largebatch.scaling import check_count

_MEANS = ("sum_over_batch_size", "mean")
_HALF = ("float16", "bfloat16")


class BatchLoss:
    """f(w): what a compiled model minimises on a given batch, and its derivatives, at any weights.

    It is the loss of Keras' `fit`: the compiled losses with their weights, plus regularisers. The
    model is only read. Weights go in as tensors, in a `keras.StatelessScope`, and whatever the
    model would assign (moving statistics, seeds, metrics) is dropped: each evaluation starts from
    the same state, so that f is one function also where there is dropout.

    Variables are read as they are outside the replicas of a `tf.distribute.Strategy`, and f is
    computed on one device; with several workers all of them must come here together.

    Args:
        model: a built and compiled Keras model of float32 or float64 variables.
        inputs, labels: arrays or tensors, or structures of such, of n examples.
        sample_weight: as `fit` takes it; by default all are 1. Keras divides the sum of weighted
            losses by the number of examples, where our Trainer divides by the sum of the weights.
        micro_batch_size: examples that are computed at a time; by default all n. Losses and
            gradients are averaged, each micro-batch by its examples: the same but for rounding.
        training: False, the default: dropout is off and batch normalisation uses its moving
            statistics. True: as in training, always with the same dropout masks, and with the
            statistics of each micro-batch.

    Attributes:
        num_examples: n.
        dtype: of f; float32 also for a model of float64, unless that is Keras' `floatx`.
        reached: for each trainable variable, whether f depends on it; known once `gradient` has
            been called.

    Raises:
        ValueError: if the model can't be evaluated so, or the batch is empty or uneven.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> f = BatchLoss(model, np.eye(2), np.zeros((2, 1)))
    >>> value, [gradient] = f.gradient([tf.constant([[3.0], [4.0]])])
    >>> float(value), gradient.numpy().ravel().tolist()
    (12.5, [3.0, 4.0])
    """

    def __init__(
        self, model, inputs, labels, sample_weight=None, *, micro_batch_size=None, training=False
    ):
        _check_model(model)
        self.model, self.training = model, training
        self._batch = tf.nest.map_structure(
            lambda a: None if a is None else tf.convert_to_tensor(a),
            (inputs, labels, sample_weight),
        )
        arrays = [a for a in tf.nest.flatten(self._batch) if a is not None]
        sizes = [a.shape[0] if a.shape.rank else 0 for a in arrays]
        if not sizes or min(sizes) != max(sizes) or sizes[0] == 0:
            raise ValueError(
                "inputs, labels and sample_weight must be arrays of the same number of examples, "
                f"at least 1. Received: {', '.join(map(str, sizes))} examples."
            )
        self.num_examples = sizes[0]
        size = self.num_examples
        if micro_batch_size is not None:
            size = min(check_count("micro_batch_size", micro_batch_size), size)
        self._cuts = [
            slice(start, min(start + size, self.num_examples))
            for start in range(0, self.num_examples, size)
        ]
        _check_losses(model, weighted_parts=sample_weight is not None and len(self._cuts) > 1)
        self.reached = None
        self._loss = tf.function(self._evaluate, reduce_retracing=True)
        self._gradient = tf.function(self._differentiate, reduce_retracing=True)
        self._product = tf.function(self._differentiate_twice, reduce_retracing=True)
        strategy = model.distribute_strategy or tf.distribute.get_strategy()
        # Keras makes the variables of several losses' means when it first meets data: here, where
        # the model's variables live, and not within a function. What is wrong with data shows too.
        with strategy.scope():
            first = self._evaluate(self.read_weights(), self._state, *self._examples(slice(0, 1)))
        self.dtype = first.dtype

    def read_weights(self):
        """Reads the model as it is now, moving statistics and seeds as well.

        Returns:
            The values of `model.trainable_variables`, list of tensors.
        """
        self._state = [_value(v) for v in self.model.non_trainable_variables]
        return [_value(v) for v in self.model.trainable_variables]

    def loss(self, weights):
        """f(weights), a scalar tensor."""
        return self._mean(lambda batch: self._loss(weights, self._state, *batch))

    def gradient(self, weights):
        """f and its gradient.

        Args:
            weights: list of tensors, as `read_weights` returns them.

        Returns:
            (f, list of tensors): zeros for a variable that the loss doesn't reach.
        """
        return self._mean(lambda batch: self._gradient(weights, self._state, *batch))

    def micro_batch_gradients(self, weights):
        """Yields the gradient of each micro-batch's own loss, list of tensors."""
        for cut in self._cuts:
            yield self._gradient(weights, self._state, *self._examples(cut))[1]

    def hessian_vector(self, weights, vectors):
        """The Hessian times a vector, by differentiating twice.

        Args:
            weights, vectors: lists of tensors of the variables' shapes.

        Returns:
            List of tensors.
        """
        return self._mean(lambda batch: self._product(weights, vectors, self._state, *batch))

    def _mean(self, function):
        """The mean of a structure of tensors over micro-batches, by their examples."""
        total = None
        for cut in self._cuts:
            part = function(self._examples(cut))
            if len(self._cuts) == 1:
                return part
            share = (cut.stop - cut.start) / self.num_examples
            part = tf.nest.map_structure(lambda t, share=share: t * tf.cast(share, t.dtype), part)
            total = part if total is None else tf.nest.map_structure(tf.add, total, part)
        return total

    def _examples(self, cut):
        return tf.nest.map_structure(lambda a: None if a is None else a[cut], self._batch)

    def _evaluate(self, weights, state, inputs, labels, sample_weight):
        model = self.model
        values = [
            *zip(model.trainable_variables, weights, strict=True),
            *zip(model.non_trainable_variables, state, strict=True),
            *((v, tf.zeros(v.shape, v.dtype)) for v in model.metrics_variables),
        ]
        with keras.StatelessScope(values, collect_losses=True):
            outputs = model(inputs, training=self.training)
            loss = model.compute_loss(inputs, labels, outputs, sample_weight)
        # Within the scope of a strategy Keras counts a loss for one replica's part of it.
        return loss * tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)

    def _differentiate(self, weights, *batch):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self._evaluate(weights, *batch)
        found = tape.gradient(loss, weights)
        self.reached = [g is not None for g in found]
        return loss, _dense(found, weights)

    def _differentiate_twice(self, weights, vectors, *batch):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            _, gradient = self._differentiate(weights, *batch)
            slope = tf.add_n(
                [
                    tf.cast(tf.reduce_sum(g * v), tf.float64)
                    for g, v in zip(gradient, vectors, strict=True)
                ]
            )
        return _dense(tape.gradient(slope, weights), weights)


def refuse_half_precision(model, what, otherwise=""):
    """Raises a ValueError if layers compute in 16 bits, whose rounding `what` would measure.

    Args:
        model: a Keras model.
        what: the quantity, as the subject of the sentence.
        otherwise: what else the user can do.
    """
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if layer.compute_dtype in _HALF and not isinstance(layer, keras.layers.InputLayer):
            raise ValueError(
                f"{what} must be computed in float32: 16 bits would round it away. Received: layer "
                f"{layer.name} with the dtype policy {layer.dtype_policy.name}. Build the model "
                f"under the policy float32, and give it these weights{otherwise}."
            )


def _check_model(model):
    if not model.built or not model.compiled:
        raise ValueError(
            "The model must be built and compiled with a loss. Received: "
            f"built={model.built}, compiled={model.compiled}. Call model.compile(loss=...), and "
            "the model on some data."
        )
    for v in model.trainable_variables:
        if v.dtype in _HALF:
            raise ValueError(
                "The model's variables must be float32 or float64: 16 bits are too coarse for "
                f"derivatives. Received: {v.path} in {v.dtype}. Build the model in float32, and "
                "give it these weights."
            )
    if not model.trainable_variables:
        raise ValueError("The model must have trainable variables. Received one without.")


def _check_losses(model, *, weighted_parts):
    """Micro-batches can be averaged only where a loss is a mean over examples."""
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "mean")
        by_weights = reduction == "mean_with_sample_weight"
        if reduction not in _MEANS and not by_weights:
            raise ValueError(
                f"A loss must be a mean over examples. Received: {loss.name} with "
                f"reduction={reduction!r}. Use one of {list(_MEANS)}."
            )
        if by_weights and weighted_parts:
            raise ValueError(
                f"The loss {loss.name} divides by the sum of the weights, which differs between "
                "micro-batches. Leave out micro_batch_size, or use reduction='mean'."
            )


def _value(variable):
    return tf.convert_to_tensor(variable.value)


def _dense(gradients, weights):
    """Zeros for None, and tensors for the sparse gradients of embeddings."""
    pairs = zip(gradients, weights, strict=True)
    return [tf.zeros_like(w) if g is None else tf.convert_to_tensor(g) for g, w in pairs]
