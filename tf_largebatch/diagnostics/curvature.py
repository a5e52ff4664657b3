"""The local Lipschitz constant L(x, g): how fast the gradient changes along itself."""

import csv
import io
import math
import os

import keras
import tensorflow as tf

from tf_largebatch.diagnostics.batch_loss import BatchLoss, refuse_half_precision
from tf_largebatch.diagnostics.observer import updates_done
from tf_largebatch.scaling import check_count

METHODS = ("difference", "exact")
_SHRINK = 1 / 256  # at most: where a step was far too long, so was the estimate that it gave


def local_lipschitz(
    model, inputs, labels, sample_weight=None, *, method="difference", micro_batch_size=None,
    training=False,
):  # fmt: skip
    """L(x, g) = g'Hg / |g|^2 of a model on a batch (You 2020, thesis, section 6.3, after eq. 6.4).

    The curvature of the loss along its gradient g, with H the Hessian: of all steps along -g, the
    one of length |g| / L is the best to second order, so that plain gradient descent wants a
    learning rate near 1 / L. The thesis explains warmup by L's peak early in training.

    Args:
        model, inputs, labels, sample_weight, micro_batch_size, training: as `BatchLoss` takes them.
        method: "difference": as the thesis, central differences of gradients (`hessian_along`), 3
            or 5, seldom 7 gradients of the batch. "exact": the gradient differentiated once more,
            about as much work and more memory; every operation must have a second derivative,
            which cuDNN's recurrent ones lack. Where the loss is smooth they agree to about 1e-4.
            With ReLU or max pooling the gradient jumps: differences see the jumps that their step
            meets, "exact" none. A ResNet's differed by up to a half, LeNet's at its start in sign.

    Returns:
        A float; negative where the loss bends down. NaN where the gradient is zero, which leaves L
        undefined, or isn't finite.

    Raises:
        ValueError: for an unknown method, or as `BatchLoss`; for "difference" also where layers
            compute in 16 bits.

    The loss (w^2 + v^2 / 3) / 2 has the gradient (1, 1) at w = 1, v = 3: L = (1 + 1 / 3) / 2.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> model.set_weights([np.float32([[1], [3]])])
    >>> x = np.diag([1, 3**-0.5])
    >>> round(local_lipschitz(model, x, np.zeros((2, 1))), 4)
    0.6667
    """
    batch_loss = BatchLoss(
        model, inputs, labels, sample_weight,
        micro_batch_size=micro_batch_size, training=training,
    )  # fmt: skip
    check_method(model, method)
    return _lipschitz_now(batch_loss, method)


def hessian_along(batch_loss, weights, gradient, vector, method):
    """H v / |v|, and v / |v|.

    By differences it is (g(w + hd) - g(w - hd)) / 2h with d = v / |v|. Of the relative error,
    rounding of the gradients gives u |g| / (h |Hd|), where u is the dtype's unit roundoff, and the
    next term of Taylor's series (h / l)^2, if l is the length over which the gradient changes by
    its own size. That length is |g| / |Hd|, and their sum is least, about u^(2/3), at
    h = u^(1/3) l. So a first step, h = u^(1/2) |w|, which is short but resolved in every weight of
    usual size, estimates |Hd|; where it was too long, it is taken anew at u^(1/3) |g| / |Hd|, at
    most twice. (u^(1/3) |w|, the textbooks' step, was wrong by 2 to 76 % on an LSTM.)

    Args:
        batch_loss: `BatchLoss`.
        weights, gradient, vector: lists of tensors; `gradient` is the one at `weights`.
        method: as `local_lipschitz` takes it.

    Returns:
        (list of tensors, list of tensors); of NaNs if |v| is zero.
    """
    size = norm(vector)
    direction = [v / tf.cast(size, v.dtype) for v in vector]
    if method == "exact" or not (math.isfinite(size) and size > 0):
        return batch_loss.hessian_vector(weights, direction), direction
    wide = all(dtype == tf.float64 for dtype in (batch_loss.dtype, *(w.dtype for w in weights)))
    roundoff = 2.0**-53 if wide else 2.0**-24
    step = math.sqrt(roundoff) * (norm(weights) or 1.0)
    longest = roundoff ** (1 / 3) * norm(gradient)
    fits = False
    for _ in range(3):
        product = _difference(batch_loss, weights, direction, step)
        change = step * norm(product)
        if fits or not change > longest > 0:
            break
        fits = longest / change >= _SHRINK  # then the next step is the right one
        step *= max(longest / change, _SHRINK)
    return product, direction


