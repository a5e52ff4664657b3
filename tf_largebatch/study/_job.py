"""What all runs of a study share: the row that the rules start from, and its length."""

import re
from typing import NamedTuple

from tf_largebatch import recipes
from tf_largebatch.recipes import Recipe
from tf_largebatch.scaling import check_count

# Flags of train.py that the study sets itself, or that would end a run before its length.
RESERVED = {
    "recipe", "smoke", "scaling", "model", "data", "optimizer", "learning_rate", "epochs",
    "total_updates", "warmup_epochs", "warmup_updates", "global_batch_size", "seed", "model_dir",
    "resume", "phase_learning_rates", "phase_warmup_updates", "phase_batch_sizes", "schedule",
    "decay_epochs", "decay_factor", "max_updates", "target_metric", "eval_only", "dry_run",
    "list_recipes", "progress", "flagfile", "l2",
}  # fmt: skip


class Job(NamedTuple):
    """A recipe's job, for any batch size.

    `base` is the row that the rules start from. `scaling` and `warmup` are the recipe's rule, as in
    `recipes.Rule`; None where the recipe has none, and then its own batch size is the only one.
    """

    base: Recipe
    scaling: str | None
    warmup: str
    flags: tuple[str, ...]  # of train.py, the same for every run
    weight_decay: float | None  # if these flags set it

    def factor(self, global_batch_size):
        """How many base batches this one is; refuses what no rule carries the job to."""
        base = self.base.global_batch_size
        if global_batch_size != base and self.scaling is None:
            raise ValueError(
                f"The recipe {self.base.recipe} follows no rule from one batch size to another. "
                f"Received: batch size {global_batch_size}, where its row has {base}. Choose one: "
                "--scaling=sqrt or --scaling=linear."
            )
        if global_batch_size != base and self.base.phase_batch_sizes:
            raise ValueError(
                f"The phases of {self.base.recipe} have batch sizes of their own, which aren't "
                f"scaled. Received: batch size {global_batch_size}. The only one: {base}."
            )
        return check_count("global_batch_size", global_batch_size) / base

    def total_updates(self, global_batch_size):
        """Updates that see as many examples as the base row does; None if epochs say it."""
        if self.base.total_updates is None:
            return None
        return max(1, round(self.base.total_updates / self.factor(global_batch_size)))

    def length_flags(self, global_batch_size):
        """The length of training as flags: the same examples at every batch size."""
        if self.base.total_updates is None:
            return [f"--epochs={self.base.epochs:g}"]
        return [f"--total_updates={self.total_updates(global_batch_size)}"]

    def examples_seen(self, global_batch_size, update):
        """Examples up to an update; phases may have batch sizes of their own."""
        base = self.base
        if not base.phase_batch_sizes:
            return update * global_batch_size
        start, seen, done = 0, 0, 0
        for size, part in zip(base.phase_batch_sizes, base.phase_proportions, strict=True):
            done += part
            # As the trainer switches.
            end = int(base.total_updates * done / sum(base.phase_proportions) + 0.5)
            seen += size * (min(update, end) - min(update, start))
            start = end
        return seen


def make_job(recipe, *, smoke, scaling, epochs, total_updates, model, data, flags):
    """The job that a command describes.

    Args:
        recipe: name of a recipe.
        smoke: whether its small run is meant.
        scaling: rule of the learning rate instead of the recipe's, or None.
        epochs, total_updates: length at the base batch instead of the recipe's, or None.
        model, data: as train.py takes them, instead of the recipe's, or None.
        flags: further flags of train.py, each "--name=value", "--name" or "--noname".

    Raises:
        ValueError: for what doesn't go together.

    >>> job = make_job("lenet_digits", smoke=False, scaling=None, epochs=3, total_updates=None,
    ...                model=None, data=None, flags=["--jit"])
    >>> job.base.global_batch_size, job.flags
    (16, ('--recipe=lenet_digits', '--jit'))
    """
    table = recipes.load(recipe)
    rule = table.rule
    row = table.smoke_run() if smoke else table.row(rule and rule.base_global_batch_size)
    changes = {"epochs": epochs, "total_updates": total_updates, "model": model, "data": data}
    base = row.recipe
    if epochs is not None and len(base.sequence_lengths) > 1:
        raise ValueError(
            "A run of several phases has no epochs of one length. Received: --epochs with "
            f"sequence_lengths={list(base.sequence_lengths)}. Give --total_updates, counted at "
            f"batch {base.global_batch_size}."
        )
    base = base.replace(**{k: v for k, v in changes.items() if v is not None})
    common, decay = [f"--recipe={recipe}"] + ["--smoke"] * smoke, None
    common += [f"--{k}={changes[k]}" for k in ("model", "data") if changes[k] is not None]
    for flag in flags:
        match = re.fullmatch(r"--?(\w+)(?:=(.*))?", flag, re.DOTALL)
        if match is None:
            raise ValueError(
                "Flags of train.py must be --name=value, --name or --noname. Received after --: "
                f"{flag}. Write the value with an equals sign."
            )
        name, value = match.groups()
        if name.removeprefix("no") in RESERVED or name in RESERVED:
            raise ValueError(
                f"The study sets train.py's --{name} itself, or has a flag of its own for it. "
                "Received it after --. Leave it out there."
            )
        if name == "weight_decay":
            base = base.replace(weight_decay=_number(flag, value))
            decay = base.weight_decay
    return Job(
        base, scaling or (rule and rule.scaling), rule.warmup if rule else "legw",
        (*common, *flags), decay,
    )  # fmt: skip


def _number(flag, text):
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{flag} must be given a number. Received: {text!r}.") from None
