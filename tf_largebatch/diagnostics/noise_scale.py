"""The simple noise scale of McCandlish et al. 2018 (arXiv:1812.06162): which batch size pays.

    B_simple = tr(Sigma) / |G|^2

G is the gradient of the expected loss, Sigma the covariance of one example's gradient. With the
gradient of a batch of B examples, and those of its n equal parts of b = B/n (appendix A.1):

    |G|^2     estimated by  (n * |G_B|^2 - mean |G_b|^2) / (n - 1)
    tr(Sigma) estimated by  (mean |G_b|^2 - |G_B|^2) * B / (n - 1)

Both are unbiased, but noisy, and either may come out negative: they are averaged separately before
one is divided by the other.
"""

import math
import typing

import tensorflow as tf

from tf_largebatch.diagnostics.batch_loss import BatchLoss
from tf_largebatch.diagnostics.observer import ObservingCallback
from tf_largebatch.scaling import check_count


class NoiseEstimate(typing.NamedTuple):
    """What the parts of a batch say about the noise of its gradient."""

    noise_scale: float  # examples; NaN while an estimate below isn't positive: not known yet
    gradient_square: float  # |G|^2
    trace: float  # tr(Sigma), of one example's gradient

    @property
    def suggested_batch_size(self):
        """The power of two nearest to the noise scale on a logarithmic axis, a float, or NaN."""
        if not self.noise_scale >= 1:
            return self.noise_scale if math.isnan(self.noise_scale) else 1.0
        return 2.0 ** round(math.log2(self.noise_scale))


class NoiseScale(ObservingCallback):
    """Callback: the simple noise scale of the run, from its micro-batches and replicas.

    Adds `noise_scale`, in examples, and `suggested_batch_size`, the power of two next to it, to
    the logs of each epoch, and so to log.csv, TensorBoard and `History`, if it stands before their
    callbacks; NaN as long as the averages don't allow an estimate. At a batch of B = noise_scale
    one update makes half the progress of a noiseless one, and the run costs twice the examples of
    the most frugal one; well below it a larger batch saves updates almost in proportion, well above
    it hardly any. It grows during training, often by an order of magnitude. It is an estimate from
    gradients alone: it knows neither the curvature nor the optimizer's preconditioning.

    In `Trainer` the parts that are compared are the micro-batches of all replicas; in `fit`, where
    `global_batch_size` must be given and all batches must have it, the replicas' shares. The parts
    are taken to weigh alike: with sample weights, masked tokens or padding it is approximate, the
    more so the more the weights of the parts differ. Regularisers count as part of the loss.
    Gradients are taken before they are clipped (but Keras' own optimizers clip before in `fit`:
    leave their clip out, or use the Trainer).

    Args:
        every: updates from one look to the next; the first one is at update 0.
        momentum: float in [0, 1): of the moving averages over looks, which are corrected for their
            start.
        global_batch_size: examples an update, over all replicas; the Trainer knows it by itself.

    Raises:
        ValueError: for an argument out of its range; as training begins, where the batch has one
            part only, or its size isn't known.

    Cost: at a look one norm of each part's gradient, kept on its replica until it is read. On two
    CPU cores every=50 took less than 5 % of CPU time on top, which is the spread of the
    measurement; every=1 took 18 % with LeNet-5 and 4 % with bert_tiny
    (benchmarks/diagnostics_cost.py).

    Reference: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.

    >>> NoiseScale(momentum=1.0)
    Traceback (most recent call last):
    ...
    ValueError: momentum must be a number in [0, 1). Received: 1.0.
    """

    def __init__(self, every=10, *, momentum=0.95, global_batch_size=None):
        super().__init__(every, "noise")
        if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise ValueError(f"momentum must be a number in [0, 1). Received: {momentum!r}.")
        if global_batch_size is not None:
            global_batch_size = check_count("global_batch_size", global_batch_size)
        self.momentum, self.global_batch_size = momentum, global_batch_size
        self._forget()

    def estimate(self):
        """The `NoiseEstimate` of the looks so far, with NaN where there is none."""
        if not self._looks:
            return NoiseEstimate(math.nan, math.nan, math.nan)
        correction = 1 - self.momentum**self._looks
        return _estimate(*(average / correction for average in self._averages))

    def get_state(self):
        """The averages, for a run that is resumed."""
        return {"looks": self._looks, "averages": list(self._averages)}

    def set_state(self, state):
        """Goes on with these averages."""
        self._looks, self._averages = state["looks"], tuple(state["averages"])

    def on_train_begin(self, logs=None):
        """Checks that there are parts to compare, and attaches itself to the optimizer."""
        self._forget()
        plan = self.params.get("batch_plan")
        self._micro_batches = plan and plan.accumulation
        self._replicas = self.model.distribute_strategy.num_replicas_in_sync
        self._parts = require_parts(self._replicas, self._micro_batches or 1)
        self._batch = plan.global_batch_size if plan else self.global_batch_size
        if self._batch is None:
            raise ValueError(
                "NoiseScale must be told how many examples an update takes: `fit` doesn't say. "
                "Received: global_batch_size=None. Pass global_batch_size, and to fit batches of "
                "this size only."
            )
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Adds the estimate to the logs."""
        if logs is not None:
            found = self.estimate()
            logs["noise_scale"] = found.noise_scale
            logs["suggested_batch_size"] = found.suggested_batch_size

    def make_variables(self):
        """Two numbers, each replica's own until they are read: then their mean."""
        kept = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        self._part_square, self._whole_square = (tf.Variable(0.0, **kept) for _ in range(2))

    def square(self, optimizer, grads):
        """|gradient|^2 of one micro-batch at a look, else 0: a float32 scalar."""
        return tf.cond(self.is_due(optimizer), lambda: _square(grads), lambda: tf.constant(0.0))

    def summed(self, optimizer, squares, loss_scale):
        """Told by the step: the sum of `square` over this replica's micro-batches."""
        # Each is the gradient of a part of the mean loss: n times as much is that of its own.
        factor = self._parts**2 / self._micro_batches
        self._keep(optimizer, self._part_square, lambda: squares * (factor / loss_scale**2))

    def replicas_own(self, optimizer, grads):
        """Told by the optimizer: this replica's part of the gradient."""
        if self._micro_batches is None:
            self._keep(optimizer, self._part_square, lambda: _square(grads) * float(self._parts**2))

    def reduced(self, optimizer, grads, loss_scale=1.0):
        """Told by the optimizer or the step: the gradient of the global batch."""
        self._keep(optimizer, self._whole_square, lambda: _square(grads) / loss_scale**2)

    def look(self, update):
        """Takes the two squares into the averages."""
        part, whole = (float(v.read_value()) for v in (self._part_square, self._whole_square))
        if math.isfinite(part) and math.isfinite(whole):
            found = _unbiased(part, whole, parts=self._parts, batch=self._batch)
            self._averages = tuple(
                self.momentum * average + (1 - self.momentum) * value
                for average, value in zip(self._averages, found, strict=True)
            )
            self._looks += 1

    def _forget(self):
        self._looks, self._averages = 0, (0.0, 0.0)

    def _keep(self, optimizer, variable, value):
        def assign():
            variable.assign(value())

        tf.cond(self.is_due(optimizer), assign, lambda: None)


