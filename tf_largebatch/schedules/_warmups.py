"""Schedules around schedules: a warmup before one, LEGW's warmup, one phase after another."""

from keras import ops

from tf_largebatch.scaling import check_count, check_number, epochs_to_updates, legw
from tf_largebatch.schedules._base import (
    KerasSchedule,
    Schedule,
    check_items,
    check_rate,
    check_updates,
    register,
    to_float,
    to_updates,
)
from tf_largebatch.schedules._decays import Polynomial


@register
class LinearWarmup(Schedule):
    """A linear ramp over the first updates, then another schedule or a constant.

    initial + (peak - initial) * t / warmup_updates for t < warmup_updates, then `after(t)`, with t
    still counted from update 0 (Goyal et al. 2017, arXiv:1706.02677, section 2.2).

    Args:
        after: The rate once warm: a float, or any Keras schedule, ours or `keras.optimizers`'.
        warmup_updates: Length of the ramp, in optimizer updates; 0 for none.
        initial_learning_rate: The rate of update 0. Default 0.0.
        peak_learning_rate: What the ramp aims at. By default the rate that `after` starts from:
            its `learning_rate`, `initial_learning_rate` or `values[0]`.

    Raises:
        ValueError: If a count or rate is out of range, the warmup is longer than `after` lasts, or
            the peak can't be read from `after`.

    >>> rate = LinearWarmup(Polynomial(0.5, total_updates=10), warmup_updates=4)
    >>> [round(float(rate(t)), 3) for t in range(6)]
    [0.0, 0.125, 0.25, 0.375, 0.3, 0.25]
    """

    _arguments = ("after", "warmup_updates", "initial_learning_rate", "peak_learning_rate")

    def __init__(
        self, after, warmup_updates, *, initial_learning_rate=0.0, peak_learning_rate=None
    ):
        self.after = _check_schedule("after", after)
        self.warmup_updates = check_updates("warmup_updates", warmup_updates, at_least=0)
        total_updates = getattr(self.after, "total_updates", None) or self.warmup_updates
        if self.warmup_updates > total_updates:
            raise ValueError(
                "warmup_updates must not be longer than the total_updates of the schedule that "
                f"follows. Received: warmup_updates={warmup_updates}, "
                f"total_updates={total_updates}. Train for longer, or warm up for less."
            )
        self.initial_learning_rate = check_rate("initial_learning_rate", initial_learning_rate)
        if peak_learning_rate is None:
            peak_learning_rate = _peak_of(self.after)
        self.peak_learning_rate = check_rate("peak_learning_rate", peak_learning_rate)

    def __call__(self, step):
        t = to_updates(step)
        after = _rate(self.after, t)
        if self.warmup_updates == 0:
            return after
        done = to_float(ops.clip(t, 0, self.warmup_updates)) / float(self.warmup_updates)
        rise = self.peak_learning_rate - self.initial_learning_rate
        return ops.where(t < self.warmup_updates, self.initial_learning_rate + rise * done, after)


