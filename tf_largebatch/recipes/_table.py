"""A published table: its rows, and the rule that derives the rows between them."""

import dataclasses
import typing
from collections.abc import Mapping

from tf_largebatch.recipes._keys import ABOVE_0, checked, key
from tf_largebatch.recipes._recipe import Recipe, Resolved
from tf_largebatch.scaling import RULES, legw, scale_learning_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How a table's rows follow from one of them."""

    base_global_batch_size: int = key(dataclasses.MISSING, "The row to start from.", within=ABOVE_0)
    scaling: str = key(dataclasses.MISSING, "How the learning rate scales.", choices=RULES)
    warmup: str = key(
        "legw",
        "legw: k times the batch size, k times the warmup epochs, hence the same warmup updates; "
        "same_epochs: the warmup epochs stay.",
        choices=("legw", "same_epochs"),
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))


class Row(typing.NamedTuple):
    """One row as the table has it."""

    recipe: Recipe
    printed: Mapping[str, str]  # values that the source prints as a formula, as printed
    published: Mapping[str, typing.Any]  # the source's results
    measured: tuple[Mapping[str, typing.Any], ...]  # ours: seed, metric, value, command
    not_in_source: tuple[str, ...]  # keys the source has no value for: ours, or left open
    note: str


class Observation(typing.NamedTuple):
    """Something a source reports that is no row of a recipe: a small table."""

    reference: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    note: str


@dataclasses.dataclass(frozen=True)
class Table:
    """One recipe file. Accuracies are fractions; F1 and BLEU are as printed, of 100."""

    name: str
    title: str
    source: str
    notes: str
    default_global_batch_size: int
    rule: Rule | None
    rows: tuple[Row, ...]
    published: tuple[Observation, ...]
    smoke: Mapping[str, typing.Any]  # what makes of the default row a run of a minute

    @property
    def batch_sizes(self):
        """The batch sizes that have a printed row, ascending."""
        return tuple(sorted(row.recipe.global_batch_size for row in self.rows))

    def __str__(self):
        sizes = ", ".join(format_batch_size(size) for size in self.batch_sizes)
        more = "; others derived" if self.rule else ""
        return f"{self.name}: {self.title} (batch {sizes}{more})"

    def row(self, global_batch_size=None, *, scaling=None):
        """The row for a batch size: the printed one, or one derived by the table's rule.

        Args:
            global_batch_size: Examples per update; None is the table's own default.
            scaling: `"linear"`, `"sqrt"` or `"none"` instead of the rule's; then every row is
                derived, because the printed rates follow the printed rule.

        Returns:
            `Resolved(recipe, derived, how, not_in_source)`.

        Raises:
            ValueError: If the batch size is no whole number above 0, has no row and the table has
                no rule, or the rule has run out (a warmup longer than the training).

        >>> from tf_largebatch.recipes import load
        >>> load("resnet50_lamb").row(2048).recipe.learning_rate
        0.01
        >>> load("resnet50_lamb").row(128).recipe.learning_rate
        0.0025
        """
        if global_batch_size is None:
            global_batch_size = self.default_global_batch_size
        global_batch_size = Recipe(global_batch_size=global_batch_size).global_batch_size
        rows = {row.recipe.global_batch_size: row for row in self.rows}
        listed = f"Printed batch sizes: {', '.join(map(str, self.batch_sizes))}."
        rule, printed = self.rule, rows.get(global_batch_size)
        if scaling is not None:
            if rule is None:
                raise ValueError(
                    f"Recipe {self.name} follows no rule, so that its rates can't be scaled. "
                    f"Received: scaling={scaling!r}. Leave it out, and set learning_rate yourself."
                )
            rule = dataclasses.replace(rule, scaling=scaling)
        if printed is not None and rule == self.rule:
            return Resolved(
                printed.recipe, False, _say("printed row", printed), printed.not_in_source
            )
        if rule is None:
            raise ValueError(
                f"Recipe {self.name} has no row for this batch size, and no rule to derive one. "
                f"Received: global_batch_size={global_batch_size}. {listed}"
            )
        base = rows[rule.base_global_batch_size]
        try:
            recipe, how = _derive(base.recipe, global_batch_size, rule)
        except ValueError as error:
            raise ValueError(
                f"Recipe {self.name} can't be carried to global_batch_size={global_batch_size}: "
                f"{error} {listed}"
            ) from None
        return Resolved(recipe, True, _say(how, base), base.not_in_source)

    def smoke_run(self):
        """A run of about a minute on two CPU cores, on data that is on every machine.

        It is the default row with the keys of [smoke], all of them this project's: the same
        optimizer, schedule and kind of network, to see that the whole of it works and learns.

        Returns:
            `Resolved(recipe, derived, how, not_in_source)`.

        Raises:
            ValueError: If the recipe has none.

        >>> from tf_largebatch.recipes import load
        >>> load("lenet_lamb").smoke_run().recipe.data
        'digits'
        """
        if not self.smoke:
            raise ValueError(f"Recipe {self.name} has no smoke run. Leave --smoke out.")
        recipe = self.row().recipe.replace(**self.smoke)
        how = f"smoke run, {', '.join(self.smoke)} chosen by this project"
        return Resolved(recipe, True, how, tuple(self.smoke))


def format_batch_size(size):
    """A batch size as the papers print it, for listings: whole multiples of 1,024 in K.

    >>> [format_batch_size(size) for size in (512, 1632, 32768)]
    ['512', '1632', '32K']
    """
    return f"{size // 1024}K" if size % 1024 == 0 else str(size)


def _derive(base, global_batch_size, rule):
    """The base row carried to another batch size, and the words for it."""
    sizes = {"base_batch_size": base.global_batch_size, "batch_size": global_batch_size}
    k = global_batch_size / base.global_batch_size
    changes = {"global_batch_size": global_batch_size, "scaling": rule.scaling}
    rate, warmup = base.learning_rate, base.warmup_epochs
    by = {"linear": f" x {k:g}", "sqrt": f" x sqrt({k:g})", "none": " unchanged"}[rule.scaling]
    words = [f"learning rate{by}"]
    if warmup is not None and rule.warmup == "legw":
        _, rate, changes["warmup_epochs"] = legw(rate, warmup, **sizes, rule=rule.scaling)
        words.append(f"warmup epochs x {k:g}")
    else:
        rate = scale_learning_rate(rate, **sizes, rule=rule.scaling)
        if warmup is not None:
            words.append("warmup epochs unchanged")
    changes["learning_rate"] = rate
    if base.total_updates is not None:
        changes["total_updates"] = _fewer(base.total_updates, **sizes)
        words.append(f"total updates / {k:g}")
    if base.warmup_updates is not None and rule.warmup == "same_epochs":
        changes["warmup_updates"] = _fewer(base.warmup_updates, **sizes)
        words.append(f"warmup updates / {k:g}")
    elif base.warmup_updates is not None:
        words.append("warmup updates unchanged")
    base_size = format_batch_size(base.global_batch_size)
    return base.replace(**changes), f"derived from the {base_size} row: {', '.join(words)}"


def _fewer(updates, *, base_batch_size, batch_size):
    """The whole number of updates, a half going up, that sees as many examples."""
    return (2 * updates * base_batch_size + batch_size) // (2 * batch_size)


def _say(how, row):
    ours = [k for k in row.not_in_source if getattr(row.recipe, k) is not None]
    left = [k for k in row.not_in_source if getattr(row.recipe, k) is None]
    if ours:
        how += f"; not in the source, so ours: {', '.join(ours)}"
    if left:
        how += f"; not in the source, so left open: {', '.join(left)}"
    return how
