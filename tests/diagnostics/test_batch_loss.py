"""f(w) is what Keras' fit minimises, its gradient is autodiff's, and the model stays as it is."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow
N = 6


def batch(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(N, 4)).astype("float32")
    return x, random.integers(0, 3, N), random.random(N).astype("float32")


def two_heads():
    """Embedding, batch normalisation, dropout, regularisers of both kinds, two losses."""
    keras.utils.set_random_seed(1)
    words, x = keras.Input((2,), dtype="int32", name="words"), keras.Input((4,), name="x")
    h = keras.layers.Embedding(5, 3, name="embedding")(words)
    h = keras.layers.Concatenate()([keras.layers.Flatten()(h), x])
    h = keras.layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.1), name="h")(h)
    h = keras.layers.BatchNormalization(name="bn")(h)
    h = keras.layers.Dropout(0.5, name="drop")(h)
    a = keras.layers.Dense(3, name="a", activity_regularizer=keras.regularizers.L2(0.05))(h)
    b = keras.layers.Dense(1, name="b")(h)
    model = keras.Model({"words": words, "x": x}, {"a": a, "b": b})
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss={"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"},
        loss_weights={"a": 0.5, "b": 2.0},
    )
    return model


def two_head_batch():
    x, y, w = batch()
    words = np.random.default_rng(1).integers(0, 5, (N, 2)).astype("int32")
    return {"words": words, "x": x}, {"a": y, "b": x[:, :1]}, {"a": w, "b": w[::-1].copy()}


def state_of(model):
    variables = [*model.variables, *model.metrics_variables]
    return [np.array(v) for v in variables if v.path.split("/")[-1] != "iterations"]


def same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_the_value_is_what_keras_evaluates(micro_batch_size):
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    model, (x, y, w) = two_heads(), two_head_batch()
    model.get_layer("a").activity_regularizer = None  # Keras divides it by the micro-batch
    expected = model.evaluate(x, y, sample_weight=w, batch_size=N, verbose=0)[0]
    f = BatchLoss(model, x, y, w, micro_batch_size=micro_batch_size)
    assert float(f.loss(f.read_weights())) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_is_autodiff_through_the_model_itself(training):
    import tensorflow as tf

    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    model, (x, y, w) = two_heads(), two_head_batch()
    model.get_layer("drop").rate = 0.0
    f = BatchLoss(model, x, y, w, training=training)
    value, found = f.gradient(f.read_weights())
    with tf.GradientTape() as tape:
        expected = model.compute_loss(x, y, model(x, training=training), w)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    expected = tape.gradient(expected, [v.value for v in model.trainable_variables])
    assert f.reached == [True] * len(found)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradient_of_the_whole():
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    model, data = two_heads(), two_head_batch()
    whole, parts = (BatchLoss(model, *data, micro_batch_size=size) for size in (None, 4))
    weights = whole.read_weights()
    for a, b in zip(whole.gradient(weights)[1], parts.gradient(weights)[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    gradients = list(parts.micro_batch_gradients(weights))
    assert len(gradients) == 2  # of 4 and of 2 examples
    mean = (gradients[0][0] * 4 + gradients[1][0] * 2) / 6
    np.testing.assert_allclose(mean, parts.gradient(weights)[1][0], rtol=1e-4, atol=2e-6)


def test_the_model_stays_as_it_is_and_f_is_one_function():
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    model, data = two_heads(), two_head_batch()
    x, y, w = data
    model.fit(x, y, sample_weight=w, verbose=0)
    before = state_of(model)
    f = BatchLoss(model, *data, training=True)
    weights = f.read_weights()
    values = {float(f.loss(weights)) for _ in range(3)}
    assert len(values) == 1  # the same dropout masks each time
    f.gradient([w + 1 for w in weights])
    f.hessian_vector(weights, weights)
    assert same(before, state_of(model))
    model.fit(x, y, sample_weight=w, verbose=0)  # and it can be trained on
    assert not same(before, state_of(model))


def test_a_failure_leaves_the_model_as_it_was():
    import tensorflow as tf

    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    def loss(y, output):
        tf.debugging.assert_less(output, 1e3, "too large")
        return keras.ops.mean(output**2, axis=-1)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss=loss, run_eagerly=True)
    x = batch()[0]
    before = state_of(model)
    f = BatchLoss(model, x, x)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        f.gradient([w + 1e6 for w in f.read_weights()])
    assert not keras.src.backend.in_stateless_scope()
    assert same(before, state_of(model))


def test_a_variable_that_the_loss_does_not_reach_has_a_gradient_of_zeros():
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    x = keras.Input((4,))
    used, unused = (keras.layers.Dense(1, use_bias=False, name=name) for name in ("a", "b"))
    model = keras.Model(x, [used(x), unused(x)])
    model.compile(loss=["mse", None])
    data = batch()[0]
    f = BatchLoss(model, data, [data[:, :1], data[:, :1]])
    gradient = f.gradient(f.read_weights())[1]
    assert f.reached == [True, False]
    assert np.any(gradient[0]) and not np.any(gradient[1])


def test_within_a_strategy_the_loss_is_not_divided_by_the_replicas():
    from replicas import strategy_of
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    strategy = strategy_of(2)
    with strategy.scope():
        model = two_heads()
    model.get_layer("a").activity_regularizer = None
    data = two_head_batch()
    with strategy.scope():
        f = BatchLoss(model, *data)
        weights = f.read_weights()
        within = float(f.loss(weights))
    assert within == pytest.approx(float(f.loss(weights)), rel=1e-6)
    alone = two_heads()
    alone.get_layer("a").activity_regularizer = None
    alone.set_weights(model.get_weights())
    f = BatchLoss(alone, *data)
    assert within == pytest.approx(float(f.loss(f.read_weights())), rel=1e-6)


def small(loss="mse", dtype="float32", compiled=True):
    model = keras.Sequential(
        [keras.Input((4,), dtype=dtype), keras.layers.Dense(1, dtype=dtype, name="d")]
    )
    if compiled:
        model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("empty", "at least 1. Received: 0, 0 examples"),
        ("uneven", "same number of examples.*Received: 6, 5 examples"),
        ("structure", "structure"),
        ("not compiled", "built and compiled.*compiled=False"),
        ("not built", "built=False"),
        ("half", "must be float32 or float64.*d/kernel in bfloat16"),
        ("frozen", "must have trainable variables"),
        ("sum", "reduction='sum'. Use one of"),
        ("by weights", "divides by the sum of the weights.*Leave out micro_batch_size"),
        ("micro", "micro_batch_size must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(case, words):
    from tf_largebatch.diagnostics.batch_loss import BatchLoss

    x = batch()[0]
    y, weight, options, model = x[:, :1], None, {}, small()
    if case == "empty":
        x, y = x[:0], y[:0]
    elif case == "uneven":
        y = y[:5]
    elif case == "structure":
        y = {"a": y, "b": y}
    elif case == "not compiled":
        model = small(compiled=False)
    elif case == "not built":
        model = keras.Sequential([keras.layers.Dense(1)])
    elif case == "half":
        model = small(dtype="bfloat16")
    elif case == "frozen":
        model.trainable = False
    elif case == "sum":
        model = small(keras.losses.MeanSquaredError(reduction="sum"))
    elif case == "by weights":
        model = small(keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
        weight, options = np.ones(N), {"micro_batch_size": 2}
    elif case == "micro":
        options = {"micro_batch_size": 0}
    with pytest.raises(ValueError, match=words):
        BatchLoss(model, x, y, weight, **options)
