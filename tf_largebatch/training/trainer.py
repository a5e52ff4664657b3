"""The training loop: updates counted from the first to the last, several to one host call."""

import contextlib
import math
import os
import signal
import threading
import time

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.data.batches import epoch_end_update
from tf_largebatch.training import checkpoint


class Diverged(ArithmeticError):
    """The loss or a weight became NaN or infinite."""


class Trainer:
    """Runs a compiled Keras model over given batches, update by update.

    The loop is Keras' own `train_step`, several updates to one host call, with Keras' callbacks
    around it. Unlike `fit` it can begin and end at any update, saves at any update, and stops at
    the first loss that isn't finite.

    Args:
        model: a compiled Keras model with a built optimizer; its `weighted_metrics` are those
            that evaluation reports.
        inputs, labels: a batch, of which one example is looked at: Keras makes the variables of
            metrics only when it meets data, and a checkpoint holds them.
        updates_per_call: most updates that one host call runs; a call also ends where an epoch,
            a checkpoint or the run does. More is faster, fewer react sooner.
    """

    def __init__(self, model, inputs, labels, *, updates_per_call=20):
        build_metrics(model, inputs, labels)
        self.model = model
        self.updates_per_call = updates_per_call
        self.stop_signal = None

        @tf.function(reduce_retracing=True)
        def run_updates(iterator, updates):
            first_bad = tf.constant(-1)
            for i in tf.range(updates):
                # The running mean of this epoch: once NaN or infinite, it stays so.
                loss = model.train_step(next(iterator))["loss"]
                finite = tf.math.is_finite(tf.cast(loss, tf.float32))
                first_bad = tf.where((first_bad < 0) & ~finite, i, first_bad)
            return first_bad

        @tf.function(reduce_retracing=True)
        def run_evaluation(images, labels, mask):
            model.test_step((images, labels, mask))

        self._run_updates = run_updates
        self._run_evaluation = run_evaluation

    def evaluate(self, batches):
        """The model's weighted metrics over (inputs, labels, mask) batches, by name, as floats.

        Fillings, whose mask is 0, count for nothing. The compiled loss isn't reported: Keras
        divides it by the size of the batch, fillings included.
        """
        self.model.reset_metrics()
        for batch in batches:
            self._run_evaluation(*batch)
        logs = {k: float(v) for k, v in self.model.get_metrics_result().items() if k != "loss"}
        self.model.reset_metrics()
        return logs

    def fit(
        self,
        batches,
        *,
        num_examples,
        global_batch_size,
        total_updates,
        first_update=0,
        stop_update=None,
        evaluate=None,
        callbacks=(),
        checkpoint_dir=None,
        checkpoint_every=None,
        progress=None,
        verbose=1,
    ):
        """Runs the updates from `first_update` to `total_updates`, or to where it is stopped.

        Args:
            batches: dataset of the batches from `first_update` on.
            num_examples, global_batch_size: which say where epochs end.
            total_updates: length of the whole run.
            first_update: updates already done.
            stop_update: end here, before `total_updates`.
            evaluate: called without arguments after each epoch; returns metrics by name, which
                enter the logs with the prefix "val_".
            callbacks: Keras callbacks. `model.stop_training` ends the run.
            checkpoint_dir: where to save, at the end, on SIGINT and SIGTERM, and
            checkpoint_every: after every so many updates; None: after each epoch.
            progress: dict that is saved along; callbacks may change it.
            verbose: Keras' progress bar: 0 none, 1 a bar, 2 a line an epoch.

        Returns:
            The number of updates done. `stop_signal` holds the signal that ended it, or None.

        Raises:
            Diverged: at the first loss, or at a checkpoint the first weight, that isn't finite.
        """
        model = self.model
        end = min(total_updates, stop_update or total_updates)
        sizes = {"num_examples": num_examples, "global_batch_size": global_batch_size}
        epochs = (total_updates - 1) * global_batch_size // num_examples + 1
        callback_list = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=None,
        )
        model.stop_training = False
        progress = {} if progress is None else progress

        def save(update):
            if checkpoint_dir is not None:
                try:
                    checkpoint.save(checkpoint_dir, model, update=update, progress=progress)
                except checkpoint.NonFiniteWeightsError as error:
                    raise Diverged(str(error)) from None

        iterator = iter(batches)
        update, saved_at = first_update, first_update
        callback_list.on_train_begin()
        with _caught_signals(self):
            try:
                while update < end and not model.stop_training and self.stop_signal is None:
                    epoch = update * global_batch_size // num_examples
                    epoch_start = 0 if epoch == 0 else epoch_end_update(epoch - 1, **sizes)
                    epoch_end = min(epoch_end_update(epoch, **sizes), total_updates)
                    if update == epoch_start:
                        model.reset_metrics()  # else an epoch is gone on with, and its metrics
                    callback_list.set_params(
                        {"verbose": verbose, "epochs": epochs, "steps": epoch_end - epoch_start}
                    )
                    callback_list.on_epoch_begin(epoch)
                    logs = {}
                    while update < min(epoch_end, end) and self.stop_signal is None:
                        count = min(self.updates_per_call, min(epoch_end, end) - update)
                        if checkpoint_every:
                            count = min(count, checkpoint_every - update % checkpoint_every)
                        callback_list.on_train_batch_begin(update - epoch_start)
                        logs = self._call(iterator, update, count, global_batch_size)
                        update += count
                        callback_list.on_train_batch_end(update - epoch_start - 1, logs)
                        if checkpoint_every and update % checkpoint_every == 0:
                            save(update)
                            saved_at = update
                    if update == epoch_end:
                        if evaluate is not None:
                            logs |= {f"val_{k}": v for k, v in evaluate().items()}
                        callback_list.on_epoch_end(epoch, logs)
                        if not checkpoint_every:
                            save(update)
                            saved_at = update
                if saved_at != update:
                    save(update)
            finally:
                callback_list.on_train_end()
        return update

    def _call(self, iterator, update, count, global_batch_size):
        """Runs `count` updates from `update` on; returns the logs, or raises Diverged."""
        started = time.perf_counter()
        first_bad = int(self._run_updates(iterator, tf.constant(count)))
        seconds = time.perf_counter() - started
        logs = {k: float(v) for k, v in self.model.get_metrics_result().items()}
        learning_rate = float(np.asarray(self.model.optimizer.learning_rate))
        if first_bad >= 0:
            raise Diverged(
                f"The loss is {logs['loss']} at update {update + first_bad} "
                f"(learning rate {learning_rate:.4g})."
            )
        speed = count * global_batch_size / seconds
        return logs | {"learning_rate": learning_rate, "examples_per_second": speed}


