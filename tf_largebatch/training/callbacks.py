"""Keras callbacks of a run: the best model, and the profiler."""

import contextlib
import math
import os

import keras
import tensorflow as tf


class KeepBest(keras.callbacks.Callback):
    """Saves the model whenever a metric reaches a new best, and stops at a target.

    Args:
        path: `.keras` file of the best model.
        metric: a name in the logs, such as "val_accuracy"; higher is better. Not the validation
            loss, which the thesis found unreliable for large batches.
        progress: dict; the best value so far lives in progress["best"], so that it is resumed.
        target: stop training once the metric reaches this; None never stops. A run that is
            resumed after it reached the target stops at once.
    """

    def __init__(self, path, metric, progress, *, target=None):
        super().__init__()
        self.path, self.metric, self.progress, self.target = str(path), metric, progress, target

    def on_train_begin(self, logs=None):
        """Stops at once if the target is behind already."""
        if self.target is not None and self.progress.get("best", -math.inf) >= self.target:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Compares, saves, stops."""
        value = (logs or {}).get(self.metric)
        if value is None or math.isnan(value):
            return
        if value > self.progress.get("best", -math.inf):
            self.progress["best"] = value
            save_model(self.model, self.path)
        if self.target is not None and value >= self.target:
            self.progress.setdefault("reached_target_at_epoch", epoch + 1)
            self.model.stop_training = True


class Profile(keras.callbacks.Callback):
    """Profiles the updates from `first` to before `last`; `Trainer.fit` must cut its calls there.

    Args:
        folder: where TensorBoard's profiler plug-in finds the result.
        first, last: numbers of updates.
    """

    def __init__(self, folder, first, last):
        super().__init__()
        self.folder, self.first, self.last, self.running = folder, first, last, False

    def _done(self):
        optimizer = self.model.optimizer
        return int(getattr(optimizer, "inner_optimizer", optimizer).iterations.numpy())

    def on_train_batch_begin(self, batch, logs=None):
        """Starts at `first`."""
        if not self.running and self.first <= self._done() < self.last:
            tf.profiler.experimental.start(self.folder)
            self.running = True

    def on_train_batch_end(self, batch, logs=None):
        """Stops at `last`."""
        if self.running and self._done() >= self.last:
            self.on_train_end()

    def on_train_end(self, logs=None):
        """Stops, if the run ends before `last`."""
        if self.running:
            tf.profiler.experimental.stop()
            self.running = False


def save_model(model, path):
    """Writes a `.keras` file whole or not at all."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"unfinished-{os.getpid()}-{name}")
    try:
        model.save(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
