"""One update: micro-batches in a loop on each replica, one reduction, one application.

The gradient is that of  sum(weight * loss) / sum(weight) + regularisers  over the global batch,
however it is cut into replicas and micro-batches; with several outputs, of the sum of these.
"""

import contextlib

import keras
import tensorflow as tf

from tf_largebatch.layers import GroupBatchNormalization
from tf_largebatch.optimizers import LayerwiseOptimizer
from tf_largebatch.rules import norm
from tf_largebatch.training.objective import Objective

_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


class Step:
    """The computation of one update and of one evaluation batch, on one replica.

    Args:
        model: a compiled model with a built optimizer.
        plan: `BatchPlan`.
        jit: compile the forward and backward pass by XLA; the reductions and the optimizer's step
            stay outside, where every strategy can run them.
    """

    def __init__(self, model, plan, *, jit=False):
        self.model, self.plan = model, plan
        self.objective = Objective(model)
        self.loss_metric = next(m for m in model.metrics if m.name == "loss")
        # Of several losses each has a mean of its own, by its own weights, over all batches.
        self.means = [keras.metrics.Mean() for _ in self.objective.factors]
        self.variables = list(model.trainable_variables)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if inner.gradient_accumulation_steps:
            raise ValueError(
                "Trainer accumulates within its step. Received an optimizer with "
                f"gradient_accumulation_steps={inner.gradient_accumulation_steps}. Leave that out, "
                "and pass micro_batch_size."
            )
        self._compute = tf.function(self._gradients, jit_compile=True) if jit else self._gradients
        # Which variables the loss doesn't reach, known once the gradients have been traced.
        self.unreached = {}
        # Replicas can't meet within a loop: layers that do so ask for it to be written out.
        across = [
            layer.name
            for layer in _layers(model)
            if plan.replicas > 1 and _reduces_over_replicas(layer, plan.micro_batch_size)
        ]
        self.unroll = bool(across)
        if across and jit:
            raise ValueError(
                "XLA compiles each replica's pass by itself, where it can't meet the others. "
                f"Received: jit=True with {', '.join(across[:4])}, whose statistics are taken over "
                "replicas. Leave jit out, or take groups that fit in a replica's micro-batch of "
                f"{plan.micro_batch_size}."
            )
        # Ours reduce and clip by themselves; for others it is done here, in the right order.
        self.ours = isinstance(model.optimizer, LayerwiseOptimizer)
        self.inner = inner
        self.clips = {}
        if not isinstance(inner, LayerwiseOptimizer):
            self.clips = {name: getattr(inner, name) for name in _CLIPS}
        self.statistics = [
            v
            for layer in _layers(model)
            if layer.trainable
            for v in layer._non_trainable_variables
            if tf.as_dtype(v.dtype).is_floating
        ]

    @property
    def observer(self):
        """What the updates are shown to, or None: `tf_largebatch.diagnostics` sets it."""
        return getattr(self.inner, "observer", None)

    def update(self, inputs, labels, weights=None, observer=None):
        """One update from this replica's share of the global batch.

        Args:
            inputs, labels, weights: of the share.
            observer: `self.observer`, an argument so that another one makes another trace.

        Returns:
            This replica's part of the mean loss, float32: summed over replicas, the loss.
        """
        noise = None if observer is None else observer.noise
        loss, squares, sums = self._compute(
            inputs, labels, weights, self._total_weights(weights), noise
        )
        # A loop's results have no device, and a reduction over workers asks for it.
        grads = [None if self.unreached[j] else tf.identity(s) for j, s in enumerate(sums)]
        if noise is not None:
            noise.summed(self.inner, *squares, self._loss_scale())
        self._apply(grads, noise)
        self._synchronise_statistics()
        return loss

    def evaluate(self, inputs, labels, mask):
        """Updates the metrics, the loss among them, with one batch; a mask of 0 counts nothing."""
        outputs = self.model(inputs, training=False)
        found = self.objective.losses(labels, outputs, mask)
        for metric, (values, weights, _) in zip(self.means, found, strict=True):
            metric.update_state(values, sample_weight=weights)
        self.model.compute_metrics(inputs, labels, outputs, sample_weight=mask)

    def evaluated_loss(self):
        """The loss over all batches since `reset_evaluation`, a float."""
        parts = zip(self.means, self.objective.factors, strict=True)
        return float(sum(factor * float(metric.result()) for metric, factor in parts))

    def reset_evaluation(self):
        """Forgets the losses of the batches before."""
        for metric in self.means:
            metric.reset_state()

    def _total_weights(self, weights):
        """The sum of the weights over the global batch for each loss, or None where all are 1."""
        if weights is None:
            return None
        sums = [
            None if w is None else tf.reduce_sum(tf.cast(w, tf.float32))
            for w in self.objective.weights_given(weights)
        ]
        given = [s for s in sums if s is not None]
        if self.plan.replicas > 1 and given:
            context = tf.distribute.get_replica_context()
            given = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(given)))
        rest = iter(given)
        return [None if s is None else next(rest) for s in sums]

    def _gradients(self, inputs, labels, weights, total_weights, noise=None):
        """This replica's part of the loss and of each gradient, 0 where there is none.

        Between them, if `noise` asks for it, the sum of the squared norms of the parts of each
        gradient that its micro-batches add, with the loss scale; else nothing.
        """
        model, plan = self.model, self.plan
        count, size = plan.accumulation, plan.micro_batch_size
        batch = _map(lambda t: split_first(t, count, size), (inputs, labels, weights))

        def micro_batch(i, loss, squares, *sums):
            x, y, w = _map(lambda t: t[i], batch)
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                found = self.objective.losses(y, outputs, w)
                part = self._part(found, self.objective.weights_given(w), total_weights)
                penalties = [tf.cast(p, part.dtype) for p in model.losses]
                whole = part + sum(penalties) / (count * plan.replicas)
                scaled = model.optimizer.scale_loss(whole)
            grads = tape.gradient(scaled, self.variables)
            self.unreached.update({j: g is None for j, g in enumerate(grads)})
            squares = tuple(s + noise.square(self.inner, grads) for s in squares)
            # Each update weighs alike: its parts add up to its loss times its examples.
            examples = float(plan.global_batch_size)
            self.loss_metric.update_state(part * (examples / size), sample_weight=float(size))
            model.compute_metrics(x, y, outputs, sample_weight=w)
            sums = [
                s if g is None else s + tf.cast(tf.convert_to_tensor(g), s.dtype)
                for s, g in zip(sums, grads, strict=True)
            ]
            return i + 1, loss + tf.cast(whole, tf.float32), squares, *sums

        zeros = [tf.zeros(v.shape, _at_least_float32(v.dtype)) for v in self.variables]
        squares = () if noise is None else (tf.constant(0.0),)
        state = (tf.constant(0), tf.constant(0.0), squares, *zeros)
        if count == 1 or self.unroll:
            for _ in range(count):
                state = micro_batch(*state)
        else:
            state = tf.while_loop(
                lambda i, *_: i < count, micro_batch, state, parallel_iterations=1
            )
        _, loss, squares, *sums = state
        return loss, squares, sums

    def _part(self, found, weights_given, total_weights):
        """What this micro-batch adds to the loss of the global batch."""
        part = tf.zeros((), found[0].values.dtype)
        totals = total_weights or [None] * len(found)
        for (values, weights, factor), given, total in zip(
            found, weights_given, totals, strict=True
        ):
            elements = tf.cast(tf.size(values), values.dtype)
            if weights is None:
                total = elements * self.plan.accumulation * self.plan.replicas
                part += factor * tf.reduce_sum(values) / total
                continue
            # A weight may stand for several elements of the losses, as an example's for tokens.
            repeats = elements / tf.cast(tf.size(given), values.dtype)
            total = tf.cast(total, values.dtype) * repeats
            part += factor * tf.math.divide_no_nan(tf.reduce_sum(values * weights), total)
        return part

    def _loss_scale(self):
        return tf.cast(self.model.optimizer.scale_loss(tf.constant(1.0)), tf.float32)

    def _apply(self, grads, noise=None):
        optimizer = self.model.optimizer
        if self.ours:
            optimizer.apply(grads, self.variables)
            return
        reached = [j for j, g in enumerate(grads) if g is not None]
        context = tf.distribute.get_replica_context()
        reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, [grads[j] for j in reached])
        # The optimizers of this package tell it by themselves.
        if noise is not None and not isinstance(self.inner, LayerwiseOptimizer):
            noise.reduced(self.inner, reduced, self._loss_scale())
        reduced = self._clip(reduced, self._loss_scale())
        for j, g in zip(reached, reduced, strict=True):
            grads[j] = g
        with self._reduced_and_clipped():
            optimizer.apply(grads, self.variables)

    @contextlib.contextmanager
    def _reduced_and_clipped(self):
        """While this is traced, the inner optimizer neither reduces nor clips a second time."""
        for name in self.clips:
            setattr(self.inner, name, None)
        self.inner.__dict__["_all_reduce_sum_gradients"] = list
        try:
            yield
        finally:
            for name, limit in self.clips.items():
                setattr(self.inner, name, limit)
            self.inner.__dict__.pop("_all_reduce_sum_gradients", None)

    def _clip(self, grads, scale):
        """By value, then by one of the norms, as `LayerwiseOptimizer`; limits times loss scale."""

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
        if self.plan.replicas == 1 or not self.statistics:
            return
        wide = [
            tf.cast(tf.convert_to_tensor(v), _at_least_float32(v.dtype)) for v in self.statistics
        ]
        context = tf.distribute.get_replica_context()
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(v) for v in wide])
        for variable, mean in zip(self.statistics, means, strict=True):
            variable.assign(tf.cast(mean, variable.dtype))


def split_first(tensor, parts, size):
    """(parts * size, ...) as (parts, size, ...); other dimensions may be unknown, as in buckets."""
    rest = tensor.shape[1:]
    if rest.is_fully_defined():
        return tf.reshape(tensor, (parts, size, *rest))
    found = tf.reshape(tensor, tf.concat([[parts, size], tf.shape(tensor)[1:]], 0))
    return tf.ensure_shape(found, (parts, None if size == -1 else size, *rest))


def _map(function, structure):
    return tf.nest.map_structure(lambda t: None if t is None else function(t), structure)


def _layers(model):
    return model._flatten_layers(include_self=False, recursive=True)


def _reduces_over_replicas(layer, micro_batch_size):
    if isinstance(layer, GroupBatchNormalization):
        return layer.examples_per_group > micro_batch_size
    return getattr(layer, "synchronized", False)


def _at_least_float32(dtype):
    return "float32" if dtype in ("float16", "bfloat16") else dtype
