"""What Trainer adds to a step over a loop written by hand, and how long steps wait for their data.

    PYTHONPATH=. python benchmarks/step_overhead.py --out docs/results

1. Overhead. The same model, loss, optimizer and data in five ways: `bare`, what one writes by hand,
   a `tf.function` with a gradient tape, the weighted mean of the losses, loss and accuracy as
   metrics in the graph, read after each host call; `bare, no metrics`, which reads the last loss
   alone; `Trainer`; `Trainer, CSV log`, with an epoch's end in each turn (the weights are checked,
   a row is written); Keras' `fit` with `steps_per_execution`, without XLA, as the others.
2. Waits. The time between asking the iterator for a batch and having it, taken within the graph by
   `tf.timestamp`, as a share of the time of the updates: with prefetching as the trainer does it,
   without (each batch is made when it is asked for: the control, which must wait), and with a
   batch that is held in memory. What the last one waits is what asking takes, on a busy machine
   for a free core too; only what goes beyond it is for want of data.

All ways to train live in one process and take turns of a few updates, in a new random order each
round; a ratio is formed within the round, so that what else the machine does weighs on both sides.
Given are the medians over the rounds, with the quartiles, of wall time and of processor time (all
threads), which a busy machine disturbs less. Beside them the number of operations in the graph of a
host call after TensorFlow's optimisation: no clock is in that. The waits are taken one way after
the other, as a pipeline would work ahead in the turns of others.
"""

import argparse
import functools
import os
import pathlib
import tempfile
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import models
from benchmarks import _report
from benchmarks._report import spread
from benchmarks._turns import WARM_UP, Contestant, interval, take_turns
from benchmarks.image_pipeline import write_files
from tf_largebatch import BIAS_AND_NORM, LAMB, data, schedules
from tf_largebatch.data.batches import training_batches
from tf_largebatch.training.callbacks import CSVLogger
from tf_largebatch.training.trainer import Trainer

BAR = 0.03  # of the bare step
WAIT_ROUNDS = 6
SEVERAL = 10  # updates to a host call in the overhead, where it isn't one


