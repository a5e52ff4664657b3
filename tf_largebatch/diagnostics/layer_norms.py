"""Norms and trust ratios of every variable along a run (thesis Table 5.6, Figures 6.10-6.15)."""

import math
import typing

import numpy as np
import tensorflow as tf

from tf_largebatch.diagnostics.observer import ObservingCallback, inner_optimizer
from tf_largebatch.diagnostics.summaries import NormsWriter
from tf_largebatch.rules import UNADAPTED, norm

# Hinton's rule of thumb: updates should be about 1e-3 to 1e-2 of the weights.
LOW_UPDATE, HIGH_UPDATE = 1e-3, 1e-2


class LayerFigures(typing.NamedTuple):
    """What one update did to one variable; the norms are of the flattened tensors."""

    variable: str  # its path
    weight_norm: float  # before the update
    gradient_norm: float  # reduced over replicas, accumulated, clipped
    update_norm: float  # of the new weights less the old ones
    trust_ratio: float  # NaN where the optimizer takes none for this variable
    learning_rate: float

    @property
    def weight_to_gradient(self):
        """|w| / |g|, as in the thesis' Table 5.6; NaN where |g| is 0."""
        return _quotient(self.weight_norm, self.gradient_norm)

    @property
    def update_to_weight(self):
        """|update| / |w|; NaN where |w| is 0."""
        return _quotient(self.update_norm, self.weight_norm)


