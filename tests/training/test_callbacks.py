"""Callbacks: their state survives a stop, the best model is written whole or not at all."""

import json
import os
import types

import keras
import numpy as np
import pytest

from tf_largebatch.training import files
from tf_largebatch.training.callbacks import (
    KeepBest,
    callback_state,
    restore_callbacks,
    save_model,
)

pytestmark = pytest.mark.tensorflow
LOSSES = [1.0, 0.8, 0.9, 0.85, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.6]


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    """ram:// is in TensorFlow's memory; it stands for an object store, such as gs://."""
    return str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}"


def stub(rate=1.0):
    """What callbacks want of a model."""
    optimizer = types.SimpleNamespace(learning_rate=rate)
    return types.SimpleNamespace(stop_training=False, optimizer=optimizer)


def epochs(callbacks, model, first=0, last=None, states=None):
    """Drives callbacks as the trainer does; returns the first epoch that isn't done."""
    for callback in callbacks:
        callback.set_model(model)
    model.stop_training = False
    for callback in callbacks:
        callback.on_train_begin()
    restore_callbacks(callbacks, states)
    epoch = first
    while epoch < (last or len(LOSSES)) and not model.stop_training:
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"val_loss": np.float32(LOSSES[epoch])})
        epoch += 1
    return epoch


def through_json(states):
    return json.loads(json.dumps(states))


def early_stopping(**options):
    return keras.callbacks.EarlyStopping("val_loss", mode="min", **({"patience": 4} | options))


@pytest.mark.parametrize("options", [{}, {"min_delta": 0.12}, {"baseline": 0.75}])
@pytest.mark.parametrize("stop", range(1, 9))
def test_early_stopping_after_a_stop(stop, options):
    straight = early_stopping(**options)
    end = epochs([straight], stub())
    assert 4 <= end < len(LOSSES)  # it does stop, and not for want of epochs
    first, second = early_stopping(**options), early_stopping(**options)
    done = epochs([first], stub(), last=stop)
    states = through_json(callback_state([first]))
    assert epochs([second], stub(), first=done, states=states) == end
    for name in ("wait", "best", "stopped_epoch", "best_epoch"):
        assert getattr(second, name) == getattr(straight, name)


def test_early_stopping_that_had_stopped():
    """It stops again at once, unless it has more patience now."""
    first = early_stopping()
    done = epochs([first], stub())
    states = through_json(callback_state([first]))
    assert epochs([early_stopping()], stub(), first=done, states=states) == done
    patient = early_stopping(patience=5)
    assert epochs([patient], stub(), first=done, states=states) == done + 1


@pytest.mark.parametrize("stop", range(1, 11))
def test_reduce_on_plateau_after_a_stop(stop):
    def reducing():
        return keras.callbacks.ReduceLROnPlateau(
            "val_loss", factor=0.5, patience=2, cooldown=2, mode="min", min_delta=0.0
        )

    straight, model = reducing(), stub()
    epochs([straight], model)
    assert model.optimizer.learning_rate == 0.5**3
    first, second, part = reducing(), reducing(), stub()
    epochs([first], part, last=stop)
    states = through_json(callback_state([first]))
    rest = stub(part.optimizer.learning_rate)  # the checkpoint has it, as the optimizer's
    epochs([second], rest, first=stop, states=states)
    assert rest.optimizer.learning_rate == model.optimizer.learning_rate
    for name in ("wait", "best", "cooldown_counter"):
        assert getattr(second, name) == getattr(straight, name)


def test_model_checkpoint_keeps_its_best(tmp_path):
    def keeper():
        path = tmp_path / "{epoch}.keras"
        return keras.callbacks.ModelCheckpoint(path, "val_loss", mode="min", save_best_only=True)

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    first, second = keeper(), keeper()
    epochs([first], model, last=2)
    epochs([second], model, first=2, last=4, states=through_json(callback_state([first])))
    # Epochs are counted from 1 in names; those that weren't better wrote nothing.
    assert sorted(os.listdir(tmp_path)) == ["1.keras", "2.keras"]
    assert second.best == pytest.approx(0.8)


class Counting(keras.callbacks.Callback):
    """A user's own, with a state."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_begin(self, logs=None):
        self.count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


class StoppingByItself(keras.callbacks.EarlyStopping):
    """Its own methods are asked, not Keras' attributes."""

    def get_state(self):
        return {"mine": 1}

    def set_state(self, state):
        self.mine = state["mine"]


def test_several_callbacks_and_those_of_the_user():
    def made():
        loss = keras.callbacks.LambdaCallback()
        return [early_stopping(), loss, Counting(), early_stopping(patience=9), Counting()]

    first, second = made(), made()
    epochs(first[:3], stub(), last=3)
    epochs(first[3:], stub(), last=5)
    states = callback_state(first)
    assert set(states) == {
        "EarlyStopping/0", "Counting/0", "EarlyStopping/1", "Counting/1",
    }  # fmt: skip
    # Callbacks without a state may come, go and move.
    second = [keras.callbacks.TerminateOnNaN(), second[2], second[0], second[3], second[4]]
    restore_callbacks(second, through_json(states))
    assert [second[1].count, second[4].count] == [3, 5]
    assert [second[2].wait, second[3].wait] == [1, 0]
    assert callback_state([StoppingByItself(restore_best_weights=True)]) == {
        "StoppingByItself/0": {"mine": 1}
    }


