"""One phase of a run at work: its data, its trainer, its evaluation."""

import functools

import numpy as np
import tensorflow as tf

from tf_largebatch.data.batches import evaluation_batches, training_batches
from tf_largebatch.training import tasks
from tf_largebatch.training.trainer import Trainer


class Stage:
    """A phase of a recipe's run with the data of its sequence length.

    Args:
        recipe: the `Recipe`.
        phase: `from_recipe.Phase`.
        splits: the data.
        output_names: of the model.
        start_epoch: the epochs of the phases before.

    Attributes:
        end_epoch: the epochs up to the end of this phase, the last one perhaps cut short.
        metric: the name in the logs of what the best model is best at.

    Raises:
        ValueError: if the data can't be batched so.
    """

    def __init__(self, recipe, phase, splits, output_names=("logits",), start_epoch=0):
        self.recipe, self.phase = recipe, phase
        self.splits = tasks.splits_for(splits, output_names)
        self.metric = tasks.metric_of(splits.test.task, output_names)
        last = (phase.end_update - 1 - phase.start_update) * phase.global_batch_size
        self.start_epoch = start_epoch
        self.end_epoch = start_epoch + last // splits.train.num_examples + 1
        self._known_bad = set(self.bad_records())
        self.trainer = None
        # Made here, so that a batch larger than the data is refused before anything is written.
        self._shapes = self._batches(phase.end_update).element_spec

    def input_lengths(self):
        """The length of the inputs that are sequences, as `models.multiply_adds` takes it.

        Returns:
            A number where there is one input, a dict by name where there are several; None for
            inputs of another kind, such as images. Of batches of like length, the longest.
        """
        specs = self._shapes[0]
        named = specs if isinstance(specs, dict) else {"": specs}
        if any(spec.shape.rank != 2 or not spec.dtype.is_integer for spec in named.values()):
            return None
        longest = max(getattr(self.splits.train, "bucket_boundaries", ()), default=None)
        lengths = {name: spec.shape[1] or longest for name, spec in named.items()}
        return lengths if isinstance(specs, dict) else lengths[""]

    def bad_records(self):
        """{record: what is wrong} of both parts of the data."""
        return {**self.splits.train.bad_records, **self.splits.test.bad_records}

    def raise_for_bad_record(self):
        """Raises a ValueError that says which record ended the run, if it was one."""
        recipe = self.recipe
        # Those that reading the data brought to light, since this was made.
        bad = {k: v for k, v in self.bad_records().items() if k not in self._known_bad}
        if not bad:
            return
        record, why = next(iter(bad.items()))
        skip = "Mend it, remove it, or pass --skip_bad_records to go on without such records."
        if recipe.skip_bad_records:
            skip = f"None of the first {len(bad)} could be read. Check --data_dir and its files."
        raise ValueError(f"{record} of {recipe.data} cannot be used: {why}. {skip}") from None

    def make_trainer(self, model):
        """Makes the trainer of a compiled model, and with it the variables of the metrics."""
        inputs, labels = tf.nest.map_structure(_zeros, self._shapes[:2])
        self.trainer = Trainer(
            model, inputs, labels,
            global_batch_size=self.phase.global_batch_size,
            micro_batch_size=self.recipe.micro_batch_size,
            updates_per_call=self.recipe.steps_per_loop or 20,
            jit=self.recipe.jit,
        )  # fmt: skip

    def fit(self, first_update, **arguments):
        """Runs the phase from an update of the run on; as `Trainer.fit`."""
        return self.trainer.fit(
            functools.partial(self._batches, first_update),
            num_examples=self.splits.train.num_examples,
            total_updates=self.phase.end_update,
            first_update=first_update,
            start_update=self.phase.start_update,
            start_epoch=self.start_epoch,
            stop_update=self.recipe.max_updates,
            evaluate=self.evaluate,
            checkpoint_every=self.recipe.checkpoint_every,
            **arguments,
        )

    def evaluate(self):
        """Loss and metrics on the held-out data, in batches as training holds in memory."""
        logs = self.trainer.evaluate(
            lambda pipeline, pipelines: evaluation_batches(
                self.splits.test, batch_size=self._evaluation_batch_size(),
                pipeline=pipeline, num_pipelines=pipelines,
            )
        )  # fmt: skip
        return tasks.with_common_figures(self.splits.test.task, logs)

    def judge(self, translator):
        """What `evaluate` finds, and what only the whole answer shows.

        Args:
            translator: as `tasks.judge` takes it.
        """
        test = self.splits.test
        return self.evaluate() | tasks.judge(
            self.trainer.model,
            test,
            batch_size=self._evaluation_batch_size(),
            translator=translator,
        )

    def probe_batch(self, most_examples=256):
        """The first training examples without augmentation, for figures that need a fixed batch.

        Args:
            most_examples: or all, or as many as a replica holds in memory, if that is fewer.

        Returns:
            (inputs, labels, weights)
        """
        size = min(
            most_examples, self.splits.train.num_examples, self.trainer.plan.micro_batch_size
        )
        return next(iter(evaluation_batches(self.splits.train, batch_size=size)))

    def _batches(self, first_update, pipeline=0, num_pipelines=1):
        start = self.phase.start_update
        return training_batches(
            self.splits.train,
            global_batch_size=self.phase.global_batch_size,
            seed=self.recipe.seed,
            first_update=first_update - start,
            total_updates=self.phase.end_update - start,
            pipeline=pipeline,
            num_pipelines=num_pipelines,
            shuffle=self.recipe.shuffle,
            start_epoch=self.start_epoch,
        )

    def _evaluation_batch_size(self):
        plan = self.trainer.plan
        share = -(-min(512, self.splits.test.num_examples) // plan.replicas)
        return plan.replicas * min(plan.micro_batch_size, share)


def _zeros(spec):
    """One example of zeros; an unknown length is 2: some layers warn of 1."""
    shape = [2 if n is None else n for n in (1, *spec.shape[1:])]
    return np.zeros(shape, spec.dtype.as_numpy_dtype)
