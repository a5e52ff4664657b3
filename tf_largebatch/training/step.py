"""One update: micro-batches in a loop on each replica, one reduction, one application.

The gradient is that of  sum(weight * loss) / sum(weight) + regularisers  over the global batch,
however it is cut into replicas and micro-batches.
"""

import keras
import tensorflow as tf

from tf_largebatch.optimizers import LayerwiseOptimizer
from tf_largebatch.rules import norm

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


def per_example_loss(model):
    """The compiled loss as a function of (labels, outputs) that doesn't yet take the mean.

    Raises:
        ValueError: if the loss isn't one mean over examples: several losses, loss weights, a sum,
            or a model whose training step is its own.
    """
    loss = model.loss
    if type(model).train_step is not keras.Model.train_step or (
        type(model).compute_loss is not keras.Model.compute_loss
    ):
        raise ValueError(
            f"Trainer runs a step of its own, and {type(model).__name__} overrides `train_step` or "
            "`compute_loss`. Train it with `fit`, or move what is special into a layer or a loss."
        )
    if loss is None or isinstance(loss, (dict, list, tuple)):
        raise ValueError(
            f"Trainer needs a model compiled with exactly one loss. Received: loss={loss!r}. "
            "Compile with one loss, or train with `fit`."
        )
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
    return loss.call


class Step:
    """The computation of one update and of one evaluation batch, on one replica.

    Args:
        model: a compiled model with a built optimizer.
        plan: `BatchPlan`.
    """

    def __init__(self, model, plan):
        self.model, self.plan = model, plan
        self.losses_of = per_example_loss(model)
        self.loss_metric = next(m for m in model.metrics if m.name == "loss")
        self.variables = list(model.trainable_variables)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if inner.gradient_accumulation_steps:
            raise ValueError(
                "Trainer accumulates within its step. Received an optimizer with "
                f"gradient_accumulation_steps={inner.gradient_accumulation_steps}. Leave that out, "
                "and pass micro_batch_size."
            )
        # Ours reduce and clip by themselves; for Keras' own it is done here, in the right order.
        self.ours = isinstance(model.optimizer, LayerwiseOptimizer)
        self.clips = {}
        if not isinstance(inner, LayerwiseOptimizer):
            for name in ("clipnorm", "clipvalue", "global_clipnorm"):
                self.clips[name] = getattr(inner, name)
                setattr(inner, name, None)

    def update(self, inputs, labels):
        """One update from this replica's share of the global batch.

        Returns:
            This replica's part of the mean loss, float32: summed over replicas, the loss.
        """
        loss, grads = self._gradients(inputs, labels)
        self._apply(grads)
        self._synchronise_statistics()
        return loss

    def evaluate(self, inputs, labels, mask):
        """Updates the metrics, the loss among them, with one batch; a mask of 0 counts nothing."""
        outputs = self.model(inputs, training=False)
        losses = tf.cast(self.losses_of(labels, outputs), tf.float32)
        self._update_metrics(inputs, labels, outputs, losses, mask)

    def _gradients(self, inputs, labels):
        model, plan = self.model, self.plan
        count, size = plan.accumulation, plan.micro_batch_size
        inputs, labels = (
            tf.nest.map_structure(lambda t: tf.reshape(t, (count, size, *t.shape[1:])), x)
            for x in (inputs, labels)
        )
        unreached = {}

        def micro_batch(i, loss, *sums):
            x, y = (tf.nest.map_structure(lambda t: t[i], z) for z in (inputs, labels))
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                losses = tf.cast(self.losses_of(y, outputs), tf.float32)
                # Per token in sequences: the mean is over all elements of the global batch.
                elements = tf.cast(tf.size(losses), tf.float32) * count * plan.replicas
                part = tf.reduce_sum(losses) / elements
                for regulariser in model.losses:
                    part += tf.cast(regulariser, tf.float32) / (count * plan.replicas)
                scaled = model.optimizer.scale_loss(part)
            grads = tape.gradient(scaled, self.variables)
            unreached.update({j: g is None for j, g in enumerate(grads)})
            self._update_metrics(x, y, outputs, losses, None)
            sums = [
                s if g is None else s + tf.cast(tf.convert_to_tensor(g), s.dtype)
                for s, g in zip(sums, grads, strict=True)
            ]
            return i + 1, loss + part, *sums

        zeros = [tf.zeros(v.shape, _at_least_float32(v.dtype)) for v in self.variables]
        start = (tf.constant(0), tf.constant(0.0), *zeros)
        if count == 1:
            _, loss, *sums = micro_batch(*start)
        else:
            _, loss, *sums = tf.while_loop(
                lambda i, *_: i < count, micro_batch, start, parallel_iterations=1
            )
        return loss, [None if unreached[j] else s for j, s in enumerate(sums)]

    def _update_metrics(self, inputs, labels, outputs, losses, mask):
        weights = tf.ones_like(losses)
        if mask is not None:
            shape = tf.concat([tf.shape(mask), tf.ones(len(losses.shape) - 1, tf.int32)], 0)
            weights *= tf.reshape(tf.cast(mask, tf.float32), shape)
        self.loss_metric.update_state(losses, sample_weight=weights)
        self.model.compute_metrics(inputs, labels, outputs, sample_weight=mask)

    def _apply(self, grads):
        optimizer = self.model.optimizer
        if self.ours:
            optimizer.apply(grads, self.variables)
            return
        reached = [j for j, g in enumerate(grads) if g is not None]
        context = tf.distribute.get_replica_context()
        reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, [grads[j] for j in reached])
        reduced = self._clip(reduced, getattr(optimizer, "dynamic_scale", 1.0))
        # Keras sums over replicas once more, whatever it is given: equal shares, then.
        for j, g in zip(reached, reduced, strict=True):
            grads[j] = g / self.plan.replicas
        optimizer.apply(grads, self.variables)

    def _clip(self, grads, scale):
        """By value, then by one of the norms, as `LayerwiseOptimizer`; limits times loss scale."""
        scale = tf.cast(tf.convert_to_tensor(scale), tf.float32)

        def clipped(g, size, limit):
            return g * tf.cast(tf.where(size > limit * scale, limit * scale / size, 1.0), g.dtype)

        if limit := self.clips.get("clipvalue"):
            grads = [
                tf.clip_by_value(
                    g, -tf.cast(limit * scale, g.dtype), tf.cast(limit * scale, g.dtype)
                )
                for g in grads
            ]
        if limit := self.clips.get("clipnorm"):
            grads = [clipped(g, tf.cast(norm(g), tf.float32), limit) for g in grads]
        if limit := self.clips.get("global_clipnorm"):
            total = norm(tf.stack([tf.cast(norm(g), tf.float32) for g in grads]))
            grads = [clipped(g, total, limit) for g in grads]
        return grads

    def _synchronise_statistics(self):
        """Moving statistics become the mean over replicas: Keras lets each keep its own."""
        if self.plan.replicas == 1:
            return
        statistics = [
            v for v in self.model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating
        ]
        if not statistics:
            return
        context = tf.distribute.get_replica_context()
        means = context.all_reduce(
            tf.distribute.ReduceOp.MEAN, [tf.convert_to_tensor(v) for v in statistics]
        )
        for variable, mean in zip(statistics, means, strict=True):
            variable.assign(mean)


def _at_least_float32(dtype):
    return "float32" if dtype in ("float16", "bfloat16") else dtype