def test_callbacks_that_came_or_went_warn():
    first = [early_stopping(), Counting()]
    epochs(first, stub(), last=4)
    states = callback_state(first)
    with pytest.warns(UserWarning, match="callbacks that aren't there: Counting/0"):
        restore_callbacks([early_stopping()], states)
    fresh = [early_stopping(), Counting(), early_stopping()]
    with pytest.warns(UserWarning, match="EarlyStopping/1 starts afresh: .*has no state of it"):
        restore_callbacks(fresh, states)
    assert [fresh[0].wait, fresh[1].count, fresh[2].wait] == [2, 4, 0]
    other = keras.callbacks.EarlyStopping("val_accuracy", mode="max")
    with pytest.warns(UserWarning, match="has the state for monitor=val_loss of it"):
        restore_callbacks([other, Counting()], states)
    assert other.best is None
    restore_callbacks(fresh, {})
    assert fresh[1].count == 4


def test_weights_in_memory_are_refused():
    with pytest.raises(ValueError, match="Received: restore_best_weights=True.*KeepBest"):
        callback_state([early_stopping(restore_best_weights=True)])


def test_a_state_that_json_does_not_know():
    counting = Counting()
    counting.count = np.arange(3)
    with pytest.raises(ValueError, match=r"get_state\(\) must return.*Counting"):
        callback_state([counting])


def small_model(value):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="d")])
    model.set_weights([np.full((2, 1), value), np.zeros(1)])
    return model


def kernel(path, tmp_path):
    local = tmp_path / "copy.keras"
    local.write_bytes(files.read(path))
    return keras.models.load_model(local).get_weights()[0]


def test_saving_a_model(folder, tmp_path):
    """A second one takes the place of the first."""
    path = f"{folder}/best.keras"
    for value in (1.0, 2.0):
        save_model(small_model(value), path)
        np.testing.assert_array_equal(kernel(path, tmp_path), [[value], [value]])
        assert [n for n in files.names(folder) if n != "copy.keras"] == ["best.keras"]


def test_who_does_not_write_a_model_saves_it_all_the_same(folder, tmp_path, monkeypatch):
    """To read the variables may take all workers."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    model, saved = small_model(1.0), []
    monkeypatch.setattr(model, "save", lambda p: saved.append(p) or open(p, "wb").close())
    save_model(model, f"{folder}/best.keras", write=False)
    assert len(saved) == 1
    assert saved[0].startswith(str(tmp_path / "scratch"))
    assert os.listdir(tmp_path / "scratch") == []
    assert "best.keras" not in files.names(folder)


def test_a_model_that_cannot_be_saved_leaves_the_one_before(folder, tmp_path, monkeypatch):
    import tensorflow as tf

    path = f"{folder}/best.keras"
    save_model(small_model(1.0), path)
    broken = small_model(2.0)

    def half(target):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    def denied(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "not yours")

    with monkeypatch.context() as patch:
        patch.setattr(broken, "save", half)
        with pytest.raises(OSError, match="No space left"):
            save_model(broken, path)
    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile, "rename", denied)
        with pytest.raises(OSError, match="not yours"):
            save_model(broken, path)
    assert files.names(folder) == ["best.keras"]
    np.testing.assert_array_equal(kernel(path, tmp_path), [[1.0], [1.0]])


def best_after(values, path, **options):
    """A KeepBest that has seen these values, each with a model of weights 0, 1, ..."""
    progress = options.pop("progress", {})
    keeper = KeepBest(path, "val_accuracy", progress, **options)
    for epoch, value in enumerate(values):
        keeper.set_model(small_model(float(epoch)))
        keeper.on_train_begin()
        keeper.on_epoch_end(epoch, {} if value is None else {"val_accuracy": value})
    return keeper


def test_the_best_is_kept(folder, tmp_path):
    path = f"{folder}/best.keras"
    keeper = best_after([0.5, 0.7, float("nan"), None, 0.6, 0.7], path)
    assert keeper.progress == {"best": 0.7}
    np.testing.assert_array_equal(kernel(path, tmp_path), [[1.0], [1.0]])
    best_after([0.65], path, progress=keeper.progress)  # after a resumption
    np.testing.assert_array_equal(kernel(path, tmp_path), [[1.0], [1.0]])


def test_who_does_not_write_still_compares_and_stops(folder):
    keeper = best_after([0.5, 0.8], f"{folder}/best.keras", target=0.8, write=False)
    assert keeper.progress == {"best": 0.8, "reached_target_at_epoch": 2}
    assert keeper.model.stop_training
    assert files.names(folder) == []
