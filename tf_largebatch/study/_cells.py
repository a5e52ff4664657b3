"""What is to be run: a cell is one run of train.py, with its place in the study."""

from typing import NamedTuple

from tf_largebatch.study import _rules
from tf_largebatch.study._rules import Setting

ABLATIONS = ("bias_correction", "norm", "nesterov", "legw", "rewarmup")
SWEEP_FACTORS = tuple(2.0**power for power in range(-3, 4))


class Cell(NamedTuple):
    """One run. Its name is that of its folder."""

    group: str  # base, untuned, sweep, ablation, trial or tuned
    optimizer: str
    global_batch_size: int
    seed: int
    setting: Setting
    variant: str = ""
    trial: int | None = None
    runs_as: str = ""  # the optimizer that a variant puts in this one's place
    flags: tuple[str, ...] = ()  # of a variant

    @property
    def name(self):
        """For instance "trial-adamw-b512-s1000-t3"."""
        parts = [self.group, self.optimizer, *filter(None, [self.variant])]
        parts += [f"b{self.global_batch_size}", f"s{self.seed}"]
        return "-".join([*parts, *([] if self.trial is None else [f"t{self.trial}"])])


def command(job, cell):
    """The flags of train.py for a cell, but for the folder."""
    optimizer = cell.runs_as or cell.optimizer
    return [
        *job.flags,
        f"--global_batch_size={cell.global_batch_size}",
        *job.length_flags(cell.global_batch_size),
        *_rules.flags(job, optimizer, cell.setting, cell.global_batch_size),
        *cell.flags,
        f"--seed={cell.seed}",
    ]


def spread(middle, count, decades=1.0):
    """`count` values around `middle`, even in the logarithm, from 1/10^decades to 10^decades of it.

    >>> [round(rate, 5) for rate in spread(0.01, 5)]
    [0.001, 0.00316, 0.01, 0.03162, 0.1]
    """
    if count == 1:
        return [middle]
    return [middle * 10 ** (decades * (2 * i / (count - 1) - 1)) for i in range(count)]


def base_trials(job, optimizer, count, seed):
    """Runs at the base batch that find the base learning rate: one for each rate tried."""
    batch, found = job.base.global_batch_size, []
    for number, rate in enumerate(spread(_rules.middle_rate(job, optimizer), count)):
        setting = _rules.ruled(job, optimizer, rate, batch)
        found.append(Cell("base", optimizer, batch, seed, setting, trial=number))
    return found


def untuned(job, base_rates, batch_sizes, seeds):
    """Every optimizer, batch size and seed, by the rules alone; all of one seed first.

    Args:
        job: a `Job`.
        base_rates: {optimizer: its learning rate at the base batch}.
        batch_sizes, seeds: ints.
    """
    return [
        Cell("untuned", optimizer, batch, seed, _rules.ruled(job, optimizer, rate, batch))
        for seed in seeds
        for batch in batch_sizes
        for optimizer, rate in base_rates.items()
    ]


def sweep(job, base_rates, batch_sizes, seeds):
    """Learning rates from 1/8 to 8 of the ruled one, in octaves."""
    return [
        cell._replace(
            group="sweep",
            variant=f"rate_x{factor:g}",
            setting=cell.setting._replace(learning_rate=cell.setting.learning_rate * factor),
        )
        for cell in untuned(job, base_rates, batch_sizes, seeds)
        for factor in SWEEP_FACTORS
    ]


def ablation(job, names, base_rates, batch_sizes, seeds):
    """The runs of each ablation; what they are compared with are the untuned ones.

    Args:
        job: a `Job`.
        names: of `ABLATIONS`.
        base_rates, batch_sizes, seeds: as for `untuned`.

    Raises:
        ValueError: if an ablation needs an optimizer or a recipe that isn't there.
    """
    found, without = [], set(names)
    for cell in untuned(job, base_rates, batch_sizes, seeds):
        for name in names:
            variants = _variants(job, name, cell)
            found += [variant._replace(group="ablation") for variant in variants]
            if variants:
                without.discard(name)
    for name in without:
        what = "optimizers whose warmup follows LEGW" if name == "legw" else "lamb"
        raise ValueError(
            f"--ablate {name} is compared with {what}. Received: optimizers "
            f"{', '.join(base_rates)}, recipe {job.base.recipe}. "
            f"{'Choose others' if name == 'legw' else 'Add lamb'}, or leave the ablation out."
        )
    return found


def _variants(job, name, cell):
    if name == "legw":
        return _warmups(job, cell)
    if name == "rewarmup":
        if not job.base.phase_learning_rates:
            raise ValueError(
                "--ablate rewarmup needs a recipe whose phases have learning rates of their own, "
                f"such as bert_lamb_mixed. Received: {job.base.recipe}."
            )
        through = ("--phase_learning_rates=", "--phase_warmup_updates=")
        return [cell._replace(variant="rewarmup=false", flags=through)]
    if cell.optimizer != "lamb":
        return []
    if name == "bias_correction":
        return [cell._replace(variant="bias_correction=false", flags=("--nobias_correction",))]
    if name == "norm":
        return [
            cell._replace(variant=f"norm_ord={order}", flags=(f"--norm_ord={order}",))
            for order in ("1", "inf")
        ]
    return [cell._replace(variant=other, runs_as=other) for other in ("nlamb", "nnlamb")]


def _warmups(job, cell):
    """Instead of LEGW: the base row's warmup, as many epochs at every batch; and none."""
    rule = _rules.warmup_rule(job, cell.optimizer)
    if rule != "legw":
        return []
    setting = cell.setting
    # Epochs that LEGW has multiplied, or updates that it has kept.
    same = setting.warmup / job.factor(cell.global_batch_size)
    warmups = {"warmup=same_epochs": same, "warmup=none": 0.0}
    return [
        cell._replace(variant=name, setting=setting._replace(warmup=warmup))
        for name, warmup in warmups.items()
        if warmup != setting.warmup
    ]
