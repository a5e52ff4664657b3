"""The gradient is that of sum(w * loss) / sum(w) over the global batch, against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from replicas import strategy_of
from tf_largebatch import LAMB
from tf_largebatch.layers import GroupBatchNormalization
from tf_largebatch.training.trainer import Trainer

pytestmark = pytest.mark.tensorflow
LAYOUTS = [(1, None), (1, 2), (2, None), (2, 2)]  # replicas, micro-batch of 8 examples in all


def linear(outputs, loss, **options):
    """x -> x w for each of the outputs, and SGD with rate 1: the step is minus the gradient."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5, 3))  # 5 tokens an example
    heads = [keras.layers.Dense(1, use_bias=False, name=name)(inputs) for name in outputs]
    model = keras.Model(inputs, heads[0] if len(heads) == 1 else heads)
    model.compile(keras.optimizers.SGD(1.0), loss=loss, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 5, 3)).astype("float32")
    y = random.normal(size=(8, 5, 1)).astype("float32")
    # Masked tokens, as in BERT: some batches of an update hold many, some none.
    w = (random.random((8, 5)) < 0.3).astype("float32")
    w[:2] = 0
    return x, y, w


def steps(layout, make, batch):
    """How the weights of each head moved in one update, and the loss of it."""
    replicas, micro_batch_size = layout
    with strategy_of(replicas).scope():
        model = make()
    before = [w.copy() for w in model.get_weights()]
    labels = batch[1]
    trainer = Trainer(
        model, batch[0], labels, global_batch_size=8, micro_batch_size=micro_batch_size
    )
    trainer.fit(
        tf.data.Dataset.from_tensors(batch).repeat(1),
        num_examples=8, total_updates=1, verbose=0,
    )  # fmt: skip
    moved = [b - a for b, a in zip(before, model.get_weights(), strict=True)]
    return before, moved, float(trainer.model.metrics[0].result())


def gradient(x, y, w, weights):
    """Of sum(weights * (x w - y)^2) / sum(weights), and that value."""
    x, y, w, weights = (np.float64(a) for a in (x, y, w, weights))
    error = (x @ w - y)[..., 0]
    slope = 2 * np.einsum("bt,bt,bti->i", weights, error, x)[:, None]
    return slope / weights.sum(), (weights * error**2).sum() / weights.sum()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_weights(layout):
    x, y, w = data()
    before, [moved], loss = steps(layout, lambda: linear(["a"], "mse"), (x, y, w))
    expected, value = gradient(x, y, before[0], w)
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("layout", [(1, 2), (2, 2)])
def test_weights_of_examples_hold_for_all_their_tokens(layout):
    x, y, _ = data()
    w = np.arange(8, dtype="float32")
    before, [moved], _ = steps(layout, lambda: linear(["a"], "mse"), (x, y, w))
    expected, _ = gradient(x, y, before[0], np.repeat(w[:, None], 5, axis=1))
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)


