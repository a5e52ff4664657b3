"""The steps that are compiled: `train.py`'s own and `fit`'s own, of the reference networks.

`train.prepare` makes network, optimizer and trainer, as for a run. Only the data are others: zeros
of the shapes that the recipe's have, since a step never looks at where its numbers come from.
"""

import dataclasses
from unittest import mock

import tensorflow as tf

import train
from benchmarks.tpu_compile.cases import Data, data_of, map_shapes
from benchmarks.tpu_compile.replica import Slice
from tf_largebatch.data.batches import training_batches
from tf_largebatch.data.source import Splits


@dataclasses.dataclass(frozen=True)
class Zeros:
    """A source (`tf_largebatch.data.source`) of zeros, as many as the longest epoch needs."""

    data: Data

    name, num_examples, parallel_batches, bad_records = "zeros", 2**24, 1, {}

    @property
    def task(self):
        """What would be learnt."""
        return self.data.task

    @property
    def model_arguments(self):
        """What the network must know."""
        return self.data.model_arguments

    def read(self, examples, keys=None):
        """As every source; images weigh 1."""

        def zeros(shape, dtype):
            return tf.zeros((len(examples), *shape), dtype)

        return tuple(map_shapes(zeros, part) for part in self.data[2:])


def load_data(recipe):
    """Zeros in place of what `train.load_data` would read."""
    lengths = recipe.sequence_lengths or (None,)
    sources = {length: Zeros(data_of(recipe, length)) for length in lengths}
    return {length: Splits(source, source) for length, source in sources.items()}


def stage_of(recipe, cores, all_reduce):
    """The first phase of the recipe's run on a slice with its trainer, as train.py makes it."""
    with mock.patch.object(train, "load_data", load_data):
        job = train.prepare(recipe, Slice(cores, all_reduce))
    stage = job.stages[0]
    stage.make_trainer(job.model)
    return stage


def share_of(stage):
    """The `tf.TensorSpec`s of one replica's share of a batch, as the trainer cuts it."""
    size = stage.phase.global_batch_size
    batches = training_batches(
        stage.splits.train, global_batch_size=size, seed=0, total_updates=1, prefetch=0
    )
    return stage.trainer.distribute(batches).element_spec


def trainer_step(stage):
    """What `Trainer` gives to `strategy.run` for an update: (inputs, labels[, weights]) -> loss."""
    return stage.trainer.step.update


def fit_step(stage):
    """What `model.fit` gives to `strategy.run` for a batch: (inputs, labels[, weights]) -> logs."""
    model = stage.trainer.model
    example = tf.nest.map_structure(lambda s: tf.zeros((2, *s.shape[1:]), s.dtype), share_of(stage))
    model._symbolic_build(data_batch=tuple(example))  # as fit does: it makes metrics' variables
    return lambda *batch: model.train_step(batch)


STEPS = {"trainer": trainer_step, "fit": fit_step}


def program(stage, kind):
    """(the function that is a core's part of the step, the specs of its arguments)."""
    specs, step, strategy = share_of(stage), STEPS[kind](stage), stage.trainer.strategy

    def update(*leaves):
        return strategy.run(step, args=tf.nest.pack_sequence_as(specs, leaves))

    return update, tf.nest.flatten(specs)