class Case:
    """A network with its data.

    Args:
        name: for the tables.
        source: of training examples.
        network, head: the name of the model, and that of its output if it is a dict.
        batch_size: examples an update.
        turn: updates a turn.
        rounds: of the overhead.
        arguments: of the network, beside those that the data give.
    """

    def __init__(self, name, source, network, head, batch_size, turn, rounds, **arguments):
        self.name, self.source, self.head = name, source, head
        self.batch_size, self.turn, self.rounds = batch_size, turn, rounds
        self._build = functools.partial(
            models.build, network, **{**source.model_arguments, **arguments}
        )

    def batches(self, updates, prefetch=tf.data.AUTOTUNE):
        """The batches of so many updates."""
        return training_batches(
            self.source, global_batch_size=self.batch_size, seed=0, total_updates=updates,
            prefetch=prefetch,
        )  # fmt: skip

    def model(self, updates_per_call=1):
        """Compiled, with LAMB under a schedule with a warmup, as `train.py` has it."""
        keras.utils.set_random_seed(0)
        model = self._build()
        rate = schedules.LinearWarmup(schedules.Polynomial(1e-3, 10**6), 1000)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        model.compile(
            LAMB(rate, exclude_from_weight_decay=[BIAS_AND_NORM]),
            {self.head: loss} if self.head else loss,
            weighted_metrics={self.head: metrics} if self.head else metrics,
            steps_per_execution=updates_per_call,
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def trainer(self, updates_per_call, kind=Trainer):
        """A trainer of a new model."""
        inputs, labels = next(iter(self.batches(1)))[:2]
        return kind(
            self.model(updates_per_call), inputs, labels, global_batch_size=self.batch_size,
            updates_per_call=updates_per_call,
        )  # fmt: skip


def by_hand(case, updates_per_call, updates, callback, *, metrics):
    """The reference: what a user writes who needs no more than this."""
    model = case.model()
    optimizer = model.optimizer
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    mean = keras.metrics.Mean(name="loss")
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @tf.function
    def run_updates(iterator, count):
        loss = tf.constant(0.0)
        for _ in tf.range(count):
            x, y, *w = next(iterator)
            y, w = (y[case.head], w[0][case.head]) if case.head else (y, None)
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                outputs = outputs[case.head] if case.head else outputs
                losses = loss_of(y, outputs)
                if w is None:
                    loss = tf.reduce_mean(losses)
                else:
                    loss = tf.reduce_sum(losses * w) / tf.reduce_sum(w)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            if metrics:
                mean.update_state(loss)
                accuracy.update_state(y, outputs, sample_weight=w)
        return loss

    iterator, count = iter(case.batches(updates)), tf.constant(updates_per_call)
    for call in range(updates // updates_per_call):
        loss = run_updates(iterator, count)
        logs = {m.name: float(m.result()) for m in (mean, accuracy)} if metrics else float(loss)
        callback.on_train_batch_end(call, logs)


def by_trainer(case, updates_per_call, updates, callback, *, log=None):
    """Trainer, and perhaps with a log and epochs as long as a turn."""
    trainer = case.trainer(updates_per_call)
    trainer.fit(
        case.batches(updates),
        num_examples=(case.turn if log else updates) * case.batch_size,
        total_updates=updates, callbacks=[*([CSVLogger(log)] if log else []), callback], verbose=0,
    )  # fmt: skip


def by_keras(case, updates_per_call, updates, callback):
    """Keras' fit."""
    case.model(updates_per_call).fit(
        case.batches(updates), steps_per_epoch=updates, shuffle=False, callbacks=[callback],
        verbose=0,
    )  # fmt: skip


class Watched(Trainer):
    """A trainer that takes the time in which its updates wait for their batches."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.waited_s = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.prefetches = True

    def distribute(self, batches):
        """As every trainer, if it prefetches, with a watch at the iterator."""
        return _Watch(super().distribute(batches) if self.prefetches else batches, self.waited_s)


class _Watch:
    """An iterator, or the dataset of one, that adds the time for which it is waited to a sum."""

    def __init__(self, batches, waited_s):
        self._batches, self._waited_s = batches, waited_s

    def __iter__(self):
        return _Watch(iter(self._batches), self._waited_s)

    def __next__(self):
        asked_at = tf.timestamp()
        with tf.control_dependencies([asked_at]):
            batch = self._batches.get_next()
        with tf.control_dependencies(tf.nest.flatten(batch)):
            self._waited_s.assign_add(tf.timestamp() - asked_at)
        return batch


def watched(case, updates, prefetch):
    """A contestant whose waits are known; prefetch None: one batch is held in memory."""
    trainer = case.trainer(case.turn, Watched)
    trainer.prefetches = prefetch != 0
    if prefetch is None:
        batches = case.batches(1).cache().repeat()
    else:
        batches = case.batches(updates, prefetch)

    def loop(callback):
        trainer.fit(
            batches, num_examples=updates * case.batch_size, total_updates=updates,
            callbacks=[callback], verbose=0,
        )  # fmt: skip

    return Contestant(loop, 1, lambda: float(trainer.waited_s))


def overhead(case, updates_per_call, rounds, folder):
    """The times and operations of the ways to train."""
    log = os.path.join(folder, f"{case.name}-{updates_per_call}.csv")
    ways = {
        "bare": functools.partial(by_hand, metrics=True),
        "bare, no metrics": functools.partial(by_hand, metrics=False),
        "Trainer": by_trainer,
        "Trainer, CSV log": functools.partial(by_trainer, log=log),
        "Keras' fit": by_keras,
    }
    updates = (rounds + WARM_UP) * case.turn
    contestants = {
        name: Contestant(
            functools.partial(way, case, updates_per_call, updates), case.turn // updates_per_call
        )
        for name, way in ways.items()
    }
    return take_turns(contestants, rounds)


def waits(case, rounds):
    """The times of the ways to feed the step, {name: (rounds, 3)}."""
    updates = (rounds + WARM_UP) * case.turn
    kinds = {"prefetched": tf.data.AUTOTUNE, "not prefetched": 0, "held in memory": None}
    # One after the other: in the turns of others, batches would be made ahead.
    return {
        name: take_turns({name: watched(case, updates, prefetch)}, rounds)[0][name]
        for name, prefetch in kinds.items()
    }


def _over(times, others):
    """(rounds, 2): the ratios of wall and of processor time."""
    return times[:, :2] / others[:, :2]


def judged(low, high):
    """What an interval says about the bar."""
    if low < BAR <= high:
        return f"on which side of {BAR:.0%} isn't settled"
    return f"{'below' if high < BAR else 'above'} {BAR:.0%}"


def overhead_section(case, updates_per_call, found, counts):
    """What was measured, in Markdown."""
    rows = []
    for name, times in found.items():
        ratios, lean = _over(times, found["bare"]), _over(times, found["bare, no metrics"])
        each_ms = np.median(times[:, 1]) / case.turn * 1e3
        spreads = [spread(r, 3) for r in (ratios[:, 1], ratios[:, 0], lean[:, 1])]
        rows.append([name, f"{each_ms:.2f}", *spreads, f"{counts[name]:,}"])
    columns = [
        "", "processor ms an update", "processor time over bare", "wall time over bare",
        "processor time over bare, no metrics", "operations",
    ]  # fmt: skip
    said = []
    ratios = _over(found["Trainer"], found["bare"])
    ends_ms = np.median(found["Trainer, CSV log"] - found["Trainer"], axis=0) * 1e3
    for clock, column in (("processor", 1), ("wall", 0)):
        added, (low, high) = np.median(ratios[:, column]) - 1, interval(ratios[:, column])
        said.append(
            f"In {clock} time Trainer adds {added:.1%} (95 % interval of the median {low - 1:.1%} "
            f"to {high - 1:.1%}): {judged(low - 1, high - 1)}. An epoch's end takes "
            f"{ends_ms[column]:.1f} ms more."
        )
    title = (
        f"{case.name}, batch {case.batch_size}, {updates_per_call} to a host call, {case.turn} a "
        f"turn, {len(ratios)} rounds"
    )
    return "\n\n".join([title, _report.table(columns, rows), *said])


def waits_section(cases):
    """What was measured, in Markdown."""
    rows = []
    for case, found in cases:
        for name, times in found.items():
            wall, processor, waited = (times / case.turn * 1e3).T
            rows.append(
                [f"{case.name}, batch {case.batch_size}", name, spread(100 * waited / wall),
                 *(spread(ms) for ms in (waited, wall, processor))]
            )  # fmt: skip
    columns = [
        "", "", "waits for data, % of the time", "waits, ms an update", "wall ms an update",
        "processor ms an update",
    ]  # fmt: skip
    return _report.table(columns, rows)


def csv_text(times):
    """The seconds of each turn."""
    lines = ["case,way,round,updates,wall_s,processor_s,waited_s"]
    for case, way, turns in times:
        for number, turn in enumerate(turns):
            seconds = ",".join(f"{s:.6f}" for s in turn)
            lines.append(f'"{case.name}","{way}",{number},{case.turn},{seconds}')
    return "\n".join(lines) + "\n"


def main():
    """Runs all, prints the tables, writes them and the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=float, default=1.0, help="in times of the usual number")
    names = ["lenet", "bert_tiny", "jpeg"]
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=pathlib.Path, help="folder for step_overhead.md and .csv")
    arguments = parser.parse_args()

    def rounds(usual):
        return max(2, round(usual * arguments.rounds))

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, 256, quality=95)
        digits = data.load("digits").train
        text = data.load("english", sequence_length=128, next_sentence=False).train
        jpegs = data.load("image_folder", folder, image_size=224, augmentation="heavy").train
        cases = {
            "lenet": Case("LeNet-5, digits", digits, "lenet5", None, 256, 20, 40),
            "bert_tiny": Case(
                "BERT-tiny, masked words, length 128", text, "bert_tiny", "masked_lm", 8, 10, 12,
                vocabulary_size=30522,
            ),
            "jpeg": Case("AlexNet-BN, JPEGs, 224x224", jpegs, "alexnet_bn", None, 32, 4, 0),
        }  # fmt: skip
        cases = {name: cases[name] for name in arguments.cases}
        times, sections, watched_cases = [], [], []
        for name, case in cases.items():
            for n in (SEVERAL, 1) if name != "jpeg" else ():
                found, counts = overhead(case, n, rounds(case.rounds), folder)
                sections.append(overhead_section(case, n, found, counts))
                print(sections[-1], flush=True)
                times += [(case, f"{way}, {n} a call", turns) for way, turns in found.items()]
        for case in cases.values():
            watched_cases.append((case, waits(case, rounds(WAIT_ROUNDS))))
            print(waits_section(watched_cases[-1:]), flush=True)
            times += [(case, f"waits, {way}", turns) for way, turns in watched_cases[-1][1].items()]
    text = "\n\n".join(
        [
            "# What the trainer adds to a step", __doc__.split("\n\n", 2)[2].strip(),
            "## Overhead", *sections, f"## Waits, {rounds(WAIT_ROUNDS)} rounds",
            waits_section(watched_cases), "## Where", _report.provenance(),
            f"{time.perf_counter() - began:.0f} s in all; every turn: `step_overhead.csv`.",
        ]
    )  # fmt: skip
    if arguments.out:
        _report.write(arguments.out / "step_overhead.md", text + "\n")
        _report.write(arguments.out / "step_overhead.csv", csv_text(times))


if __name__ == "__main__":
    main()
