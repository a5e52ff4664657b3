"""Sequences a second that masking alone and the whole pipeline of pre-training deliver.

    python benchmarks/masking.py                     some minutes on two cores
    python benchmarks/masking.py --data=topics --rounds=5

Each round runs every line once; printed is the median over the rounds, with the quartiles, on the
clock and in processor time, which a busy machine disturbs less. The first batches, in which
TensorFlow makes its graphs and tunes its threads, aren't counted.

1. `tf_largebatch.data.masking.masked` alone, on a batch that lies in memory, one after the other.
2. `training_batches` of the embedded data: order, gathering, masking, labels and weights.
"""

import argparse
import os
import platform
import statistics
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tf_largebatch import data
from tf_largebatch.data.batches import training_batches
from tf_largebatch.data.masking import masked

WARM_UP = 8  # batches


def masking_alone(source, batch_size, updates):
    """Batches of masks of the same token ids, each with other keys."""
    ids = np.resize(source.tokens.ids, (batch_size, source.options.sequence_length))
    ids = tf.constant(ids, tf.int32)

    def batch(number):
        keys = tf.bitcast(number * batch_size + tf.range(batch_size, dtype=tf.int64), tf.int32)
        options = source.options
        return masked(
            ids,
            keys,
            vocabulary=source.tokenizer,
            max_predictions=options.max_predictions,
            whole_word=options.whole_word,
        )

    return tf.data.Dataset.range(updates).map(batch, num_parallel_calls=tf.data.AUTOTUNE)


def rates(batches, batch_size):
    """Sequences a second, on the clock and of all cores' time."""
    iterator, sequences = iter(batches), 0
    for _ in range(WARM_UP):
        next(iterator)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in iterator:
        sequences += batch_size
    return sequences / (time.perf_counter() - wall), sequences / (time.process_time() - cpu)


def spread(values):
    """The median and the quartiles."""
    low, _, high = np.percentile(values, (25, 50, 75))
    return f"{statistics.median(values):9,.0f} ({low:9,.0f} - {high:9,.0f})"


def processor():
    """The model's name, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main():
    """Measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="english", help="topics or english")
    parser.add_argument("--batch_size", type=int, default=512, help="sequences")
    parser.add_argument("--sequences", type=int, default=65_536, help="measured in a round")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    size = arguments.batch_size
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}; {arguments.data}, batches of {size}, "
        f"{arguments.rounds} rounds of {arguments.sequences:,} sequences of 128 (of 512: a quarter)"
    )
    lines = {}
    for length, share in ((128, 1), (512, 4)):
        updates = WARM_UP + max(4, arguments.sequences // share // size)
        for whole_word in (False, True):
            source = data.load(arguments.data, sequence_length=length, whole_word=whole_word).train
            train = {"global_batch_size": min(size, source.num_examples), "seed": 0}
            name = f"{length}, {'whole words' if whole_word else 'tokens'}"
            lines[f"masking alone, {name}"] = lambda source=source, updates=updates: (
                masking_alone(source, size, updates),
                size,
            )
            lines[f"pipeline, {name}"] = lambda source=source, updates=updates, train=train: (
                training_batches(source, total_updates=updates, **train),
                train["global_batch_size"],
            )
    found = {name: [] for name in lines}
    for _ in range(arguments.rounds):
        for name, make in lines.items():
            found[name].append(rates(*make()))
    print(f"{'sequences a second':34}{'on the clock':^36}{'for each core second':^36}")
    for name, values in found.items():
        print(f"{name:34}{'  '.join(spread(column) for column in zip(*values, strict=True))}")


if __name__ == "__main__":
    main()
