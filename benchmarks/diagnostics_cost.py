"""What looking costs: the time of an update with diagnostics, in relation to that without.

Trains LeNet-5 on images of noise and `bert_tiny` on random tokens with LAMB in the Trainer, each
as it is, with `LayerNorms`, and with `NoiseScale`, at every update and at every 50th. The kinds
take turns within one run, so that what else the machine does meets all of them alike; given is the
median over rounds of the ratio of their times. Where others use the machine too, the CPU time says
more than the wall time. Without diagnostics a host call runs all updates;
what the shorter calls cost that a look asks for is part of the cost.

    PYTHONPATH=. .venv/bin/python benchmarks/diagnostics_cost.py --rounds 9
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import models
from tf_largebatch import BIAS_AND_NORM, LAMB
from tf_largebatch.diagnostics import LayerNorms, NoiseScale
from tf_largebatch.training.trainer import Trainer

UPDATES = 100  # timed of one kind in a round: two looks at every=50
WARM = 1  # not timed: the first host call, in which functions are traced
KINDS = {
    "LayerNorms, every=1": lambda: LayerNorms(every=1),
    "LayerNorms, every=50": lambda: LayerNorms(every=50),
    "NoiseScale, every=1": lambda: NoiseScale(every=1),
    "NoiseScale, every=50": lambda: NoiseScale(every=50),
}


class _Timed(keras.callbacks.Callback):
    """The time from the end of the first host call to the end of the last one."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        """Notes the time."""
        self.ends.append((time.perf_counter(), time.process_time()))


def lenet():
    """A built model and a batch of 256 in micro-batches of 128."""
    random = np.random.default_rng(0)
    model = models.build("lenet5", input_shape=(28, 28, 1), num_classes=10)
    x = random.normal(size=(256, 28, 28, 1)).astype("float32")
    return model, x, random.integers(0, 10, 256), 128


def bert_tiny():
    """A built model and a batch of 16 sequences of 128 tokens in micro-batches of 8."""
    random = np.random.default_rng(0)
    model = models.build("bert_tiny", vocabulary_size=8192)
    tokens = random.integers(5, 8192, (16, 128))
    ones = np.ones_like(tokens)
    positions = np.tile(np.arange(1, 21), (16, 1))
    x = {
        "token_ids": tokens, "segment_ids": 0 * ones, "padding_mask": ones,
        "mask_positions": positions,
    }  # fmt: skip
    x = {name: a.astype("int32") for name, a in x.items()}
    return model, x, {"masked_lm": random.integers(5, 8192, (16, 20))}, 8


def trainer_of(make):
    """A trainer of one device, and its data."""
    model, x, y, micro_batch_size = make()
    several = isinstance(y, dict)
    losses = {
        name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for name in (y if several else [""])
    }
    model.compile(
        LAMB(1e-4, exclude_from_weight_decay=[BIAS_AND_NORM]), losses if several else losses[""]
    )
    model.optimizer.build(model.trainable_variables)
    size = len(tf.nest.flatten(y)[0])
    trainer = Trainer(
        model, x, y, global_batch_size=size, micro_batch_size=micro_batch_size,
        updates_per_call=UPDATES,
    )  # fmt: skip
    return trainer, tf.data.Dataset.from_tensors((x, y)).cache().repeat(), size


def seconds(trainer, batches, size, callbacks, updates):
    """(wall, CPU) time of so many updates, after the first call with its tracing."""
    timed = _Timed()
    trainer.fit(
        batches, num_examples=10**9 * size, total_updates=WARM + updates, cuts=[WARM],
        callbacks=[*callbacks, timed], verbose=0,
    )  # fmt: skip
    return np.subtract(timed.ends[-1], timed.ends[0])


def main():
    """Runs the rounds, and prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", default=["lenet", "bert_tiny"])
    arguments = parser.parse_args()
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} CPU cores, "
        f"{len(tf.config.list_physical_devices('GPU'))} GPUs, {arguments.rounds} rounds"
    )
    makers = {"lenet": lenet, "bert_tiny": bert_tiny}
    for name in arguments.models:
        job = trainer_of(makers[name])
        found = {}
        for _ in range(arguments.rounds):
            plain = seconds(*job, [], UPDATES)
            found.setdefault("plain", []).append(plain)
            for kind, callback in KINDS.items():
                found.setdefault(kind, []).append(seconds(*job, [callback()], UPDATES) / plain)
        plain, *ratios = found.items()
        for column, clock in enumerate(("wall time", "CPU time")):
            base = 1e3 * statistics.median(times[column] for times in plain[1]) / UPDATES
            print(f"{name}: {base:.2f} ms of {clock} an update without")
            for kind, found in ratios:
                values = [ratio[column] for ratio in found]
                spread = f"from {min(values):.3f} to {max(values):.3f}"
                print(f"  {kind:24} {statistics.median(values):.3f} times that ({spread})")


if __name__ == "__main__":
    main()