@register
class LEGW(LinearWarmup):
    """A published row, carried to any batch size: linear-epoch warmup, then polynomial decay.

    The peak rate scales by `rule`, the warmup epochs with the batch size, so that the warmup keeps
    its number of updates (You et al. 2019, arXiv:1901.08256; the LAMB rows of arXiv:1904.00962).
    Read `peak_learning_rate`, `warmup_updates` and `total_updates` off the schedule.

    Args:
        learning_rate: Peak rate of the base row; above 0.
        warmup_epochs: Warmup of the base row, in epochs; 0 for none.
        base_batch_size: Batch size of the base row, in examples per update.
        batch_size: Batch size to train with, in examples per update, over all replicas.
        num_examples: Examples in one epoch.
        epochs: Length of the training, in epochs.
        rule: How the peak scales: `"sqrt"` (default), `"linear"` or `"none"`.
        power: Exponent of the decay. Default 1.0.
        decay_from: `"start"` (default) counts the decay from update 0, as the LAMB paper prints
            it; at power 1 the rate then drops by warmup_updates/total_updates where the warmup
            ends. `"warmup_end"` counts it from there, so that it starts at the peak.
        end_learning_rate: The rate after the last update, the same at every batch size.
            Default 0.0.

    Raises:
        ValueError: If an argument is out of range, or the training ends before it is warm.

    >>> bert = LEGW(5 / 2**3 / 1e3, 1 / 320, 512, 32768, num_examples=512_000_000, epochs=1)
    >>> bert.peak_learning_rate, bert.warmup_updates, bert.total_updates
    (0.005, 3125, 15625)
    >>> [round(float(bert(t)), 6) for t in (0, 1000, 3124, 3125, 15000)]
    [0.0, 0.0016, 0.004998, 0.004, 0.0002]
    """

    _arguments = ("learning_rate", "warmup_epochs", "base_batch_size", "batch_size")
    _arguments += ("num_examples", "epochs", "rule", "power", "decay_from", "end_learning_rate")

    def __init__(
        self,
        learning_rate,
        warmup_epochs,
        base_batch_size,
        batch_size,
        *,
        num_examples,
        epochs,
        rule="sqrt",
        power=1.0,
        decay_from="start",
        end_learning_rate=0.0,
    ):
        sizes = {"base_batch_size": base_batch_size, "batch_size": batch_size}
        row = legw(learning_rate, warmup_epochs, **sizes, rule=rule)
        self.learning_rate, self.warmup_epochs = float(learning_rate), float(warmup_epochs)
        self.base_batch_size, self.batch_size = int(base_batch_size), row.batch_size
        self.num_examples = check_count("num_examples", num_examples)
        self.epochs = check_number("epochs", epochs)
        self.rule, self.decay_from = rule, decay_from
        if decay_from not in ("start", "warmup_end"):
            raise ValueError(
                f"decay_from must be 'start' or 'warmup_end'. Received: decay_from={decay_from!r}."
            )
        # Counted at the base row: the scaled epochs give the same number, but for float rounding.
        warmup_updates = epochs_to_updates(
            self.warmup_epochs, num_examples=self.num_examples, batch_size=self.base_batch_size
        )
        self.total_updates = epochs_to_updates(
            self.epochs, num_examples=self.num_examples, batch_size=self.batch_size
        )
        if warmup_updates >= self.total_updates:
            raise ValueError(
                "The warmup must be shorter than the training. Received: "
                f"{warmup_updates} warmup updates ({row.warmup_epochs:g} epochs at "
                f"batch_size={self.batch_size}) of {self.total_updates} updates in all "
                f"({self.epochs:g} epochs). Use a smaller batch_size, or train for more epochs."
            )
        decay = Polynomial(
            row.learning_rate,
            self.total_updates,
            power=power,
            end_learning_rate=end_learning_rate,
            start_update=warmup_updates if decay_from == "warmup_end" else 0,
        )
        self.power, self.end_learning_rate = decay.power, decay.end_learning_rate
        super().__init__(decay, warmup_updates)


@register
class Phases(Schedule):
    """Schedules run one after another, each clocked from 0 where its phase starts.

    For mixed-batch training (You et al. 2020, arXiv:1904.00962, section 4.1): when the batch size
    and the sequence length change, the rate is warmed up from zero again, then decays again. After
    the last phase its schedule goes on.

    Args:
        phases: Pairs `(num_updates, schedule)`: the length of the phase in optimizer updates, and
            a Keras schedule or a float.

    Raises:
        ValueError: If there is no phase, one isn't such a pair, or a length is out of range.

    >>> warm = LinearWarmup(Polynomial(0.4, total_updates=4), warmup_updates=2)
    >>> rate = Phases([(4, warm), (4, warm)])
    >>> [round(float(rate(t)), 3) for t in range(8)]
    [0.0, 0.2, 0.2, 0.1, 0.0, 0.2, 0.2, 0.1]
    """

    _arguments = ("phases",)

    def __init__(self, phases):
        expected = "pairs (num_updates, schedule), such as [(1000, schedule), (100, 0.01)]"
        self.phases, self._starts, self.total_updates = [], [], 0
        for phase in check_items("phases", phases, expected):
            pair = check_items("phases", phase, expected)
            if len(pair) != 2:
                raise ValueError(f"phases must be {expected}. Received the phase {phase!r}.")
            num_updates = check_updates("num_updates", pair[0])
            self.phases.append([num_updates, _check_schedule("schedule", pair[1])])
            self._starts.append(self.total_updates)
            self.total_updates += num_updates
        check_updates("the updates of all phases", self.total_updates)

    def __call__(self, step):
        t = to_updates(step)
        rate = _rate(self.phases[0][1], t)
        for start, (_, schedule) in zip(self._starts[1:], self.phases[1:], strict=True):
            rate = ops.where(t >= start, _rate(schedule, to_updates(t - start)), rate)
        return rate


def _rate(schedule, t):
    return to_float(schedule(t) if isinstance(schedule, KerasSchedule) else schedule)


def _peak_of(after):
    """The rate that a schedule starts from, unless it has a warmup of its own."""
    if not isinstance(after, KerasSchedule):
        return after
    if not hasattr(after, "peak_learning_rate") and getattr(after, "warmup_target", None) is None:
        for name in ("learning_rate", "initial_learning_rate"):
            if hasattr(after, name):
                return getattr(after, name)
        if hasattr(after, "values"):
            return after.values[0]
    raise ValueError(
        "peak_learning_rate must be given when it can't be read from the schedule that follows. "
        f"Received: after={type(after).__name__}, peak_learning_rate=None. "
        "Pass peak_learning_rate, the rate that the warmup aims at."
    )


def _check_schedule(name, value):
    if isinstance(value, KerasSchedule):
        return value
    mend = "Or pass an instance of a Keras LearningRateSchedule."
    return check_number(name, value, allow_zero=True, mend=mend)
