"""What warming up again does where a BERT run goes from length 128 to 512 with half the batch.

Runs the small run of `bert_lamb_mixed` (a two-layer BERT on text that packages carry, one
optimizer through both phases) with each seed in three ways, which differ in the second phase's
learning rate alone:

- rewarmup: from zero to the phase's peak, then down to zero, as the recipe says;
- jump: at the phase's peak at once, then down to zero;
- through: one schedule for the whole run, decaying on where the first phase was.

Prints the training loss around the switch, the held-out perplexity of masked tokens before and
after the second phase, and their means and deviations over seeds, and writes all losses as CSV.

    PYTHONPATH=. .venv/bin/python benchmarks/rewarmup.py --seeds 5 --out docs/results
"""

import argparse
import csv
import math
import os
import pathlib
import platform
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import train
from tf_largebatch import recipes
from tf_largebatch.training.strategy import make_strategy

NAME = "bert_lamb_mixed"


def variants(recipe):
    """The recipe, and its two changes."""
    first, second = recipe.phase_warmup_updates[0], recipe.phase_learning_rates
    return {
        "rewarmup": recipe,
        "jump": recipe.replace(phase_warmup_updates=(first, 0), phase_learning_rates=second),
        "through": recipe.replace(phase_warmup_updates=(), phase_learning_rates=()),
    }


class Losses(keras.callbacks.Callback):
    """The loss of each update, from the mean since the epoch began."""

    def __init__(self):
        super().__init__()
        self.losses, self._sum, self._count = [], 0.0, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Forgets the mean."""
        self._sum, self._count = 0.0, 0

    def on_train_batch_end(self, batch, logs=None):
        """The new mean less the old one's part."""
        self._count += 1
        total = logs["loss"] * self._count
        self.losses.append(total - self._sum)
        self._sum = total


def run(recipe):
    """(losses of all updates, held-out perplexity before and after the second phase)."""
    keras.backend.clear_session()
    job = train.prepare(recipe, make_strategy("one_device"))
    second = job.stages[1]
    for stage in job.stages:
        stage.make_trainer(job.model)
    losses, updates, before = Losses(), 0, None
    for stage in job.stages:
        if stage is second:  # on the data of length 512, with what was learnt at 128
            before = stage.evaluate()
        updates = stage.fit(updates, callbacks=[losses], verbose=0)
    after = second.evaluate()
    return losses.losses, *(math.exp(e["masked_lm_cross_entropy"]) for e in (before, after))


def described(values):
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main():
    """Runs all, prints the table, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2; seeds 0 to this less 1")
    parser.add_argument("--out", type=pathlib.Path, help="folder for rewarmup.csv")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2, for a deviation.")
    base = recipes.load(NAME).smoke_run().recipe.replace(steps_per_loop=1)
    table, rows = {}, []
    for name, recipe in variants(base).items():
        for seed in range(arguments.seeds):
            losses, before, after = run(recipe.replace(seed=seed))
            table.setdefault(name, []).append((losses, before, after))
            rows += [(name, seed, update, f"{loss:.6f}") for update, loss in enumerate(losses)]
            print(f"{name} seed {seed}: perplexity {before:.2f} -> {after:.2f}", flush=True)
    switch = round(base.total_updates * base.phase_proportions[0] / sum(base.phase_proportions))
    print(
        f"\nTensorFlow {tf.__version__}, Keras {keras.__version__}, {platform.machine()}, "
        f"{os.cpu_count()} cores; {arguments.seeds} seeds; the switch is before update {switch}."
    )
    places = {
        "loss, 5 updates before": slice(switch - 5, switch),
        "loss, first 5 after": slice(switch, switch + 5),
        "loss, last 5": slice(-5, None),
    }
    columns = [*places, "perplexity at the switch", "perplexity at the end"]
    print("| | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, runs in table.items():
        cells = [
            described([statistics.mean(losses[place]) for losses, _, _ in runs])
            for place in places.values()
        ]
        cells += [described([r[1] for r in runs]), described([r[2] for r in runs])]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / "rewarmup.csv"
        with open(path.with_suffix(".tmp"), "w", newline="") as file:
            csv.writer(file).writerows([("variant", "seed", "update", "loss"), *rows])
        path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    main()
