"""Tuning with an equal budget: each optimizer's space, its trials, and the best of them.

Trials run with a seed of their own and are judged by the held-out metric at the end, as the thesis
does (section 6.6). They see the same held-out examples that the study reports: what is tuned is
favoured by that, every optimizer alike.
"""

import itertools
import math
import random

from tf_largebatch.study import _rules
from tf_largebatch.study._cells import Cell

FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0)
# The thesis' own, of Figure 6.5.
_THESIS_RATES = (
    *(digit * 10.0**power for power in range(-4, 0) for digit in (1, 2, 4, 6, 8)),
    *map(float, (1, 2, 4, 6, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50)),
)
_THESIS_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SPACES = ("ruled", "thesis")


def space(job, optimizer, setting, name):
    """The values that are tried, each list beginning with the one nearest to the rule's.

    Args:
        job: a `Job`.
        optimizer: its name.
        setting: the ruled `Setting` at this batch.
        name: "ruled", around the rule's setting, or "thesis", the lists of its Figure 6.5.

    Returns:
        {"learning_rate": [...], "warmup_epochs" or "warmup_updates": [...]} and, where it applies,
        "weight_decay".
    """
    warmup = f"warmup_{setting.warmup_unit}"
    if name == "thesis":
        found = {"learning_rate": _THESIS_RATES, warmup: (setting.warmup,)}
        decays = _THESIS_DECAYS if _rules.plain(optimizer) == "adamw" else ()
    else:
        rates = [setting.learning_rate * factor for factor in FACTORS]
        found = {"learning_rate": rates, warmup: _warmups(job, optimizer, setting)}
        own = setting.weight_decay
        decays = [own * factor for factor in (1.0, 0.1, 10.0)] if own else ()
    if decays:
        found["weight_decay"] = decays
    ruled = {
        "learning_rate": setting.learning_rate, warmup: setting.warmup,
        "weight_decay": setting.weight_decay or 1e-2,
    }  # fmt: skip
    return {key: sorted(values, key=_distance(ruled[key])) for key, values in found.items()}


def trials(job, optimizer, batch, setting, *, method, count, seed, space_name):
    """The cells of one optimizer's tuning at one batch size.

    Args:
        job, optimizer, setting: as for `space`.
        batch: the global batch size.
        method: "grid": all rates at the ruled warmup and decay, from the nearest to the farthest,
            then at the others; "random": drawn from the same lists, without repetition.
        count: how many trials.
        seed: of the runs and of the drawing.
        space_name: as for `space`.

    Raises:
        ValueError: if the space has fewer points than there are to be trials.
    """
    lists = space(job, optimizer, setting, space_name)
    # The rate varies fastest.
    points = [point[::-1] for point in itertools.product(*reversed(lists.values()))]
    if count > len(points):
        raise ValueError(
            f"The space of {optimizer} has {len(points)} points. Received: --trials={count}. Ask "
            "for fewer: every optimizer gets the same number."
        )
    if method == "random":
        points = random.Random(f"{seed} {optimizer} {batch}").sample(points, count)
    found = []
    for number, point in enumerate(points[:count]):
        values = dict(zip(lists, point, strict=True))
        tried = setting._replace(
            learning_rate=values["learning_rate"],
            warmup=values[f"warmup_{setting.warmup_unit}"],
            weight_decay=values.get("weight_decay", setting.weight_decay),
        )
        found.append(Cell("trial", optimizer, batch, seed, tried, trial=number))
    return found


def best(cells, results):
    """The cell with the highest final metric; of equal ones that with the lower held-out loss.

    Args:
        cells: trials.
        results: {cell name: row of results.csv}; runs that aren't done can't win.

    Returns:
        A cell, or None if none of them is done.
    """
    done = [cell for cell in cells if results.get(cell.name, {}).get("status") == "done"]
    return max(
        done,
        key=lambda c: (float(results[c.name]["value"]), -float(results[c.name]["loss"])),
        default=None,
    )


def at_the_edge(cell, cells):
    """Whether a cell has the lowest or the highest rate of all: a better one may lie beyond."""
    rates = [c.setting.learning_rate for c in cells]
    return len(set(rates)) > 1 and cell.setting.learning_rate in (min(rates), max(rates))


def _warmups(job, optimizer, setting):
    """The ruled warmup, half and twice of it, and none; those that are shorter than the run."""
    longest = {"epochs": job.base.epochs, "updates": job.base.total_updates}[setting.warmup_unit]
    found = [setting.warmup * factor for factor in (1.0, 0.5, 2.0, 0.0)]
    return [w for w in dict.fromkeys(found) if longest is None or w <= longest / 2]


def _distance(ruled):
    """How far a value is from the ruled one, in the logarithm; 0 is the farthest."""

    def distance(value):
        if value == ruled:
            return 0.0
        return abs(math.log(value / ruled)) if value > 0 and ruled > 0 else math.inf

    return distance
