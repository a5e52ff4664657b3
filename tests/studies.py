"""Studies made up for the tests of the report: folders as the study's engine writes them."""

import csv
import json
from pathlib import Path

import numpy as np

RESULTS = (
    "cell group optimizer variant trial global_batch_size seed learning_rate warmup_epochs "
    "weight_decay epochs updates status value best seconds"
).split()
CURVES = (
    "cell optimizer variant group global_batch_size seed epoch update examples_seen loss "
    "val_metric learning_rate"
).split()
EXAMPLES, EPOCHS = 1440, 60


def info(**changes):
    """A study.json, of two optimizers at two batches with three seeds."""
    return {
        "command": ["python", "-m", "tf_largebatch.study", "--recipe", "lenet_digits"],
        "recipe": "lenet_digits",
        "data": "digits",
        "model": "lenet5",
        "epochs": EPOCHS,
        "total_updates": None,
        "metric": "accuracy",
        "base_global_batch_size": 16,
        "num_examples": EXAMPLES,
        "versions": {"python": "3.11", "keras": "3.15.1"},
        "machine": "a machine, 2 cores",
        "seeds": [0, 1, 2],
        "optimizers": ["lamb", "sgd"],
        "batch_sizes": [16, 512],
        "target": None,
        "tuning": None,
    } | changes


def runs(optimizer, batch, values, group="untuned", **changes):
    """Lines of results.csv, one a value and seed; a value of None is a diverged run."""
    made = []
    for seed, value in enumerate(values):
        line = {
            "group": group,
            "optimizer": optimizer,
            "variant": "",
            "trial": "",
            "global_batch_size": batch,
            "seed": seed,
            "learning_rate": 0.003,
            "warmup_epochs": 0.2,
            "weight_decay": 0.01,
            "epochs": EPOCHS,
            "updates": EPOCHS * (EXAMPLES // batch),
            "status": "done" if value is not None else "diverged",
            "value": "" if value is None else value,
            "best": "" if value is None else value,
            "seconds": 10.0,
        } | changes
        name = [line[key] for key in ("group", "optimizer", "variant", "trial", "learning_rate")]
        line["cell"] = "-".join(map(str, [*name, batch, seed]))
        made.append(line)
    return made


def curve(run, losses, values):
    """Lines of curves.csv of a run, one an epoch."""
    updates = EXAMPLES // run["global_batch_size"]
    return [
        {name: run[name] for name in CURVES if name in run}
        | {
            "epoch": epoch,
            "update": epoch * updates,
            "examples_seen": epoch * EXAMPLES,
            "loss": loss,
            "val_metric": value,
        }
        for epoch, (loss, value) in enumerate(zip(losses, values, strict=True), start=1)
    ]


def write(folder, study, results, curves=()):
    """Writes a study's folder; returns it."""
    folder = Path(folder)
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    for name, fields, lines in (("results", RESULTS, results), ("curves", CURVES, curves)):
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fields, restval="")
            writer.writeheader()
            writer.writerows(lines)
    return folder


def whole(folder, optimizers, batches=(16, 128, 512), seeds=5, tuned=True):
    """A study with everything in it: accuracies that fall with the batch, curves, searches."""
    random = np.random.default_rng(0)
    results, curves = [], []

    def accuracies(place, batch, count):
        fall = 0.3 * place**2 * np.log2(batch / batches[0]) ** 1.5 / 27
        found = np.clip(0.992 - fall + 0.003 * random.standard_normal(count), 0.1, 1)
        return [round(float(it) * 360) / 360 for it in found]

    for place, name in enumerate(optimizers):
        place /= max(1, len(optimizers) - 1)
        rate = 0.003 * (1 + 3 * place)
        for batch in batches:
            for group in ["untuned", "tuned"] if tuned else ["untuned"]:
                values = accuracies(place * (0.3 if group == "tuned" else 1), batch, seeds)
                if place == 1 and batch == batches[-1] and group == "untuned":
                    values[1] = None
                ours = runs(name, batch, values, group, learning_rate=rate)
                results += ours
                for run in ours:
                    epochs = np.arange(1, EPOCHS + 1)
                    pace = epochs / (1 + np.log2(batch / batches[0]) * (0.2 + place))
                    reached = (run["value"] or 0.5) - 0.6 * np.exp(-pace / 3)
                    losses = 0.5 + 1.8 * np.exp(-pace / 4)
                    curves += curve(run, losses.round(5), reached.round(5))
            for step, factor in enumerate((0.125, 0.25, 0.5, 1, 2, 4, 8)):
                value = 0.99 - 0.01 * (1 + place) * (step - 3) ** 2
                lost = place == 1 and step == 6
                results += runs(
                    name, batch, [None if lost else value], "sweep", learning_rate=rate * factor
                )
            for trial in range(8 if tuned else 0):
                near = rate if trial == 5 else rate * 10 ** random.uniform(-1, 1)
                value = 0.99 - 0.05 * np.log10(near / rate) ** 2 - 0.002 * place
                results += runs(
                    name, batch, [value], "trial", learning_rate=near, trial=trial, seed=1000
                )
    results += runs("lamb", batches[-1], accuracies(0, 16, seeds), "ablation", variant="norm_ord=1")
    tuning = {
        "method": "random",
        "trials": 8,
        "tuning_seed": 1000,
        "space": {name: {"learning_rate": [0.001, 0.01]} for name in optimizers},
        "batch_sizes": list(batches),
    }
    study = info(
        optimizers=list(optimizers),
        batch_sizes=list(batches),
        seeds=list(range(seeds)),
        tuning=tuning if tuned else None,
    )
    return write(folder, study, results, curves)