def require_parts(replicas, micro_batches):
    """The number of parts that an update's batch comes in; refuses a single one.

    Args:
        replicas: how many share the batch.
        micro_batches: that each of them takes one after the other.

    Raises:
        ValueError: if there is nothing to compare.
    """
    if replicas * micro_batches < 2:
        raise ValueError(
            "The noise scale compares parts of a batch, and there is one part only. Received: one "
            "micro-batch on one replica. Set micro_batch_size in the Trainer to half the batch or "
            "less, use several replicas, or call gradient_noise_scale on a batch."
        )
    return replicas * micro_batches


def gradient_noise_scale(
    model, inputs, labels, sample_weight=None, *, micro_batch_size, training=False
):
    """The simple noise scale at a model's present weights, from one batch.

    One batch gives a noisy estimate: take many micro-batches (100 and more), and examples that are
    representative of the training data. The model is only read.

    Args:
        model: a built and compiled Keras model.
        inputs, labels: arrays of n examples, or structures of such.
        sample_weight: as `fit` takes it; as in `NoiseScale`, parts are taken to weigh alike.
        micro_batch_size: examples of a part; n must be a multiple of it, at least twice.
        training: as `BatchLoss` takes it: by default dropout is off.

    Returns:
        `NoiseEstimate`: noise_scale, gradient_square, trace.

    Raises:
        ValueError: if the batch can't be cut so, or as `BatchLoss`.

    Reference: McCandlish et al. 2018, arXiv:1812.06162, appendix A.1.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[0.0]])])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((4, 1)), np.array([[1.0], [1.0], [2.0], [2.0]])  # gradients -2, -2, -4, -4
    >>> gradient_noise_scale(model, x, y, micro_batch_size=1).trace  # their variance is 4/3
    1.333
    """
    examples = len(tf.nest.flatten(inputs)[0])
    micro_batch_size = check_count("micro_batch_size", micro_batch_size)
    if examples % micro_batch_size or examples < 2 * micro_batch_size:
        raise ValueError(
            "micro_batch_size must cut the batch into two or more equal parts. Received: "
            f"micro_batch_size={micro_batch_size!r}, {examples} examples. Choose a divisor."
        )
    loss = BatchLoss(
        model, inputs, labels, sample_weight, micro_batch_size=micro_batch_size, training=training
    )
    parts, total, squares = examples // micro_batch_size, None, 0.0
    for grads in loss.micro_batch_gradients(loss.read_weights()):
        squares += float(_square(grads))
        total = grads if total is None else [t + g for t, g in zip(total, grads, strict=True)]
    whole = float(_square(total)) / parts**2
    return _estimate(*_unbiased(squares / parts, whole, parts=parts, batch=examples))


def _unbiased(part, whole, *, parts, batch):
    """(|G|^2, tr(Sigma)) from the mean |G_b|^2 of the parts and |G_B|^2 of the whole."""
    return (parts * whole - part) / (parts - 1), (part - whole) * batch / (parts - 1)


def _estimate(gradient_square, trace):
    known = gradient_square > 0 and trace >= 0
    return NoiseEstimate(trace / gradient_square if known else math.nan, gradient_square, trace)


def _square(grads):
    wide = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in grads if g is not None]
    return tf.add_n([tf.reduce_sum(g * g) for g in wide])