def build_metrics(model, inputs, labels):
    """Makes the variables of the compiled metrics, and leaves them at their start."""
    inputs, labels = inputs[:1], labels[:1]
    model.compute_metrics(inputs, labels, model(inputs, training=False), sample_weight=None)
    model.reset_metrics()


@contextlib.contextmanager
def _caught_signals(trainer):
    """SIGINT and SIGTERM ask the trainer to stop after this call; a second one stops at once."""
    before = {}

    def ask(number, _):
        trainer.stop_signal = signal.Signals(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # elsewhere, signals can't be caught
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class KeepBest(keras.callbacks.Callback):
    """Saves the model whenever a metric reaches a new best, and stops at a target.

    Args:
        path: `.keras` file of the best model.
        metric: a name in the logs, such as "val_accuracy"; higher is better. Not the validation
            loss, which the thesis found unreliable for large batches.
        progress: dict; the best value so far lives in progress["best"], so that it is resumed.
        target: stop training once the metric reaches this; None never stops.
    """

    def __init__(self, path, metric, progress, *, target=None):
        super().__init__()
        self.path, self.metric, self.progress, self.target = str(path), metric, progress, target

    def on_epoch_end(self, epoch, logs=None):
        """Compares, saves, stops."""
        value = (logs or {}).get(self.metric)
        if value is None or math.isnan(value):
            return
        if value > self.progress.get("best", -math.inf):
            self.progress["best"] = value
            save_model(self.model, self.path)
        if self.target is not None and value >= self.target:
            self.progress["reached_target_at_epoch"] = epoch + 1
            self.model.stop_training = True


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
