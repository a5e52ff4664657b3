"""A study's folder, read: its plan, its finished runs, their curves."""

import csv
import json
import math
import os
from dataclasses import dataclass
from typing import NamedTuple


class Run(NamedTuple):
    """A line of results.csv; None stands for an empty field."""

    cell: str
    group: str  # untuned, tuned, trial, base (trials of the base rate), sweep, ablation
    optimizer: str
    variant: str
    trial: str
    global_batch_size: int
    seed: int
    learning_rate: float
    warmup_epochs: float | None
    weight_decay: float | None
    epochs: float | None
    updates: int | None
    status: str  # done, diverged, failed
    value: float | None  # the held-out metric at the end, a fraction


class Epoch(NamedTuple):
    """What the report needs of a line of curves.csv."""

    update: int
    examples_seen: int
    loss: float | None
    val_metric: float | None


@dataclass(frozen=True)
class Study:
    """A study: `info` is study.json, `runs` results.csv, `curves` the epochs of each cell."""

    info: dict
    runs: tuple[Run, ...]
    curves: dict[str, tuple[Epoch, ...]]

    def of(self, group, **where):
        """The runs of a group, in the order of the file, whose fields are those in `where`."""
        return [
            run
            for run in self.runs
            if run.group == group and all(getattr(run, name) == it for name, it in where.items())
        ]

    def optimizers(self, *groups):
        """Names that have a run in one of the groups: as planned, then those not planned."""
        found = {run.optimizer for run in self.runs if run.group in groups}
        planned = [name for name in self.info["optimizers"] if name in found]
        return planned + sorted(found.difference(planned))

    def batches(self, *groups):
        """The global batch sizes that have a run in one of the groups, increasing."""
        return sorted({run.global_batch_size for run in self.runs if run.group in groups})

    @property
    def base_batch(self):
        """The batch that drops are measured from: the recipe's, or else the smallest one."""
        base = self.info["base_global_batch_size"]
        batches = self.batches("untuned", "tuned")
        return base if base in batches or not batches else batches[0]

    def missing(self):
        """How many planned runs have no end yet, by group; groups with none are left out."""
        info, tuning = self.info, self.info.get("tuning")
        optimizers, seeds = len(info["optimizers"]), len(info["seeds"])
        planned = {}
        if self.of("untuned"):
            planned["untuned"] = optimizers * seeds * len(info["batch_sizes"])
        if tuning:
            tuned = optimizers * len(tuning["batch_sizes"])
            planned |= {"tuned": tuned * seeds, "trial": tuned * tuning["trials"]}
        counts = {
            group: count - sum(run.status != "failed" for run in self.of(group))
            for group, count in planned.items()
        }
        return {group: count for group, count in counts.items() if count > 0}


def done(runs):
    """The values of the runs that reached their end."""
    return [run.value for run in runs if run.status == "done" and run.value is not None]


def count_diverged(runs):
    """How many of the runs diverged."""
    return sum(run.status == "diverged" for run in runs)


def read(folder):
    """The study in a folder.

    Args:
        folder: holds study.json and results.csv, and curves.csv where there are curves.

    Raises:
        ValueError: if there is no study, no finished run, or a file is not what the study writes.
    """
    path = os.path.join(folder, "study.json")
    if not os.path.exists(path):
        raise ValueError(
            f"There is no study in {folder}: study.json isn't there. Run "
            "python -m tf_largebatch.study with --out on this folder first."
        )
    info = _info(path)
    runs = tuple(_rows(os.path.join(folder, "results.csv"), Run))
    if not runs:
        raise ValueError(
            f"No run of the study in {folder} has ended yet: results.csv has no line. "
            "Start the study again with its command; it goes on where it stopped."
        )
    curves = {}
    for cell, epoch in _rows(os.path.join(folder, "curves.csv"), Epoch, key="cell"):
        curves.setdefault(cell, []).append(epoch)
    return Study(info, runs, {cell: tuple(epochs) for cell, epochs in curves.items()})


def _info(path):
    with open(path, encoding="utf-8") as file:
        try:
            info = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} isn't JSON ({error}).") from error
    needed = ("base_global_batch_size", "optimizers", "batch_sizes", "seeds")
    absent = [name for name in needed if name not in info]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}: it isn't a study's.")
    return info | {"metric": info.get("metric") or "metric"}  # its name comes with the first run


def _rows(path, kind, key=None):
    """The lines of a CSV file as `kind`; with `key`, pairs of that column and the line."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        needed = [*kind._fields, *([key] if key else [])]
        absent = [name for name in needed if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(f"{path} lacks the column {', '.join(absent)}.")
        for line in reader:
            try:
                row = kind(*(_field(line[name], it) for name, it in kind.__annotations__.items()))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
            yield (line[key], row) if key else row


def _field(text, wanted):
    """A field as its type says; None, where that is allowed, for an empty one and for no number."""
    if wanted in (str, int, float):
        return wanted(text)
    value = float(text or "nan")
    if not math.isfinite(value):
        return None
    return int(value) if wanted == int | None else value