def check_method(model, method):
    """Raises a ValueError for an unknown method, or one that the model's precision forbids."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}. Received: {method!r}.")
    if method == "difference":
        refuse_half_precision(model, "A difference of gradients", ", or pass method='exact'")


def dot(a, b):
    """The scalar product of two lists of tensors, summed in float64, a float."""
    pairs = zip(a, b, strict=True)
    return float(
        tf.add_n([tf.reduce_sum(tf.cast(x, tf.float64) * tf.cast(y, tf.float64)) for x, y in pairs])
    )


def norm(tensors):
    """|v| of a list of tensors, a float."""
    return math.sqrt(dot(tensors, tensors))


def _difference(batch_loss, weights, direction, step):
    def gradient(step):
        moved = [w + tf.cast(step, w.dtype) * d for w, d in zip(weights, direction, strict=True)]
        return batch_loss.gradient(moved)[1]

    pairs = zip(gradient(step), gradient(-step), strict=True)
    return [(ahead - behind) / tf.cast(2 * step, ahead.dtype) for ahead, behind in pairs]


def _lipschitz_now(batch_loss, method):
    """L(x, g) at the model's present weights."""
    weights = batch_loss.read_weights()
    _, gradient = batch_loss.gradient(weights)
    size = norm(gradient)
    if not (math.isfinite(size) and size > 0):
        return math.nan
    product, direction = hessian_along(batch_loss, weights, gradient, gradient, method)
    return dot(direction, product)


class LocalLipschitz(keras.callbacks.Callback):
    """Follows L(x, g) on one fixed batch through training (`local_lipschitz`; Figure 6.1).

    It looks before the first update, and then at each multiple of `every`; in `fit` with
    `steps_per_execution` at the end of the first call at or past it. The epoch's logs get
    `local_lipschitz`, the value of the last look, unless it is NaN.

    A look costs 3 to 7, mostly 5 gradients of the probe batch: with a probe as large as the
    training batch and `every=50`, about a tenth of the run. Several workers must all have the
    callback.

    Args:
        inputs, labels, sample_weight: the probe batch, as `BatchLoss` takes it. It should be the
            same for all runs that are compared.
        every: updates from look to look.
        path: CSV file (update, local_lipschitz) to write, on any file system that TensorFlow
            knows. Update k is the state after k updates. A new run replaces the file, one that
            goes on keeps its rows so far.
        method, micro_batch_size, training: as `local_lipschitz` takes them.

    Attributes:
        values: list of (update, L) of this run's looks.

    Raises:
        ValueError: when training begins, as `local_lipschitz`.
    """

    def __init__(
        self, inputs, labels, sample_weight=None, *, every=50, path=None, method="difference",
        micro_batch_size=None, training=False,
    ):  # fmt: skip
        super().__init__()
        self.every_updates = check_count("every", every)  # Trainer ends its calls there
        self.path, self.method = path, method
        self.values = []
        self._batch = (inputs, labels, sample_weight)
        self._options = {"micro_batch_size": micro_batch_size, "training": training}
        self._known = math.nan

    def on_train_begin(self, logs=None):
        """Takes up the file, and looks before the first update."""
        check_method(self.model, self.method)
        self._loss = BatchLoss(self.model, *self._batch, **self._options)
        strategy = self.model.distribute_strategy
        self._writes = self.path is not None and strategy.extended.should_checkpoint
        self._looked_at = updates_done(self.model)
        self.values = []
        if self._writes:
            _keep_rows(str(self.path), self._looked_at)
        if self._looked_at == 0:
            self._look(0)

    def on_train_batch_end(self, batch, logs=None):
        """Looks, if a multiple of `every` has been reached."""
        done = updates_done(self.model)
        if done // self.every_updates > self._looked_at // self.every_updates:
            self._looked_at = done
            self._look(done)

    def on_epoch_end(self, epoch, logs=None):
        """Puts the last value into the logs."""
        if logs is not None and not math.isnan(self._known):
            logs["local_lipschitz"] = self._known

    def get_state(self):
        """The value of the last look."""
        return {"local_lipschitz": self._known}

    def set_state(self, state):
        """Goes on with what `get_state` returned."""
        self._known = state["local_lipschitz"]

    def _look(self, update):
        self._known = _lipschitz_now(self._loss, self.method)
        self.values.append((update, self._known))
        if self._writes:
            with tf.io.gfile.GFile(str(self.path), "a") as file:
                file.write(f"{update},{self._known:.9g}\n")


def _keep_rows(path, update):
    """Leaves in the file a header, and of a run that goes on the rows up to this update."""
    rows = []
    if update > 0 and tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            rows = [row for row in csv.reader(file) if row[:1] and row[0].isdigit()]
    text = io.StringIO()
    kept = [row for row in rows if int(row[0]) <= update]
    csv.writer(text, lineterminator="\n").writerows([("update", "local_lipschitz"), *kept])
    folder, name = os.path.split(path)
    if folder:
        tf.io.gfile.makedirs(folder)
    temporary = os.path.join(folder, f"unfinished-{name}")
    with tf.io.gfile.GFile(temporary, "w") as file:
        file.write(text.getvalue())
    tf.io.gfile.rename(temporary, path, overwrite=True)
