"""Keras callbacks of a run: log, best model and profiler, and the state that a run resumes with."""

import json
import math
import os
import shutil
import tempfile
import warnings

import keras
import tensorflow as tf

from tf_largebatch.training import files

# What Keras' own callbacks remember from epoch to epoch; the others write what they see.
_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("monitor", "wait", "best", "stopped_epoch", "best_epoch"),
    # The rate that it has reduced is the optimizer's.
    keras.callbacks.ReduceLROnPlateau: ("monitor", "wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("monitor", "best"),
}


class KeepBest(keras.callbacks.Callback):
    """Saves the model whenever a metric reaches a new best, and stops at a target.

    Args:
        path: `.keras` file of the best model.
        metric: a name in the logs, such as "val_accuracy"; higher is better. Not the validation
            loss, which the thesis found unreliable for large batches.
        progress: dict; the best value so far lives in progress["best"], so that it is resumed.
        target: stop training once the metric reaches this; None never stops. A run that is
            resumed after it reached the target stops at once.
        write: False on the workers that leave the writing to another; see `save_model`.
    """

    def __init__(self, path, metric, progress, *, target=None, write=True):
        super().__init__()
        self.path, self.metric, self.progress, self.target = str(path), metric, progress, target
        self.write = write

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
            save_model(self.model, self.path, write=self.write)
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


class CSVLogger(keras.callbacks.CSVLogger):
    """Keras' own, which on a remote file system fails at the end (Keras 3.15), with the update."""

    def on_epoch_end(self, epoch, logs=None):
        """Writes the row, with the number of updates done."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        done = int(optimizer.iterations.numpy())
        super().on_epoch_end(epoch, {**(logs or {}), "update": done})

    def on_train_end(self, logs=None):
        """Closes the file."""
        if not files.is_remote(self.filename):
            super().on_train_end(logs)
        elif self.csv_file is not None:  # TensorFlow's files don't know whether they are closed
            self.csv_file.close()
            self.csv_file = self.writer = None


def save_model(model, path, *, write=True):
    """Writes a `.keras` file whole or not at all, on any file system.

    Args:
        model: a Keras model.
        path: where to.
        write: False on the workers that leave the writing to another. They must call this, too:
            with several workers, to read a variable may take all of them.

    Raises:
        OSError: if it can't be written; what was there before is kept.
    """
    path = str(path)
    if write and not files.is_remote(path):
        with files.replacing_path(path) as temporary:
            model.save(temporary)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path))
        model.save(local)
        if write:
            with open(local, "rb") as saved, files.replacing(path) as file:
                shutil.copyfileobj(saved, file, 2**20)


def callback_state(callbacks):
    """What callbacks must remember for a run to go on as if it hadn't been stopped.

    That of Keras' EarlyStopping, ReduceLROnPlateau and ModelCheckpoint, and of any callback with
    methods `get_state()`, which returns a dict, and `set_state(state)`. To refuse early what can't
    be saved, call it once before training.

    Args:
        callbacks: Keras callbacks.

    Returns:
        JSON-serialisable dict for `restore_callbacks`: a dict for each callback that has a state.

    Raises:
        ValueError: for an EarlyStopping that holds weights, or a state that JSON doesn't know.

    >>> stopping = keras.callbacks.EarlyStopping("val_accuracy", patience=3)
    >>> stopping.wait, stopping.best = 2, 0.75
    >>> callback_state([stopping])["EarlyStopping/0"]["best"]
    0.75
    """
    states = {}
    for name, callback, remembered in _stateful(callbacks):
        if getattr(callback, "restore_best_weights", False) and remembered:
            raise ValueError(
                f"{type(callback).__name__} must not hold the best weights: a resumed run wouldn't "
                "have them. Received: restore_best_weights=True. Leave that out, and pass KeepBest "
                "as well, which writes the best model to a file."
            )
        if remembered:
            states[name] = {k: _plain(getattr(callback, k, None)) for k in remembered}
            continue
        states[name] = callback.get_state()
        try:
            json.dumps(states[name])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"get_state() must return what JSON knows: numbers, strings, lists, dicts. "
                f"Received from {type(callback).__name__}: {states[name]!r} ({error})."
            ) from None
    return states


def restore_callbacks(callbacks, states):
    """Gives callbacks the state that `callback_state` returned.

    To be called after `on_train_begin`, where Keras' callbacks forget theirs. An EarlyStopping
    that had stopped the run stops it again, unless it has more patience now.

    Args:
        callbacks: as they were, each after `set_model`; those of one class in the same order.
        states: dict as returned by `callback_state`; if it is empty, nothing is done.

    Warns for a callback that has no state there, which starts afresh, and for a state that no
    callback takes.
    """
    if not states:
        return
    left = dict(states)
    for name, callback, remembered in _stateful(callbacks):
        state = left.pop(name, None)
        if state is None or (remembered and state["monitor"] != callback.monitor):
            found = "no state" if state is None else f"the state for monitor={state['monitor']}"
            warnings.warn(f"{name} starts afresh: the checkpoint has {found} of it.", stacklevel=2)
            continue
        if not remembered:
            callback.set_state(state)
            continue
        for key in remembered:
            setattr(callback, key, state[key])
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.stopped_epoch:
            if callback.wait >= callback.patience:
                callback.model.stop_training = True
            else:
                callback.stopped_epoch = 0
    if left:
        warnings.warn(
            f"The checkpoint has the state of callbacks that aren't there: {', '.join(left)}.",
            stacklevel=2,
        )


def _stateful(callbacks):
    """(name, callback, its attributes to remember, or None if it has methods for that)."""
    count = {}
    for callback in callbacks:
        methods = [hasattr(callback, method) for method in ("get_state", "set_state")]
        remembered = None
        if not all(methods):
            remembered = next((v for k, v in _REMEMBERED.items() if isinstance(callback, k)), None)
            if remembered is None:
                continue
        kind = type(callback).__name__
        count[kind] = count.get(kind, -1) + 1
        yield f"{kind}/{count[kind]}", callback, remembered


def _plain(value):
    """NumPy's and TensorFlow's scalars as Python's, which JSON keeps exactly."""
    return value if value is None or isinstance(value, (int, float, str)) else float(value)
