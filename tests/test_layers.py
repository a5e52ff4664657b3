"""Group statistics: the same from one device to four, nothing shared between groups."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from replicas import strategy_of
from tf_largebatch.data.batches import training_batches
from tf_largebatch.data.source import ArraySource
from tf_largebatch.layers import GroupBatchNormalization
from tf_largebatch.training.trainer import Trainer

pytestmark = pytest.mark.tensorflow
CHANNELS = 5
EPSILON = 1e-3
# replicas, which share 16 examples, and the examples of a group
LAYOUTS = [(1, 16), (1, 4), (2, 2), (2, 8), (2, 16), (4, 2), (4, 4), (4, 8), (4, 16)]


def oracle(x, g, gamma, beta, group):
    """Outputs, gradients of sum(g * outputs), moving statistics from 0; channels last, float64."""
    x, g = (a.astype("float64").reshape(-1, group, 3, CHANNELS) for a in (x, g))
    mean = x.mean((1, 2), keepdims=True)
    variance = ((x - mean) ** 2).mean((1, 2), keepdims=True)
    deviation = np.sqrt(variance + EPSILON)
    z = (x - mean) / deviation
    of_z = g - g.mean((1, 2), keepdims=True) - z * (g * z).mean((1, 2), keepdims=True)
    return {
        "y": (gamma * z + beta).reshape(-1, 3, CHANNELS),
        "dx": (gamma / deviation * of_z).reshape(-1, 3, CHANNELS),
        "dgamma": (g * z).sum((0, 1, 2)),
        "dbeta": g.sum((0, 1, 2)),
        "moving_mean": 0.1 * mean.mean((0, 1, 2)),
        "moving_variance": 0.9 + 0.1 * variance.mean((0, 1, 2)),
    }


def case(mean=0.0, dtype="float64"):
    random = np.random.default_rng(5)
    x = random.normal(size=(16, 3, CHANNELS)) * [1, 2, 0.5, 1, 1]
    x += np.arange(16).reshape(16, 1, 1) / 4 + mean  # the groups differ
    g = random.normal(size=x.shape)
    return x.astype(dtype), g.astype(dtype), np.arange(1.0, 6.0), np.arange(5.0)


def run(x, g, gamma, beta, group, *, replicas=1, known=True, axis=-1, **options):
    """The oracle's results from the layer; moving statistics on each replica: (replicas, C).

    With `known=False` the trace doesn't know how many examples a replica holds.
    """
    strategy = strategy_of(replicas)

    def swap(t):
        return tf.transpose(t, (0, 2, 1)) if axis == 1 else t

    with strategy.scope():
        layer = GroupBatchNormalization(
            group, axis=axis, momentum=0.9, epsilon=EPSILON, **options, name="bn"
        )
        layer.build(swap(tf.constant(x)).shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
    examples = len(x) // replicas if known else None
    spec = tf.TensorSpec((replicas, examples, *x.shape[1:]), x.dtype)

    @tf.function(input_signature=[spec, spec])
    def step(xs, gs):
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            x, g = xs[i], gs[i]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = swap(layer(swap(x), training=True))
                loss = tf.reduce_sum(tf.cast(y, g.dtype) * g)
            return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

        y, (dx, dgamma, dbeta) = strategy.run(replica)
        local = strategy.experimental_local_results
        return {
            "y": tf.concat(local(y), 0),
            "dx": tf.concat(local(dx), 0),
            "dgamma": tf.add_n(local(dgamma)),
            "dbeta": tf.add_n(local(dbeta)),
        }

    parts = (np.reshape(a, (replicas, -1, *x.shape[1:])) for a in (x, g))
    results = step(*(tf.constant(p) for p in parts))
    for name in ("moving_mean", "moving_variance"):
        values = strategy.experimental_local_results(getattr(layer, name).value)
        results[name] = np.array([v.numpy() for v in values])
    return {name: np.array(value) for name, value in results.items()}


def assert_close(results, expected, **tolerance):
    """Close to the oracle, and moving statistics on all replicas the same to the last bit."""
    for name in ("moving_mean", "moving_variance"):
        assert (results[name] == results[name][0]).all()
    for name, value in expected.items():
        np.testing.assert_allclose(
            results[name], np.broadcast_to(value, results[name].shape), err_msg=name, **tolerance
        )


@pytest.mark.parametrize(
    "replicas, group, known, axis",
    [(*layout, known, -1) for layout in LAYOUTS for known in (True, False)] + [(4, 8, True, 1)],
)
def test_equals_the_oracle(replicas, group, known, axis):
    inputs = case()
    results = run(*inputs, group, replicas=replicas, known=known, axis=axis, dtype="float64")
    assert_close(results, oracle(*inputs, group), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("replicas, group", [(1, 16), (1, 4), (2, 8), (4, 8)])
def test_mean_of_10000_and_deviation_of_1(replicas, group):
    inputs = case(mean=1e4, dtype="float32")
    x = inputs[0]
    naive = (x**2).mean((0, 1)) - x.mean((0, 1)) ** 2
    assert np.abs(naive - x.astype("float64").var((0, 1))).max() > 1
    results = run(*inputs, group, replicas=replicas)
    assert_close(results, oracle(*inputs, group), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("replicas, group", [(1, 16), (2, 4), (4, 8)])
def test_statistics_of_bfloat16_are_float32(replicas, group):
    x, g, gamma, beta = case(mean=3.0, dtype="float32")
    x = tf.cast(x, "bfloat16").numpy()
    results = run(
        x, g.astype(x.dtype), gamma, beta, group, replicas=replicas, dtype="mixed_bfloat16"
    )
    expected = oracle(x.astype("float32"), g, gamma, beta, group)
    assert results["y"].dtype == x.dtype
    np.testing.assert_allclose(
        results["y"].astype("float32"), expected["y"], rtol=2**-8, atol=2**-12
    )
    for name in ("moving_mean", "moving_variance"):
        assert results[name].dtype == np.float32
        assert_close(results, {name: expected[name]}, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("replicas, group", [(1, 4), (2, 4), (2, 8), (4, 4), (4, 8)])
def test_groups_share_nothing(replicas, group, known):
    x, g, gamma, beta = case(dtype="float32")
    before = run(x, g, gamma, beta, group, replicas=replicas, known=known)
    for bad in (1e3, np.nan):
        x[:group], g[:group] = bad, bad
        after = run(x, g, gamma, beta, group, replicas=replicas, known=known)
        for name in ("y", "dx"):
            assert np.array_equal(after[name][group:], before[name][group:])
            assert not np.allclose(after[name][:group], before[name][:group])


@pytest.mark.parametrize("shape", [(12, 5), (12, 4, 4, 5)])
def test_one_group_is_keras_layer(shape):
    """Outputs, gradients and moving statistics: Keras moves the biased variance, too."""
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    results = []
    for layer in (keras.layers.BatchNormalization(), GroupBatchNormalization(12)):
        layer.build(shape)
        layer.gamma.assign([1.0, 2, 3, 4, 5])
        for _ in range(3):
            with tf.GradientTape() as tape:
                inputs = tf.constant(x)
                tape.watch(inputs)
                y = layer(inputs, training=True)
                loss = tf.reduce_sum(y**3)
            grads = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        results.append([y, *grads, layer.moving_mean, layer.moving_variance])
    for theirs, ours in zip(*results, strict=True):
        theirs, ours = np.array(theirs), np.array(ours)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("frozen", [False, True])
def test_inference_is_keras_own(frozen):
    random = np.random.default_rng(1)
    x = random.normal(size=(7, 5)).astype("float32")
    values = [random.uniform(0.5, 2, 5) for _ in range(4)]
    outputs = []
    for layer in (keras.layers.BatchNormalization(), GroupBatchNormalization(64)):
        layer.build(x.shape)
        layer.set_weights(values)
        layer.trainable = not frozen
        outputs.append(np.array(layer(x, training=frozen)))
    assert np.array_equal(*outputs)


def small_model(group):
    keras.utils.set_random_seed(3)
    normalisation = GroupBatchNormalization(group, momentum=0.9)
    dense = keras.layers.Dense(8, activation="tanh")
    model = keras.Sequential([keras.Input((6,)), dense, normalisation, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    model.optimizer.build(model.trainable_variables)
    return model


def data(n=48):
    x = np.random.default_rng(0).normal(size=(n, 6)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype("int32")


def fitted(replicas, group, examples=48):
    with strategy_of(replicas).scope():
        model = small_model(group)
    model.fit(*data(examples), batch_size=16, epochs=5, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.slow
@pytest.mark.parametrize("replicas, group", [(2, 4), (2, 16), (4, 8)])
def test_fit_on_replicas_is_that_on_one_device(replicas, group):
    for one, other in zip(fitted(1, group), fitted(replicas, group), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2])
def test_fit_refuses_a_last_smaller_batch(replicas):
    with pytest.raises(tf.errors.InvalidArgumentError, match="A last, smaller batch"):
        fitted(replicas, 16, examples=52)


def trained(replicas, group, micro_batch_size=None):
    """Trainable and moving variables after 12 updates of 24."""
    source = ArraySource("gaussians", *data(), num_classes=2)
    with strategy_of(replicas).scope():
        model = small_model(group)
    trainer = Trainer(
        model, source.images, source.labels, global_batch_size=24, micro_batch_size=micro_batch_size
    )
    batches = training_batches(source, global_batch_size=24, seed=1, total_updates=12)
    trainer.fit(batches, num_examples=48, total_updates=12, verbose=0)
    return [np.array(v) for v in model.trainable_variables], [
        [v.numpy() for v in trainer.strategy.experimental_local_results(variable.value)]
        for variable in model.layers[1].non_trainable_variables
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "group, layouts",
    [(4, [(1, 4), (2, None), (2, 4)]), (12, [(1, 12), (4, None)]), (24, [(2, None)])],
)
def test_trainer_is_the_same_in_every_layout(group, layouts):
    """Micro-batches of whole groups leave the groups alone, and the moving statistics equal."""
    expected, [[mean], _] = trained(1, group)
    for replicas, micro_batch_size in layouts:
        weights, moving = trained(replicas, group, micro_batch_size)
        for one, other in zip(expected, weights, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=2e-6)
        for values in moving:
            assert len(values) == replicas
            assert all(np.array_equal(v, values[0]) for v in values)
        if micro_batch_size is None:
            np.testing.assert_allclose(moving[0][0], mean, rtol=1e-5, atol=1e-6)


def test_groups_across_replicas_are_refused_in_a_loop():
    """`Trainer` writes its own loop out (tests/training/test_objective.py)."""
    strategy = strategy_of(2)
    with strategy.scope():
        layer = GroupBatchNormalization(8)
        layer.build((None, 3))

    @tf.function
    def run():
        def replica():
            def body(i):
                layer(tf.ones((4, 3)), training=True)
                return (i + 1,)

            return tf.while_loop(lambda i: i < 2, body, (tf.constant(0),))

        return strategy.run(replica)

    with pytest.raises(ValueError, match="no collective within a loop"):
        run()


@pytest.mark.parametrize(
    "replicas, group, words",
    [
        (1, 12, "divide the 16 examples .* 1 replicas. .*group=12. Nearest: 8, 16."),
        (1, 64, "group=64. Nearest: 16."),
        (2, 3, "divide the 8 examples .* 2 replicas. .*group=3. Nearest: 2, 4."),
        (4, 12, "be 4 times a divisor of the 4 replicas. .*group=12. Nearest: 8, 16."),
    ],
)
def test_refuses_groups_that_do_not_fit(replicas, group, words):
    with pytest.raises(ValueError, match=words):
        run(*case(dtype="float32"), group, replicas=replicas)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"examples_per_group={group} must"):
        run(*case(dtype="float32"), group, replicas=replicas, known=False)


def test_refuses_what_it_does_not_do():
    x = np.ones((4, 3, 2), "float32")
    for bad in (0, -1, 2.5, "64", None, True):
        with pytest.raises(ValueError, match="an integer of at least 1. Received"):
            GroupBatchNormalization(bad)
    with pytest.raises(ValueError, match=r"doesn't take \['renorm'\]"):
        GroupBatchNormalization(64, renorm=True)
    with pytest.raises(ValueError, match="axis=0"):
        GroupBatchNormalization(4, axis=0)(x)
    with pytest.raises(ValueError, match="no mask in training"):
        GroupBatchNormalization(4)(x, training=True, mask=np.ones((4, 3), bool))


def test_saves_and_loads(tmp_path):
    model = small_model(16)
    model.layers[1].gamma_regularizer = keras.regularizers.L2(0.01)
    x, y = data()
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layer = loaded.layers[1]
    assert type(layer) is GroupBatchNormalization
    assert layer.get_config() == model.layers[1].get_config()
    assert (layer.examples_per_group, layer.momentum) == (16, 0.9)
    assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
