"""What the trainer logs beside the metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from replicas import strategy_of
from tf_largebatch import LAMB, schedules
from tf_largebatch.training.trainer import Trainer

pytestmark = pytest.mark.tensorflow
WARMUP, UPDATES = 5, 12


class Counted(schedules.LinearWarmup):
    """Counts how often Python runs through it."""

    calls = 0

    def __call__(self, step):
        self.calls += 1
        return super().__call__(step)


class Rates(keras.callbacks.Callback):
    """Keeps the logged rate, and the calls of the schedule until then, of each host call."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.rates, self.calls = schedule, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(logs["learning_rate"])
        self.calls.append(self.schedule.calls)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("updates_per_call", [1, 5])
def test_the_rate_of_the_last_update_is_logged_and_traced_but_once(replicas, updates_per_call):
    schedule = Counted(schedules.Polynomial(0.02, 40), WARMUP)
    with strategy_of(replicas).scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(LAMB(schedule), "mse")
        model.optimizer.build(model.trainable_variables)
    x, y = np.ones((4, 3), "float32"), np.zeros((4, 1), "float32")
    trainer = Trainer(model, x, y, global_batch_size=4, updates_per_call=updates_per_call)
    seen = Rates(schedule)
    trainer.fit(
        tf.data.Dataset.from_tensors((x, y)).repeat(), num_examples=400, total_updates=UPDATES,
        callbacks=[seen], verbose=0,
    )  # fmt: skip
    ends = [*range(updates_per_call, UPDATES, updates_per_call), UPDATES]
    expected = [0.02 * min((end - 1) / WARMUP, 1 - (end - 1) / 40) for end in ends]
    assert seen.rates == pytest.approx(expected, rel=1e-6)
    assert len(set(seen.calls)) == 1
