"""The schedules in configs, in saved models and at work in `fit`."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from keras.optimizers import schedules as keras_schedules

from schedule_cases import each_case, steps_around
from tf_largebatch.schedules import LinearWarmup, Polynomial


@each_case
def test_survives_its_config(schedule, oracle, turns):
    config = schedule.get_config()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert serialized["registered_name"] == f"tf_largebatch>{type(schedule).__name__}"
    copies = [
        type(schedule).from_config(config),
        keras.saving.deserialize_keras_object(serialized),
        keras_schedules.deserialize(keras_schedules.serialize(schedule)),
    ]
    for copy in copies:
        assert type(copy) is type(schedule)
        assert copy.get_config() == config
        for t in steps_around(turns):
            assert float(copy(t)) == float(schedule(t)), t


def one_weight_model(schedule):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(schedule), loss="mse")
    return model


@each_case
def test_survives_a_saved_model(schedule, oracle, turns, tmp_path):
    model = one_weight_model(schedule)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(loaded) is type(schedule)
    assert loaded.get_config() == schedule.get_config()


def test_moves_the_weights_in_fit():
    # The gradient of mean(w*x) is 1, so w falls by the rate of updates 0 .. 5.
    model = one_weight_model(LinearWarmup(Polynomial(0.5, 10), 4))
    model.compile(model.optimizer, loss=lambda y, w: ops.mean(w), jit_compile=False)
    kernel = model.layers[0].kernel
    before = float(ops.squeeze(kernel))
    model.fit(np.ones((6, 1)), np.ones((6, 1)), batch_size=1, verbose=0)
    rates = [0, 0.125, 0.25, 0.375, 0.3, 0.25]
    assert float(ops.squeeze(kernel)) == pytest.approx(before - sum(rates), abs=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2, abs=1e-7)
