"""L(x, g) against the closed form on quadratics, and float64 NumPy on a small tanh network."""

import csv
import math

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def quadratic(A, w, dtype="float32"):
    """A model whose loss on the batch that comes with it is w'Aw / 2."""
    n = len(A)
    x = math.sqrt(n / 2) * np.linalg.cholesky(A).T
    model = keras.Sequential(
        [keras.Input((n,), dtype=dtype), keras.layers.Dense(1, use_bias=False, dtype=dtype)]
    )
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    model.set_weights([np.reshape(w, (n, 1))])
    return model, x.astype(dtype), np.zeros((n, 1), dtype)


def positive(seed, n=4):
    random = np.random.default_rng(seed)
    root = random.normal(size=(n, n))
    return root @ root.T + 0.1 * np.eye(n), random.normal(size=n)


@pytest.mark.parametrize("method", ["difference", "exact"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_on_a_quadratic_it_is_the_closed_form(method, scale):
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    A, w = positive(0)
    A, w = A * scale, w / math.sqrt(scale)
    g = A @ w
    expected = g @ A @ g / (g @ g)
    model, x, y = quadratic(A, w)
    before = model.get_weights()
    found = local_lipschitz(model, x, y, method=method)
    assert found == pytest.approx(expected, rel=1e-3 if method == "difference" else 1e-5)
    assert np.array_equal(before, model.get_weights())
    cut = local_lipschitz(model, x, y, method=method, micro_batch_size=3)
    assert cut == pytest.approx(found, rel=1e-3)


def test_in_float64_differences_are_finer():
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    keras.config.set_floatx("float64")  # else Keras' losses are float32
    A, w = positive(1)
    g = A @ w
    model, x, y = quadratic(A, w, "float64")
    assert local_lipschitz(model, x, y) == pytest.approx(g @ A @ g / (g @ g), rel=1e-7)


def tanh_network(seed, scale):
    """A network of 5, 7 and 2 units with its batch, and L(x, g) by float64 NumPy."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(9, 5)), random.normal(size=(9, 2))
    weights = [scale * random.normal(size=s) for s in ((5, 7), (7,), (7, 2), (2,))]
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(7, "tanh"), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    model.set_weights(weights)

    def gradient(weights):
        U, b, V, c = weights
        h = np.tanh(x @ U + b)
        error = 2 * (h @ V + c - y) / y.size
        back = (error @ V.T) * (1 - h**2)
        parts = (x.T @ back, back.sum(0), h.T @ error, error.sum(0))
        return np.concatenate([p.ravel() for p in parts])

    g = gradient(weights)
    d = g / np.linalg.norm(g)
    cuts = np.cumsum([w.size for w in weights])[:-1]
    shaped = [p.reshape(w.shape) for p, w in zip(np.split(d, cuts), weights, strict=True)]
    h = 1e-5
    ahead, behind = (
        gradient([w + s * h * p for w, p in zip(weights, shaped, strict=True)]) for s in (1, -1)
    )
    return model, x.astype("float32"), y.astype("float32"), d @ (ahead - behind) / (2 * h)


@pytest.mark.parametrize("seed, scale", [(0, 0.1), (1, 0.5), (2, 1.0), (3, 2.0)])
def test_on_a_network_both_methods_agree_with_numpy(seed, scale):
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    model, x, y, expected = tanh_network(seed, scale)
    assert local_lipschitz(model, x, y, method="exact") == pytest.approx(expected, rel=1e-4)
    assert local_lipschitz(model, x, y) == pytest.approx(expected, rel=1e-3)


def test_the_step_fits_the_length_over_which_the_gradient_changes():
    """cosh(50 w - 50) + 1e6 v: |w| says nothing of where the gradient bends."""
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(loss=lambda y, output: keras.ops.cosh(output - y))
    model.set_weights([np.float32([[1.01], [1000.0]])])
    found = local_lipschitz(model, np.float32([[50, 0]]), np.float32([[50]]))
    assert found == pytest.approx(2500 * math.cosh(0.5), rel=1e-3)


def test_where_the_gradient_vanishes_it_is_undefined():
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    A, _ = positive(2)
    for method in ("difference", "exact"):
        assert math.isnan(local_lipschitz(*quadratic(A, np.zeros(4)), method=method))
        assert math.isnan(local_lipschitz(*quadratic(A, np.full(4, np.nan)), method=method))


def test_sixteen_bits():
    from tf_largebatch.diagnostics.curvature import local_lipschitz

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, "tanh", name="narrow")])
    model.compile(loss="mse")
    x, y = np.ones((3, 5)), np.zeros((3, 7))
    with pytest.raises(ValueError, match=r"16 bits.*layer narrow.*mixed_bfloat16.*method='exact'"):
        local_lipschitz(model, x, y)
    wide = local_lipschitz(model, x, y, method="exact")
    keras.config.set_dtype_policy("float32")
    same = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, "tanh")])
    same.compile(loss="mse")
    same.set_weights(model.get_weights())
    assert wide == pytest.approx(local_lipschitz(same, x, y), rel=0.05)


def test_an_unknown_method_is_refused():
    from tf_largebatch.diagnostics.curvature import LocalLipschitz, local_lipschitz

    model, x, y = quadratic(*positive(0))
    with pytest.raises(ValueError, match="method must be one of.*Received: 'fd'"):
        local_lipschitz(model, x, y, method="fd")
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        LocalLipschitz(x, y, every=0)


def rows_of(path):
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["update", "local_lipschitz"]
    return [(int(update), float(value)) for update, value in rows]


class Snapshots(keras.callbacks.Callback):
    """The weights after each host call, by the number of updates."""

    def __init__(self):
        super().__init__()
        self.weights = {}

    def on_train_begin(self, logs=None):
        self.on_train_batch_end(0)

    def on_train_batch_end(self, batch, logs=None):
        self.weights[int(self.model.optimizer.iterations.numpy())] = self.model.get_weights()


def fitted(callbacks, replicas, calls):
    """A tanh network after 16 updates of 2 examples, and the logs of its epochs."""
    from replicas import strategy_of

    with strategy_of(replicas).scope():
        model, x, y, _ = tanh_network(0, 0.5)
        model.compile(keras.optimizers.SGD(0.05), loss="mse", steps_per_execution=calls)
    history = model.fit(
        x[:8], y[:8], batch_size=2, epochs=4, shuffle=False, verbose=0, callbacks=callbacks
    )
    return model, history.history


@pytest.mark.parametrize(
    ("replicas", "calls", "updates"),
    [(1, 1, [0, 5, 10, 15]), (1, 3, [0, 7, 11, 15]), (2, 1, [0, 5, 10, 15])],
)
def test_the_callback_in_fit(tmp_path, replicas, calls, updates):
    from tf_largebatch.diagnostics.curvature import LocalLipschitz, local_lipschitz

    alone, x, y, _ = tanh_network(0, 0.5)
    snapshots, path = Snapshots(), tmp_path / "new" / "l.csv"
    probe = LocalLipschitz(x, y, every=5, path=path)
    model, history = fitted([probe, snapshots], replicas, calls)
    rows = rows_of(path)
    assert [update for update, _ in rows] == updates
    assert rows == [(update, pytest.approx(value)) for update, value in probe.values]
    assert history["local_lipschitz"][-1] == probe.values[-1][1]
    for update, value in rows[-2:]:
        alone.set_weights(snapshots.weights[update])
        assert value == pytest.approx(local_lipschitz(alone, x, y), rel=1e-4)
    if replicas == 2:
        plain = fitted([], replicas, calls)[0]
        for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
            assert np.array_equal(a, b)


def trained(callbacks, folder, stop=None):
    import tensorflow as tf

    from tf_largebatch.training import checkpoint
    from tf_largebatch.training.trainer import Trainer

    model, x, y, _ = tanh_network(0, 0.5)
    model.optimizer.build(model.trainable_variables)
    trainer = Trainer(model, x, y, global_batch_size=3, updates_per_call=4)
    restored = checkpoint.restore(folder, model)
    first, progress = restored or (0, {})
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3).repeat().skip(first)
    trainer.fit(
        data, num_examples=9, total_updates=18, first_update=first, stop_update=stop,
        checkpoint_dir=folder, checkpoint_every=9, callbacks=callbacks, progress=progress,
        verbose=0,
    )  # fmt: skip


def test_the_callback_in_a_trainer_that_is_stopped_and_resumed(tmp_path):
    from tf_largebatch.diagnostics.curvature import LocalLipschitz

    _, x, y, _ = tanh_network(0, 0.5)
    whole, path = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    trained([LocalLipschitz(x, y, every=4, path=whole)], str(tmp_path / "a"))
    # Calls of Trainer end where epochs do, every 3 updates, and at the multiples of `every`.
    assert [update for update, _ in rows_of(whole)] == [0, 4, 8, 12, 16]
    first = LocalLipschitz(x, y, every=4, path=path)
    trained([first], str(tmp_path / "b"), stop=12)
    with open(path, "a") as file:
        file.write("15,1.0\n")  # of a run that was killed past its checkpoint
    again = LocalLipschitz(x, y, every=4, path=path)
    trained([again], str(tmp_path / "b"))
    assert path.read_text() == whole.read_text()
    assert [update for update, _ in again.values] == [16]
    assert not list(tmp_path.glob("unfinished-*"))
    assert again.get_state() == {"local_lipschitz": again.values[-1][1]}