class LayerNorms(ObservingCallback):
    """Callback: weight, gradient and update norms, and trust ratios, of each variable.

    For `fit` and for the Trainer. With LARS, LAMB, NLAMB and NNLAMB the figures are the rule's own;
    of Keras' own optimizers there is no trust ratio, and a decoupled weight decay is part of the
    update. Norms are 2-norms, or of the order that the optimizer's `norm_ord` says.

    Updates are counted from 0; looked at are 0, `every`, 2 * `every`, ... The Trainer ends its host
    calls so that no look is missed; in `fit` with `steps_per_execution` above `every` only the last
    look of an execution is seen.

    Args:
        folder: where to write, or None. Gets `norms.csv`, a row for each variable and look, and, if
            the package tensorboard is installed, TensorBoard's scalars (`trust_ratio/<path>`, ...)
            and a histogram of each figure over the variables.
        every: updates from one look to the next.
        append: go on with a `norms.csv` that is there, instead of replacing it.
        write: False on the workers that leave the writing to another.

    Raises:
        ValueError: for an `every` below 1; as training begins, for a model without variables.

    Cost: a look takes three norms of each variable and reads them to the host; between looks there
    is a comparison for each variable. On two CPU cores every=50 took less than 5 % of CPU time on
    top, which is the spread of the measurement; every=1 took 25 % with LeNet-5 and 7 % with
    bert_tiny (benchmarks/diagnostics_cost.py).

    >>> import keras
    >>> from tf_largebatch import LAMB
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[3.0], [4.0]])])
    >>> model.compile(LAMB(0.1, weight_decay=0.0), "mse")
    >>> norms = LayerNorms(every=1)
    >>> _ = model.fit(np.eye(2), np.zeros((2, 1)), verbose=0, callbacks=[norms])
    >>> row = norms.table()[0]  # g = (3, 4), u = (1, 1): the ratio is 5 / sqrt(2)
    >>> row.weight_norm, row.gradient_norm, round(row.trust_ratio, 3), round(row.update_norm, 3)
    (5.0, 5.0, 3.536, 0.5)
    """

    def __init__(self, folder=None, every=50, *, append=False, write=True):
        super().__init__(every, "norms")
        self._writer = NormsWriter(folder, append=append) if folder and write else None
        self._rows, self._counts = [], {}

    def table(self):
        """The figures of the last look: list of `LayerFigures`, in the optimizer's order.

        Raises:
            ValueError: before the first look.
        """
        if not self._rows:
            raise ValueError(
                "LayerNorms has seen no update yet. Pass it to fit in `callbacks`, then ask again."
            )
        return list(self._rows)

    def counts(self):
        """What was met so far in the run, a dict.

        `looks`; and summed over looks and variables: `zero_weight_norms`, `zero_gradient_norms`,
        `trust_ratios_at_low_clip` and `..._at_high_clip` (of the optimizer's `trust_ratio_clip`),
        `weight_norms_outside_clip` (of its `weight_norm_clip`), `updates_below_band` and
        `updates_above_band`: update norms below 1e-3 and above 1e-2 of the weight's.
        """
        return dict(self._counts)

    def print_table(self, print_fn=print):
        """Prints the last look, as the thesis' Table 5.6, and the counts."""
        rows = self.table()
        header = ("variable", "|w|", "|g|", "|w|/|g|", "trust ratio", "|update|/|w|")
        cells = [header]
        for r in rows:
            figures = (r.weight_norm, r.gradient_norm, r.weight_to_gradient, r.trust_ratio)
            cells.append((r.variable, *map(_written, (*figures, r.update_to_weight))))
        widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
        for first, *rest in cells:
            others = (c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))
            print_fn("  ".join([first.ljust(widths[0]), *others]))
        print_fn(", ".join(f"{name} {n}" for name, n in self._counts.items()))

    def get_state(self):
        """The counts, for a run that is resumed."""
        return self.counts()

    def set_state(self, state):
        """Goes on with these counts."""
        self._counts = dict(state)

    def on_train_begin(self, logs=None):
        """Begins to count anew, and attaches itself to the optimizer."""
        self._rows, self._counts = [], dict.fromkeys(_COUNTS, 0)
        super().on_train_begin(logs)
        if self._writer:
            self._writer.open()

    def on_train_end(self, logs=None):
        """Detaches itself, and closes its files."""
        super().on_train_end(logs)
        if self._writer:
            self._writer.close()

    def make_variables(self):
        """One vector a variable: the update's number and the figures."""
        variables = inner_optimizer(self.model)._trainable_variables
        self._paths = [v.path for v in variables]
        unseen = np.full(len(LayerFigures._fields), -1.0, "float32")
        self._figures = [tf.Variable(unseen, trainable=False) for _ in variables]

    def updated(self, optimizer, index, learning_rate, w, g, new_w, ratio):
        """As `Observer.updated`."""
        order = getattr(optimizer, "norm_ord", 2)
        adapted = ratio is not None and ratio is not UNADAPTED
        tensors = [tf.convert_to_tensor(x) for x in (w, g, new_w)]

        def look():
            # Keras' optimizers work in the variable's dtype: squares in 16 bits would be rounded.
            w, g, new_w = (tf.cast(x, tf.float32) if x.dtype.size < 4 else x for x in tensors)
            found = (
                optimizer.iterations, norm(w, order), norm(g, order), norm(new_w - w, order),
                ratio.value if adapted else math.nan, learning_rate,
            )  # fmt: skip
            self._figures[index].assign(tf.stack([tf.cast(x, tf.float32) for x in found]))

        tf.cond(self.is_due(optimizer), look, lambda: None)

    def look(self, update):
        """Takes up the figures, counts, and writes."""
        found = [np.asarray(tf.convert_to_tensor(v)).tolist() for v in self._figures]
        # A variable that got no gradient wasn't updated. float32 holds update numbers to 2^24.
        self._rows = [
            LayerFigures(path, *figures)
            for path, (seen, *figures) in zip(self._paths, found, strict=True)
            if seen == np.float32(update)
        ]
        self._count(inner_optimizer(self.model))
        if self._writer:
            self._writer.write(update, self._rows)

    def _count(self, optimizer):
        rows = self._rows
        adapted = [r for r in rows if not math.isnan(r.trust_ratio)]
        sound = [r for r in adapted if r.weight_norm > 0]
        ratio_low, ratio_high = getattr(optimizer, "trust_ratio_clip", None) or _EVERYTHING
        norm_low, norm_high = getattr(optimizer, "weight_norm_clip", None) or _EVERYTHING
        rounding = 1e-6  # of a clipped ratio, which is a quotient
        found = (
            1,
            sum(r.weight_norm == 0 for r in rows),
            sum(r.gradient_norm == 0 for r in rows),
            sum(r.trust_ratio <= ratio_low * (1 + rounding) for r in sound),
            sum(r.trust_ratio >= ratio_high * (1 - rounding) for r in sound),
            sum(not norm_low <= r.weight_norm <= norm_high for r in sound),
            sum(r.update_to_weight < LOW_UPDATE for r in rows),
            sum(r.update_to_weight > HIGH_UPDATE for r in rows),
        )
        for name, n in zip(_COUNTS, found, strict=True):
            self._counts[name] += n


_COUNTS = (
    "looks", "zero_weight_norms", "zero_gradient_norms", "trust_ratios_at_low_clip",
    "trust_ratios_at_high_clip", "weight_norms_outside_clip", "updates_below_band",
    "updates_above_band",
)  # fmt: skip
_EVERYTHING = (-math.inf, math.inf)


def _quotient(one, other):
    return one / other if other != 0 else math.nan


def _written(figure):
    return "-" if math.isnan(figure) else f"{figure:.4g}"
