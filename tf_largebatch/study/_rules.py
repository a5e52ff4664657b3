"""Each optimizer's rule: its learning rate, warmup and decay at any batch size, from one base rate.

The recipe's rule (for instance the square root of the batch and LEGW) holds for every optimizer
but "sgd", Nesterov momentum, whose own is that of Goyal et al. 2017 (arXiv:1706.02677, sections
2.1, 2.2 and 5.1); "momentum" is SGD with plain momentum by the recipe's rule. A "+" adds their
schedule, as in the thesis' Table 6.4; "_l2" adds L2 regularisation, as in its section 6.6.

Two things differ from Goyal et al.: warmup begins at 0, theirs at the base rate; and weight decay
acts apart from the gradient, theirs within it, where momentum 0.9 makes it felt 10 times as much
("sgd_l2" adds theirs).
"""

import dataclasses
from typing import NamedTuple

from tf_largebatch.recipes import Recipe
from tf_largebatch.scaling import scale_learning_rate

_OF_TRAIN = next(f for f in dataclasses.fields(Recipe) if f.name == "optimizer")
OPTIMIZERS = (*_OF_TRAIN.metadata["choices"], "momentum")
LAMBS = ("lamb", "nlamb", "nnlamb", "keras_lamb")
L2 = 1e-4  # of the thesis' ResNet-50, where "_l2" says so
FALLS = (30 / 90, 60 / 90, 80 / 90)  # of the run, where "+" multiplies the rate by 0.1
WARMUP_EPOCHS, WARMUP_SHARE = 5.0, 5 / 90  # of Goyal et al., and as a share of their 90 epochs


class Setting(NamedTuple):
    """What a run's optimizer is set to."""

    learning_rate: float
    warmup: float
    warmup_unit: str  # "epochs" or "updates"
    weight_decay: float | None  # None: the optimizer's own default


class Habit(NamedTuple):
    """How an optimizer is usually run, where it isn't the recipe's own."""

    learning_rate: float  # the middle of the base rates that are tried
    weight_decay: float | None = None  # None: as the recipe
    flags: tuple[str, ...] = ()
    at_batch: int | None = None  # the rate is in proportion to the batch, and this at this one


_HABITS = {
    "sgd": Habit(0.1, 1e-4, ("--momentum=0.9", "--nesterov"), at_batch=256),  # of Goyal et al.
    "momentum": Habit(0.1, 1e-4, ("--momentum=0.9", "--nonesterov"), at_batch=256),
    "lars": Habit(1.0, 1e-4),
    "adagrad": Habit(0.01, 0.0),  # without decay, which adamw is for
    "adam": Habit(0.001, 0.0),
    "nadam": Habit(0.001, 0.0),
    "adamw": Habit(0.001),
    "muon": Habit(0.003),
    **dict.fromkeys(LAMBS, Habit(0.003)),
}


def without_suffixes(optimizer):
    """The name of an optimizer alone.

    >>> without_suffixes("adamw_l2+")
    'adamw'
    """
    return optimizer.removesuffix("+").removesuffix("_l2")


def plain(optimizer):
    """The same, checked.

    Raises:
        ValueError: if there is no such optimizer.
    """
    name = without_suffixes(optimizer)
    if name not in OPTIMIZERS:
        raise ValueError(
            f"There is no optimizer of this name. Received: {optimizer}. There are "
            f"{', '.join(OPTIMIZERS)}, each also with _l2 behind it (L2 regularisation of {L2:g} "
            "in the loss) and then a + (warmup and steps down as Goyal et al. 2017)."
        )
    return name


def middle_rate(job, optimizer):
    """The base rate around which others are tried: the recipe's, or the optimizer's habit."""
    own, name = job.base.optimizer, plain(optimizer)
    related = name == own or (name in LAMBS and own in LAMBS)
    if related and job.base.learning_rate is not None:
        return job.base.learning_rate
    habit = _HABITS[name]
    scale = job.base.global_batch_size / habit.at_batch if habit.at_batch else 1
    return habit.learning_rate * scale


def ruled(job, optimizer, base_learning_rate, global_batch_size):
    """The setting at a batch size that follows from the rate at the base batch.

    Raises:
        ValueError: if no rule leads there, or the rule has run out: a warmup as long as the run.

    >>> from tf_largebatch.study._job import make_job
    >>> job = make_job("lenet_digits", smoke=False, scaling=None, epochs=None, total_updates=None,
    ...                model=None, data=None, flags=[])
    >>> ruled(job, "adamw", 0.001, 256)
    Setting(learning_rate=0.004, warmup=3.2, warmup_unit='epochs', weight_decay=0.01)
    >>> ruled(job, "sgd", 0.01, 256).learning_rate
    0.16
    """
    base, k = job.base, job.factor(global_batch_size)
    rate = scale_learning_rate(
        base_learning_rate, base_batch_size=base.global_batch_size,
        batch_size=global_batch_size, rule=_scaling(job, optimizer),
    )  # fmt: skip
    rule = warmup_rule(job, optimizer)
    if rule == "goyal":
        warmup, unit = _goyal_warmup(base.epochs, job.total_updates(global_batch_size))
    elif base.warmup_updates is not None:  # of which LEGW keeps the number
        warmup, unit = base.warmup_updates / (1 if rule == "legw" else k), "updates"
    else:
        warmup, unit = (base.warmup_epochs or 0.0) * (k if rule == "legw" else 1), "epochs"
    found = Setting(rate, warmup, unit, _weight_decay(job, optimizer))
    check_warmup(job, optimizer, found, global_batch_size)
    return found


