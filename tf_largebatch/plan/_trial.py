"""One micro-batch size, measured: a process that reads its order from stdin, JSON, and answers so.

The step is the trainer's own, on numbers that are made up: the time doesn't depend on them.
"""

import contextlib
import json
import statistics
import sys
import time

import keras
import numpy as np

from tf_largebatch.data.batches import training_batches
from tf_largebatch.losses import SmoothedCrossEntropy
from tf_largebatch.plan._model import ModelSpec, build, input_lengths
from tf_largebatch.recipes import Recipe
from tf_largebatch.training import from_recipe
from tf_largebatch.training.strategy import make_strategy
from tf_largebatch.training.trainer import Trainer

CALL_SECONDS = 0.5  # of updates to one host call, about
TIMED_CALLS = 3  # the median of them counts
_ROWS = 16  # different examples
_LEARNING_RATE = 1e-6  # nothing shall diverge


class Synthetic:
    """A source of made-up examples for a model (`tf_largebatch.data.source`).

    Args:
        model: a functional model with one output, or a dict of them.
        sequence_length: the length of inputs that leave it open, or None.

    Raises:
        ValueError: if the outputs are others.
    """

    name, task, num_examples, parallel_batches = "synthetic", "classification", 2**30, -1

    def __init__(self, model, sequence_length):
        lengths = input_lengths(model, sequence_length) or {}
        random = np.random.default_rng(0)
        inputs = {}
        for x in model.inputs:
            shape = (_ROWS, *(lengths[x.name] if n is None else n for n in x.shape[1:]))
            floats = "float" in x.dtype
            # 1 is a token, a place, and "present" in a mask.
            made = random.normal(size=shape) if floats else np.ones(shape)
            inputs[x.name] = made.astype("float32" if floats else "int32")
        named = not isinstance(model, keras.Sequential) and isinstance(model.input, dict)
        self.inputs = inputs if named else next(iter(inputs.values()))
        if len(inputs) > 1 and not named:
            raise ValueError("A model with several inputs must take them as a dict.")
        shapes = keras.tree.map_structure(
            lambda x: keras.KerasTensor((1, *x.shape[1:]), str(x.dtype)), self.inputs
        )
        outputs = model.compute_output_spec(shapes)
        if isinstance(outputs, list | tuple):
            raise ValueError("A model with several outputs must give them as a dict.")
        self.labels = keras.tree.map_structure(_labels, outputs)
        self.losses = keras.tree.map_structure(_loss, outputs)

    def read(self, examples, keys=None):
        """As every source: rows of the tables, in a circle."""
        inputs, labels = keras.tree.map_structure(
            lambda table: keras.ops.take(table, examples % _ROWS, axis=0),
            (self.inputs, self.labels),
        )
        return inputs, labels, keras.ops.ones(examples.shape)


def _labels(output):
    """Class 0 everywhere; of an output of one number, 0."""
    if output.shape[-1] > 1:
        return np.zeros((_ROWS, *output.shape[1:-1]), "int32")
    return np.zeros((_ROWS, *output.shape[1:]), "float32")


def _loss(output):
    return SmoothedCrossEntropy() if output.shape[-1] > 1 else keras.losses.MeanSquaredError()


class Stopwatch(keras.callbacks.Callback):
    """The seconds of each host call."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        """Starts."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stops: the logs have been fetched, so the updates are done."""
        self.seconds.append(time.perf_counter() - self._start)


def seconds_per_update(model, source, micro_batch_size, *, jit=False):
    """The median time of an update of one micro-batch, after the first calls."""
    inputs, labels = keras.tree.map_structure(lambda table: table[:1], (source.inputs,
                                                                        source.labels))  # fmt: skip
    trainer = Trainer(
        model, inputs, labels, global_batch_size=micro_batch_size, updates_per_call=1, jit=jit
    )

    def calls(count, updates):
        watch, trainer.updates_per_call = Stopwatch(), updates
        batches = training_batches(
            source, global_batch_size=micro_batch_size, seed=0, total_updates=count * updates
        )
        trainer.fit(
            batches, num_examples=source.num_examples, total_updates=count * updates,
            callbacks=[watch], verbose=0,
        )  # fmt: skip
        return [seconds / updates for seconds in watch.seconds[1:]]  # the first one also traces

    updates = max(1, min(200, int(CALL_SECONDS / min(calls(3, 1)))))
    return statistics.median(calls(1 + TIMED_CALLS, updates))


def limit_memory(gib):
    """Lets this process take so much address space more than it holds now."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + int(gib * 2**30),) * 2)


def main():
    """Reads the order, measures, prints the answer as the last line."""
    order = json.load(sys.stdin)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, this process is the one to be ended
    with make_strategy("one_device").scope():
        model = build(ModelSpec(**order["model"]))
        source = Synthetic(model, order["sequence_length"])
        recipe = Recipe(optimizer=order["optimizer"], learning_rate=_LEARNING_RATE)
        optimizer = from_recipe.optimizer(recipe, _LEARNING_RATE, model.trainable_variables)
        model.compile(optimizer=optimizer, loss=source.losses)
    if order["memory_limit_gib"] is not None:
        limit_memory(order["memory_limit_gib"])
    seconds = seconds_per_update(model, source, order["micro_batch_size"], jit=order["jit"])
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
