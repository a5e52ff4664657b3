"""One process of benchmarks/scaling.py: it measures what it is asked for, line by line.

    python benchmarks/_scaling_job.py '{"kind": "training", ...}'

It writes the names of what it can measure as a line of JSON once all of it has run, and for each
name that it then reads the seconds of an update, by the clock and of processor time.
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import models
from tf_largebatch import BIAS_AND_NORM, LAMB, LARS, data
from tf_largebatch.data.batches import training_batches
from tf_largebatch.training.strategy import make_strategy
from tf_largebatch.training.trainer import Trainer

WARM = 1  # updates of a measurement that aren't timed: iterators are made in them
OPTIMIZERS = {
    "LAMB": lambda: LAMB(1e-3, exclude_from_weight_decay=[BIAS_AND_NORM]),
    "LARS": lambda: LARS(0.1, exclude_from_weight_decay=[BIAS_AND_NORM]),
    "keras Lamb": lambda: keras.optimizers.Lamb(1e-3),
}


class _Ends(keras.callbacks.Callback):
    """The clocks when the host calls ended."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        """Notes the time."""
        self.times.append(clocks())


def clocks():
    """(wall, processor) time in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def training(strategy, global_batch_size, updates):
    """A function that trains LeNet-5 for so many updates and returns the seconds of one."""
    source = data.load("digits").train
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = models.build("lenet5", input_shape=(28, 28, 1), num_classes=10)
        model.compile(
            LAMB(1e-3, exclude_from_weight_decay=[BIAS_AND_NORM]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.optimizer.build(model.trainable_variables)
    trainer = Trainer(
        model, source.images, source.labels, global_batch_size=global_batch_size,
        updates_per_call=updates,
    )  # fmt: skip
    total = WARM + updates

    def batches(pipeline, pipelines):
        return training_batches(
            source, global_batch_size=global_batch_size, seed=0, total_updates=total,
            pipeline=pipeline, num_pipelines=pipelines,
        )  # fmt: skip

    def measure():
        ends = _Ends()
        trainer.fit(
            batches, num_examples=total * global_batch_size, total_updates=total, cuts=[WARM],
            callbacks=[ends], verbose=0,
        )  # fmt: skip
        return (ends.times[-1] - ends.times[0]) / updates

    return measure


def optimizer_step(make, width, updates):
    """A function that updates four dense layers of this width; returns seconds of one update."""
    random = np.random.default_rng(0)
    arrays = [
        random.standard_normal(shape, dtype="float32") * np.float32(0.02)
        for shape in [(width, width), (width,)] * 4
    ]
    variables = [keras.Variable(a, name="kernel" if a.ndim > 1 else "bias") for a in arrays]
    gradients = [tf.constant(a) for a in arrays]
    optimizer = make()
    optimizer.build(variables)

    @tf.function
    def step():
        optimizer.apply(gradients, variables)

    def measure():
        began = clocks()
        for _ in range(updates):
            step()
        return (clocks() - began) / updates

    return measure


def measures(job):
    """{name: function that returns (wall, processor) seconds} of a job of scaling.py."""
    if job["kind"] == "parameters":
        return {
            f"{name} {width}": optimizer_step(make, width, updates)
            for width, updates in job["widths"]
            for name, make in OPTIMIZERS.items()
        }
    if job["workers"]:
        strategy = make_strategy(
            "multi_worker", workers=job["workers"], worker_index=job["worker_index"]
        )
    elif job["replicas"] > 1:
        strategy = make_strategy("mirrored", num_replicas=job["replicas"])
    else:
        strategy = make_strategy("one_device")
    return {name: training(strategy, *sizes) for name, sizes in job["trainings"].items()}


def main():
    """Warms up, then serves."""
    found = measures(json.loads(sys.argv[1]))
    for measure in found.values():
        measure()
    print(json.dumps(list(found)), flush=True)
    for line in sys.stdin:
        print(json.dumps(found[line.strip()]().tolist()), flush=True)


if __name__ == "__main__":
    main()