def check_warmup(job, optimizer, setting, global_batch_size):
    """Refuses a warmup as long as the run."""
    lengths = {"epochs": job.base.epochs, "updates": job.total_updates(global_batch_size)}
    length = lengths[setting.warmup_unit]
    if length is not None and setting.warmup >= length:
        raise ValueError(
            f"The warmup of {optimizer} at batch {global_batch_size} must be shorter than the run. "
            f"Received: {setting.warmup:g} of {length:g} {setting.warmup_unit}. Leave this batch "
            "size out, or train for longer."
        )


def flags(job, optimizer, setting, global_batch_size):
    """The flags of train.py for this optimizer at this setting.

    Raises:
        ValueError: for a "+" in a job whose length isn't known in epochs.
    """
    name, base = plain(optimizer), job.base
    trained = "sgd" if name == "momentum" else name  # as train.py calls it
    found = [f"--optimizer={trained}", f"--learning_rate={setting.learning_rate!r}"]
    warmup = setting.warmup if setting.warmup_unit == "epochs" else round(setting.warmup)
    found.append(f"--warmup_{setting.warmup_unit}={warmup!r}")
    if setting.weight_decay is not None:
        found.append(f"--weight_decay={setting.weight_decay!r}")
    if name != base.optimizer:
        found += _HABITS[name].flags
    if _has_l2(optimizer):
        found.append(f"--l2={L2!r}")
    if base.phase_learning_rates:  # each phase has its own peak, in proportion
        rates = [setting.learning_rate * r / base.learning_rate for r in base.phase_learning_rates]
        warmups = [warmup, *base.phase_warmup_updates[1:]]
        found.append(f"--phase_learning_rates={','.join(map(repr, rates))}")
        found.append(f"--phase_warmup_updates={','.join(map(str, warmups))}")
    if optimizer.endswith("+"):
        if base.epochs is None:
            raise ValueError(
                f"{optimizer} falls at epochs, and this job is counted in updates. Received: "
                f"total_updates={base.total_updates}. Leave the + out, or give --epochs."
            )
        falls = ",".join(f"{share * base.epochs:.6g}" for share in FALLS)
        found += ["--schedule=piecewise", f"--decay_epochs={falls}", "--decay_factor=0.1"]
    return found


def words(job, optimizer, base_learning_rate):
    """The rule of an optimizer in words, for whoever reads the study."""
    base = job.base
    rate = {
        "linear": "x batch / base batch",
        "sqrt": "x sqrt(batch / base batch)",
        "none": "and at every other",
        None: "",
    }[_scaling(job, optimizer)]
    rule = warmup_rule(job, optimizer)
    if rule == "goyal" and base.epochs is None:
        warmup = "warmup 1/18 of the updates, from 0 (Goyal et al. 2017: from the base rate)"
    elif rule == "goyal":
        epochs, _ = _goyal_warmup(base.epochs, None)
        warmup = f"warmup {epochs:g} epochs at every batch, from 0 (Goyal et al. 2017: from the "
        warmup += "base rate)"
    elif base.warmup_updates is not None:
        how = "as many at every batch, LEGW" if rule == "legw" else "/ (batch / base batch)"
        warmup = f"warmup {base.warmup_updates} updates at the base batch, {how}"
    else:
        how = "x batch / base batch, LEGW" if rule == "legw" else "as many at every batch"
        warmup = f"warmup {base.warmup_epochs or 0:g} epochs at the base batch, {how}"
    decay, name = _weight_decay(job, optimizer), plain(optimizer)
    parts = [
        f"learning rate {base_learning_rate:.6g} at batch {base.global_batch_size} {rate}".strip(),
        warmup,
        f"weight decay {'default' if decay is None else f'{decay:g}'}",
    ]
    if name in ("sgd", "momentum") and name != base.optimizer:
        parts[-1] += " apart from the gradient"
        parts.append("Nesterov momentum 0.9" if name == "sgd" else "momentum 0.9")
    if _has_l2(optimizer):
        parts.append(f"L2 regularisation {L2:g} in the loss")
    if optimizer.endswith("+"):
        parts.append("x 0.1 at 1/3, 2/3 and 8/9 of the run")
    else:
        parts.append(f"{base.schedule} decay, as the recipe")
    return "; ".join(parts)


def warmup_rule(job, optimizer):
    """ "legw", "same_epochs", or "goyal": 5 epochs at every batch."""
    return "goyal" if optimizer.endswith("+") or _is_goyal_sgd(job, optimizer) else job.warmup


def _scaling(job, optimizer):
    return "linear" if _is_goyal_sgd(job, optimizer) else job.scaling or "none"


def _is_goyal_sgd(job, optimizer):
    return plain(optimizer) == "sgd" and job.base.optimizer != "sgd"


def _goyal_warmup(epochs, total_updates):
    """5 epochs, in short runs a quarter; where only updates are known, their share of 90 epochs."""
    if epochs is None:
        return float(max(1, round(WARMUP_SHARE * total_updates))), "updates"
    return min(WARMUP_EPOCHS, epochs / 4), "epochs"


def _has_l2(optimizer):
    return optimizer.removesuffix("+").endswith("_l2")


def _weight_decay(job, optimizer):
    name = plain(optimizer)
    habit = None if name == job.base.optimizer else _HABITS[name].weight_decay
    return job.base.weight_decay if habit is None or job.weight_decay is not None else habit
