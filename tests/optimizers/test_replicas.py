"""Under MirroredStrategy: what is clipped, accumulated and averaged is the reduced gradient."""

import functools

import keras
import numpy as np
import pytest

from replicas import strategy_of
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB

pytestmark = pytest.mark.tensorflow
ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}


def apply_on_replicas(make_optimizer, gradients):
    """One update of w = 0, replica i giving gradients[i]; returns w on every replica."""
    import tensorflow as tf

    strategy = strategy_of(len(gradients))
    with strategy.scope():
        variable = keras.Variable(np.zeros(2, "float32"), name="w")
        optimizer = make_optimizer()
        optimizer.build([variable])

    @tf.function
    def step():
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([tf.gather(tf.constant(gradients), i)], [variable])

        strategy.run(replica)

    step()
    return [v.numpy() for v in strategy.experimental_local_results(variable.value)]


@pytest.mark.parametrize(
    "clip, expected",
    [
        ({"global_clipnorm": 1.0}, [-0.6, -0.8]),
        ({"clipnorm": 1.0}, [-0.6, -0.8]),
        ({"clipvalue": 3.5}, [-3.0, -3.5]),
        ({"clipvalue": 3.0, "global_clipnorm": 1.0}, [-(0.5**0.5), -(0.5**0.5)]),
        ({"clipvalue": 3.0, "clipnorm": 3.0}, [-3 * 0.5**0.5, -3 * 0.5**0.5]),
    ],
)
def test_clipping_after_the_reduction(clip, expected):
    """From w = 0 the ratio is 1, and LARS without momentum is SGD; Keras' gives [-1, -1]."""
    for gradients in ([[3.0, 0.0], [0.0, 4.0]], [[3.0, 4.0]], [[1.0, 0], [2, 0], [0, 1], [0, 3.0]]):
        make = lambda: LARS(1.0, momentum=0.0, weight_decay=0.0, **clip)  # noqa: E731
        for value in apply_on_replicas(make, gradients):
            np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_keras_clips_before_the_reduction():
    """The fault that the test above guards against is still in Keras."""
    for value in apply_on_replicas(
        lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0), [[3.0, 0.0], [0.0, 4.0]]
    ):
        np.testing.assert_allclose(value, [-1.0, -1.0])


@functools.cache
def fitted(name, replicas, *, batch_size=32, **options):
    """Weights after `fit` has seen 640 examples: 64, ten times over."""
    random = np.random.default_rng(0)
    x = np.tile(random.normal(size=(64, 4)).astype("float32"), (10, 1))
    y = np.tile(random.normal(size=(64, 2)).astype("float32"), (10, 1))
    keras.utils.set_random_seed(1)
    with strategy_of(replicas).scope():
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)]
        )
        model.compile(ALL[name](0.01, **options), loss="mse")
    model.fit(x, y, batch_size=batch_size, shuffle=False, verbose=0)
    return np.concatenate([w.ravel() for w in model.get_weights()])


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ALL)
def test_replicas_equal_one_device_in_fit(name, replicas):
    clip = {"global_clipnorm": 0.1, "clipvalue": 0.05}
    one, many = (fitted(name, r, **clip) for r in (1, replicas))
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_accumulation_on_replicas_equals_the_big_batch(name):
    one = fitted(name, 1)
    many = fitted(name, 2, batch_size=8, gradient_accumulation_steps=4)
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulation", [None, 4])
def test_average_on_replicas(accumulation):
    options = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
    one = fitted("LAMB", 1, **options)
    size = 32 // (accumulation or 1)
    many = fitted("LAMB", 2, batch_size=size, gradient_accumulation_steps=accumulation, **options)
    np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6)
