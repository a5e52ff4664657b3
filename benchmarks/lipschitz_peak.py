"""Where the local Lipschitz constant L(x, g) peaks as batches grow: the thesis's Figure 6.1.

Trains the LSTM of `mnist_lstm_legw` on scikit-learn's digits, 1,437 to train on, with batches in
the ratio of the thesis's 512, 1K, 2K and 4K, and follows L(x, g) on one fixed batch of them. The
thesis doesn't print how its learning rate went, so there are two ways, with the recipe's SGD:

- fixed: one rate for all batches, the recipe's at 256, without warmup or decay;
- rule: the recipe's square-root rule and LEGW, whose warmup is as many updates for every batch (as
  many as on MNIST: on the digits its epochs would be 2 updates), then down to zero.

L jumps from look to look: the peak is that of its median over 5 looks, and beside it that of its
mean, in which single jumps count. Prints the peaks' updates and epochs against the batch, and the p
of  update ~ batch^p: 1 if the peak moves right in proportion to the batch, 0 if it stays.

    PYTHONPATH=. .venv/bin/python benchmarks/lipschitz_peak.py --seeds 3 --out docs/results
"""

import argparse
import csv
import os
import pathlib
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import train
from tf_largebatch import plots, recipes
from tf_largebatch.diagnostics.curvature import LocalLipschitz
from tf_largebatch.scaling import epochs_to_updates
from tf_largebatch.training.strategy import make_strategy

BATCHES = (32, 64, 128, 256)
MNIST_EXAMPLES = 60_000
PROBE_EXAMPLES = 64
WINDOW = 5  # looks


def variants(updates):
    """Functions from the batch size to the recipe of each way."""
    table = recipes.load("mnist_lstm_legw")
    base = table.rows[0].recipe
    warmup_updates = epochs_to_updates(
        base.warmup_epochs, num_examples=MNIST_EXAMPLES, batch_size=base.global_batch_size
    )
    on_digits = {
        "data": "digits", "epochs": None, "total_updates": updates, "warmup_epochs": None,
        "steps_per_loop": 1,
    }  # fmt: skip
    return {
        "fixed": lambda batch: base.replace(
            global_batch_size=batch, schedule="constant", **on_digits
        ),
        "rule": lambda batch: table.row(batch).recipe.replace(
            warmup_updates=warmup_updates, **on_digits
        ),
    }


def run(recipe, every):
    """[(update, L)], the looks of one run, and the number of training examples."""
    keras.backend.clear_session()
    job = train.prepare(recipe, make_strategy("one_device"))
    stage = job.stages[0]
    stage.make_trainer(job.model)
    digits = stage.splits.train
    probe = LocalLipschitz(
        digits.images[:PROBE_EXAMPLES], digits.labels[:PROBE_EXAMPLES], every=every
    )
    stage.fit(0, callbacks=[probe], verbose=0)
    return probe.values, digits.num_examples


def smoothed(looks, average):
    """The average over `WINDOW` values of L around each look, over fewer at the ends."""
    half, values = WINDOW // 2, [value for _, value in looks]
    return np.array([average(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def exponent(peaks):
    """The slope of log(update) against log(batch), through all runs."""
    points = np.log([(batch, update) for batch, found in peaks.items() for update in found])
    return np.polyfit(points[:, 0], points[:, 1], 1)[0]


def described(values):
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.2g}"


def print_peaks(looks, average, num_examples):
    """The table of the peaks and how they go with the batch."""
    print("| | batch | peak of L | its update | its epoch |\n|---|---|---|---|---|")
    found = {}
    for (name, batch), runs in looks.items():
        curves = [smoothed(run, average) for run in runs]
        updates = [run[curve.argmax()][0] for run, curve in zip(runs, curves, strict=True)]
        found.setdefault(name, {})[batch] = updates
        columns = [[curve.max() for curve in curves], updates]
        columns.append([update * batch / num_examples for update in updates])
        print(f"| {name} | {batch} | " + " | ".join(map(described, columns)) + " |")
    for name, peaks in found.items():
        print(f"{name}: the peak's update goes as batch^{exponent(peaks):.2f}")


def plot(looks, num_examples, path):
    """L against updates and epochs, a row a way, a line a batch: the mean of seeds' medians."""
    names = list(dict.fromkeys(name for name, _ in looks))
    with plots.figure(rows=len(names), columns=2, height=2.9) as (figure, axes):
        for row, name in zip(axes, names, strict=True):
            for number, batch in enumerate(BATCHES):
                updates = np.array([update for update, _ in looks[name, batch][0]])
                mean = np.mean([smoothed(run, np.median) for run in looks[name, batch]], axis=0)
                style = plots.line_style(number)
                peak = int(mean.argmax())
                for axis, x in zip(row, (updates, updates * batch / num_examples), strict=True):
                    axis.plot(x, mean, label=f"batch {batch}", markevery=[], **style)
                    axis.plot(x[peak], mean[peak], **style, markersize=9)
            for axis, unit in zip(row, ("updates", "epochs (log scale)"), strict=True):
                axis.set_xlabel(unit)
                axis.set_ylabel("L(x, g) of the probe batch")
                axis.set_title(f"{name}: peaks marked")
            row[1].set_xscale("log")
            row[1].legend(loc="upper left")
        plots.save(figure, path)


def main():
    """Runs all, prints the tables, writes CSV and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="at least 2; seeds 0 to this less 1")
    parser.add_argument("--updates", type=int, default=200, help="of each run")
    parser.add_argument("--every", type=int, default=4, help="updates from look to look")
    parser.add_argument("--out", type=pathlib.Path, help="folder for lipschitz_peak.csv and .png")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, for a deviation.")
    looks, rows, num_examples, began = {}, [], None, time.perf_counter()
    for name, recipe_of in variants(arguments.updates).items():
        for batch in BATCHES:
            for seed in range(arguments.seeds):
                values, num_examples = run(recipe_of(batch).replace(seed=seed), arguments.every)
                looks.setdefault((name, batch), []).append(values)
                rows += [(name, batch, seed, update, f"{value:.6g}") for update, value in values]
            seconds = time.perf_counter() - began
            print(f"{name}, batch {batch}: done after {seconds:.0f} s", flush=True)
    print(
        f"\nTensorFlow {tf.__version__}, Keras {keras.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores; {arguments.seeds} seeds, {arguments.updates} updates."
    )
    for average in (np.median, np.mean):
        print(f"\nL is the {average.__name__} of {WINDOW} looks.")
        print_peaks(looks, average, num_examples)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / "lipschitz_peak.csv"
        with open(path.with_suffix(".tmp"), "w", newline="") as file:
            header = ("way", "batch", "seed", "update", "local_lipschitz")
            csv.writer(file).writerows([header, *rows])
        path.with_suffix(".tmp").replace(path)
        plot(looks, num_examples, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