def test_no_weight_at_all_is_no_step():
    x, y, w = data()
    _, [moved], loss = steps((2, 2), lambda: linear(["a"], "mse"), (x, y, 0 * w))
    assert np.abs(moved).max() == 0
    assert loss == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_losses(layout, kind):
    """Each divided by its own weights, as a masked language model with a second head has them."""
    x, y, w = data()
    losses, factors, weights = ["mse", "mse"], [1.0, 0.25], [w, None]
    labels, names = [y, 2 * y], ["a", "b"]
    if kind == "dict":
        losses, factors, weights, labels = (
            dict(zip(names, values, strict=True)) for values in (losses, factors, weights, labels)
        )
        weights = {"a": w, "b": np.ones((8, 5), "float32")}
    else:
        weights = (w, np.ones((8, 5), "float32"))
        labels = tuple(labels)
    before, moved, loss = steps(
        layout, lambda: linear(names, losses, loss_weights=factors), (x, labels, weights)
    )
    first, value = gradient(x, y, before[0], w)
    second, other = gradient(x, 2 * y, before[1], np.ones((8, 5)))
    np.testing.assert_allclose(moved[0], first, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved[1], 0.25 * second, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(value + 0.25 * other, rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_the_evaluated_loss_is_that_of_all_examples_however_they_are_batched(replicas, batch_size):
    x, y, w = data()
    other = np.arange(1, 9, dtype="float32")
    with strategy_of(replicas).scope():
        model = linear(["a", "b"], ["mse", "mse"], loss_weights=[1.0, 0.5])
    trainer = Trainer(model, x, [y, y], global_batch_size=8)
    batches = tf.data.Dataset.from_tensor_slices((x, (y, y), (w, other))).batch(batch_size)
    expected = 0
    for factor, kernel, weights in zip((1, 0.5), model.get_weights(), (w, other), strict=True):
        weights = np.broadcast_to(weights.reshape(8, -1), (8, 5))
        expected += factor * gradient(x, y, kernel, weights)[1]
    for _ in range(2):  # nothing is left over from the first time
        assert trainer.evaluate(batches)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_dict_of_outputs_has_its_own_keys():
    """As in Keras: not the names of the layers."""
    x, y, _ = data()

    def make():
        inputs = keras.Input((5, 3))
        first, second = (keras.layers.Dense(1, use_bias=False, name=n)(inputs) for n in "qp")
        model = keras.Model(inputs, {"a": first, "b": second})
        model.compile(keras.optimizers.SGD(1.0), loss={"a": "mse", "b": "mse"})
        model.optimizer.build(model.trainable_variables)
        return model

    before, moved, _ = steps((1, None), make, (x, {"a": y, "b": 2 * y}))
    for w, step, labels in zip(before, moved, (y, 2 * y), strict=True):
        expected, _ = gradient(x, labels, w, np.ones((8, 5)))
        np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-6)


def test_an_output_without_a_loss_is_left_alone():
    x, y, _ = data()
    make = lambda: linear(["a", "b"], {"a": "mse", "b": None})  # noqa: E731
    with pytest.warns(UserWarning, match="Gradients do not exist for variables .'b/kernel'"):
        before, moved, _ = steps((1, None), make, (x, {"a": y}))
    expected, _ = gradient(x, y, before[0], np.ones((8, 5)))
    np.testing.assert_allclose(moved[0], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(moved[1]).max() == 0


@pytest.mark.parametrize(
    "outputs, loss, batch, words",
    [
        (["a"], None, None, "compiled with a loss"),
        (["a", "b"], {"c": "mse"}, None, "keyed by the model's outputs"),
        (["a", "b"], ["mse"], None, "a loss for each of the outputs"),
        (["a"], "mse", lambda x, y, w: (x, y, w[..., None, None]), "further into the shape"),
        (["a", "b"], ["mse", "mse"], lambda x, y, w: (x, (y,), w), "structure of the losses"),
    ],
)
def test_what_does_not_fit_is_refused(outputs, loss, batch, words):
    with pytest.raises(ValueError, match=words):
        steps((1, None), lambda: linear(outputs, loss), (batch or (lambda *b: b[:2]))(*data()))


def test_a_keras_mask_is_refused():
    inputs = keras.Input((5,))
    x = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.optimizer.build(model.trainable_variables)
    x, y = np.ones((8, 5), "float32"), np.ones((8, 5, 1), "float32")
    trainer = Trainer(model, x, y, global_batch_size=8)
    with pytest.raises(ValueError, match="give the same as weights"):
        trainer.fit(
            tf.data.Dataset.from_tensors((x, y)), num_examples=8, total_updates=1, verbose=0
        )


def test_groups_across_replicas_in_micro_batches():
    """8 examples in micro-batches of 2 on 2 replicas: groups of 4, one from each replica's two."""
    random = np.random.default_rng(0)
    x = random.normal(5.0, 2.0, size=(8, 3)).astype("float32")
    y = random.normal(size=(8, 1)).astype("float32")

    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,))
        normalised = GroupBatchNormalization(4, momentum=0.5)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(normalised))
        model.compile(LAMB(0.1), loss="mse")
        model.optimizer.build(model.trainable_variables)
        return model

    def trained(replicas, micro_batch_size, order, jit=False):
        with strategy_of(replicas).scope():
            model = make()
        trainer = Trainer(
            model, x, y, global_batch_size=8, micro_batch_size=micro_batch_size, jit=jit
        )
        batches = tf.data.Dataset.from_tensors((x[order], y[order])).repeat(5)
        trainer.fit(batches, num_examples=8, total_updates=5, verbose=0)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    # Replica 0 holds rows 0-3 and replica 1 rows 4-7; together they process 0, 1, 4, 5 first.
    many = trained(2, 2, np.arange(8))
    one = trained(1, 4, np.array([0, 1, 4, 5, 2, 3, 6, 7]))
    np.testing.assert_allclose(many, one, rtol=2e-5, atol=2e-6)
    with pytest.raises(ValueError, match="XLA compiles each replica's pass by itself"):
        trained(2, 2, np.arange(8), jit=True)
