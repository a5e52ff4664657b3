"""What the trainer refuses before it trains, and what ends a training: said in one sentence."""

import keras
import pytest

from replicas import strategy_of
from small_training import small_model, source, trained
from tf_largebatch import LAMB
from tf_largebatch.training.trainer import Diverged, Trainer

pytestmark = pytest.mark.tensorflow


def test_refused_layouts_name_the_nearest():
    data = source()
    with strategy_of(2).scope():
        model = small_model(LAMB(0.1))
    with pytest.raises(ValueError, match="divisible by the 2 replicas. Received: 25. Nearest: 24"):
        Trainer(model, data.images, data.labels, global_batch_size=25)
    with pytest.raises(ValueError, match=r"2 replicas x micro_batch_size 5 = 10.*Nearest: 20, 30"):
        Trainer(model, data.images, data.labels, global_batch_size=24, micro_batch_size=5)


@pytest.mark.parametrize(
    "loss, words",
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), "'sum'"),
        (["mse", "mse"], "a loss for each of the outputs"),
    ],
)
def test_refused_losses(loss, words):
    data = source()
    model = small_model(LAMB(0.1), loss=loss)
    with pytest.raises(ValueError, match=words):
        Trainer(model, data.images, data.labels, global_batch_size=24)


def test_refused_models():
    data = source()
    model = small_model(LAMB(0.1, gradient_accumulation_steps=2))
    with pytest.raises(ValueError, match="pass micro_batch_size"):
        Trainer(model, data.images, data.labels, global_batch_size=24)

    class Own(keras.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((6,))
    model = Own(inputs, keras.layers.Dense(2)(inputs))
    model.compile(LAMB(0.1), loss="mse")
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="Own overrides `train_step`"):
        Trainer(model, data.images, data.labels, global_batch_size=24)


def test_divergence_names_the_update():
    with pytest.raises(Diverged, match=r"The loss is (nan|inf) at update \d"):
        trained(lambda: keras.optimizers.SGD(1e38))


def test_weights_that_are_not_finite_at_a_checkpoint_are_divergence(tmp_path):
    with pytest.raises(Diverged, match="After update 1 the variable .* holds NaN or infinity"):
        trained(lambda: keras.optimizers.SGD(1e39), folder=tmp_path, every=1, calls=1)
    assert not list(tmp_path.iterdir())
