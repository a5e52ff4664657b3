"""The report's tables on the accuracy runs, as text in cells; a row begins with its head."""

import math
from typing import NamedTuple

from tf_largebatch.study import _measures as measures
from tf_largebatch.study._reading import done
from tf_largebatch.study._statistics import summary
from tf_largebatch.study._verdict import (
    GROUPS,
    digits,
    drop,
    drop_text,
    holds,
    match,
    outcome,
    side,
)

NONE = "–"


class Table(NamedTuple):
    """A caption that says all a reader needs, the columns' heads, the rows."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def accuracy(study):
    """Mean and deviation of the metric: a row an optimizer and group, a column a batch."""
    places = digits(study)
    seeds = len(study.info["seeds"])
    spread = "mean ± sample standard deviation" if seeds > 1 else "one seed: no spread is known"

    def cell(group, name, batch):
        return value_text(study.of(group, optimizer=name, global_batch_size=batch), places, seeds)

    caption = (
        f"Held-out {study.info['metric']} at the end in per cent, n = {seeds}, {spread}; "
        "another n stands in the cell, diverged runs are counted and in no mean"
    )
    return _by_batch(study, caption, cell)


def drops(study):
    """The drop from the base batch in points, its interval, and whether the accuracy holds."""
    places = digits(study)

    def cell(group, name, batch):
        if not side(study, group, name, batch):
            return NONE
        reference, found = drop(study, group, name, batch)
        word = holds(study, group, name, batch)
        words = f"within {word}" if isinstance(word, float) else word
        words = {"loses": "loses more", "unknown": "not known"}.get(words, words)
        text = ", ".join(filter(None, (drop_text(found, places), words)))
        return text + (f" (from {reference})" if reference != group else "")

    caption = (
        f"Drop from batch {study.base_batch:,} in points, 95 % interval (Welch's t over the "
        "seeds; none with one seed), and what it shows; below 0 is a gain"
    )
    batches = [batch for batch in study.batches(*GROUPS) if batch != study.base_batch]
    return _by_batch(study, caption, cell, batches)


def matches(study):
    """The best of this package against the best baseline, at every batch."""
    places, rows = digits(study), []
    for group in GROUPS:
        for batch in study.batches(group):
            found = match(study, group, batch)
            if found:
                rows.append(
                    [
                        f"{batch:,}, {group}",
                        *(_side_text(it, places) for it in (found.package, found.baseline)),
                        drop_text(found.difference, places) or NONE,
                        outcome(found),
                    ]
                )
    caption = (
        "The best optimizer of this package and the best baseline: mean in per cent, and their "
        "difference (this package less baseline) in points with its 95 % interval (Welch's t)"
    )
    head = ["Batch", "This package", "Baseline", "Difference", "What it shows"]
    return Table(caption, head, rows)


def _side_text(it, places):
    mean = summary(it.values).mean
    text = it.optimizer if mean is None else f"{it.optimizer} {mean:.{places}f}"
    return text + (f", {it.diverged}/{it.runs} diverged" if it.diverged else "")


def settings(study):
    """Learning rate and warmup, and weight decay, that the runs had."""

    def cell(group, name, batch):
        runs = study.of(group, optimizer=name, global_batch_size=batch)
        return "; ".join(dict.fromkeys(settings_text(run) for run in runs)) or NONE

    return _by_batch(study, "Learning rate, warmup in epochs, and weight decay (wd)", cell)


def updates_to_target(study):
    """Median updates to the target; how many runs reached it where not all did."""
    wanted, words = measures.target(study)

    def cell(group, name, batch):
        found = measures.updates_to_target(study, group, name, batch, wanted)
        if found is None:
            return NONE
        text = f"{found.median:,.0f}" if math.isfinite(found.median) else "not reached"
        missed = found.reached < found.runs
        return text + (f" ({found.reached}/{found.runs} reached)" if missed else "")

    caption = (
        f"Updates to {100 * wanted:.{digits(study)}f} % {study.info['metric']} ({words}), at the "
        "end of an epoch; median over the seeds, a run that never reached it counts as infinite"
    )
    return _by_batch(study, caption, cell)


def value_text(runs, places, seeds=None):
    """Such as "99.17 ± 0.34", with n where it isn't `seeds`, and "3/5 diverged"."""
    found = summary([100 * value for value in done(runs)])
    parts = []
    if found.n:
        text = f"{found.mean:.{places}f}"
        if found.deviation is not None:
            text += f" ± {found.deviation:.{places}f}"
        if found.n != seeds and (seeds or found.n > 1):
            text += f" (n = {found.n})"
        parts.append(text)
    for status in ("diverged", "failed"):
        count = sum(run.status == status for run in runs)
        if count:
            parts.append(f"{count}/{len(runs)} {status}")
    return ", ".join(parts) or NONE


def settings_text(run):
    """Such as "0.003, warmup 0.2, wd 0.01"."""
    parts = [f"{run.learning_rate:.4g}"]
    if run.warmup_epochs is not None:
        parts.append(f"warmup {run.warmup_epochs:.3g}")
    if run.weight_decay is not None:
        parts.append(f"wd {run.weight_decay:.3g}")
    return ", ".join(parts)


def _by_batch(study, caption, cell, batches=None):
    """A table with a row an optimizer and group and a column a batch; empty rows left out."""
    batches = study.batches(*GROUPS) if batches is None else batches
    rows = []
    for name in study.optimizers(*GROUPS):
        for group in GROUPS:
            if study.of(group, optimizer=name):
                head = name if group == "untuned" else f"{name}, tuned"
                rows.append([head, *(cell(group, name, batch) for batch in batches)])
    return Table(caption, ["Optimizer", *(_head(study, batch) for batch in batches)], rows)


def _head(study, batch):
    """Such as "512 (180 updates)"; the updates where all runs of the batch agree on them."""
    counts = {
        run.updates
        for group in GROUPS
        for run in study.of(group, global_batch_size=batch)
        if run.status == "done" and run.updates
    }
    return f"{batch:,}" + (f" ({counts.pop():,} updates)" if len(counts) == 1 else "")
