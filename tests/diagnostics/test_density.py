"""psi_g, psi_sigma and psi_L against float64 NumPy on quadratics of several layers."""

import math

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow
SIZES = (3, 2, 4)
N = 12


def layers(sizes=SIZES):
    """The loss mean over examples of (sum over layers of x_i w_i - y)^2, and its batch."""
    inputs = [keras.Input((size,)) for size in sizes]
    outputs = [
        keras.layers.Dense(1, use_bias=False, name=f"layer_{i}")(x) for i, x in enumerate(inputs)
    ]
    model = keras.Model(inputs, keras.layers.Add()(outputs) if len(outputs) > 1 else outputs[0])
    model.compile(loss="mse")
    random = np.random.default_rng(0)
    x = [random.normal(size=(N, size)) * 3**i for i, size in enumerate(sizes)]
    return model, x, random.normal(size=(N, 1))


def oracle(weights, x, y, micro_batch_size):
    """g_i, sigma_i and |H_ii g_i| / |g_i| of each layer, in float64."""
    weights = [np.float64(w) for w in weights]
    error = sum(a @ w for a, w in zip(x, weights, strict=True)) - y
    norms, sigmas, lipschitz = [], [], []
    for a in x:
        each = 2 * error * a  # (examples, weights): the gradient of each example's loss
        g = each.mean(0)
        parts = each.reshape(-1, micro_batch_size, a.shape[1]).mean(1)
        variance = ((parts - g) ** 2).sum() / (len(parts) - 1)
        norms.append(np.linalg.norm(g))
        sigmas.append(math.sqrt(micro_batch_size * variance))
        hessian = 2 * a.T @ a / len(a)
        lipschitz.append(np.linalg.norm(hessian @ g) / np.linalg.norm(g))
    return norms, sigmas, lipschitz


@pytest.mark.parametrize("method", ["difference", "exact"])
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_the_figures_are_those_of_numpy(method, micro_batch_size):
    from tf_largebatch.diagnostics.density import density

    model, x, y = layers()
    before = model.get_weights()
    found = density(model, x, y, micro_batch_size=micro_batch_size, method=method)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    norms, sigmas, lipschitz = oracle(before, x, y, micro_batch_size)
    assert found.layers == [f"layer_{i}/kernel" for i in range(3)]
    np.testing.assert_allclose(found.gradient_norms, norms, rtol=1e-4)
    np.testing.assert_allclose(found.sigmas, sigmas, rtol=1e-4)
    np.testing.assert_allclose(found.lipschitz, lipschitz, rtol=1e-3)
    h, d = 3, sum(SIZES)
    psi_g = h * sum(norms) ** 2 / (d * sum(n**2 for n in norms))
    psi_sigma = h * sum(sigmas) ** 2 / (d * sum(s**2 for s in sigmas))
    psi_L = h**2 * sum(lipschitz) ** 2 / (d**2 * max(lipschitz) ** 2)
    assert found.psi_g == pytest.approx(psi_g, rel=1e-4)
    assert found.psi_sigma == pytest.approx(psi_sigma, rel=1e-4)
    assert found.psi_L == pytest.approx(psi_L, rel=2e-3)
    assert found.curvature_quotient == pytest.approx(psi_L / psi_g**2, rel=2e-3)
    assert found.noise_quotient == pytest.approx(psi_sigma / psi_g**2, rel=1e-3)
    expected = (math.sqrt(psi_L) / psi_g, psi_sigma / psi_g)
    assert found.bound_factors == pytest.approx(expected, rel=2e-3)


def test_the_noise_does_not_depend_on_how_it_is_cut():
    """sigma_i^2 is that of one example, whatever the micro-batch: without bias over many draws."""
    import tensorflow as tf

    from tf_largebatch.diagnostics.density import _mean_and_variances

    random = np.random.default_rng(0)
    each = random.normal(size=(100, 12, 5)) * 2  # sigma^2 = 5 * 4
    for size in (1, 3, 6):
        parts = each.reshape(100, 12 // size, size, 5).mean(2)
        found = [_mean_and_variances([[tf.constant(g)] for g in draw])[1] for draw in parts]
        assert size * np.mean(found) == pytest.approx(20, rel=0.1)


def layer_gradients(gradients, hessians=None):
    """A Density of layers whose noise is as their gradients; of the given Lipschitz constants."""
    from tf_largebatch.diagnostics.density import Density, _psi

    h, d = len(gradients), 10 * len(gradients)
    hessians = hessians or gradients
    psi_L = (h * sum(hessians) / (d * max(hessians))) ** 2
    psi = _psi(gradients, h, d)
    return Density(psi, psi, psi_L, list("abcdefgh")[:h], gradients, gradients, hessians)


def test_the_range_that_the_docstring_states():
    h, d = 4, 40
    dense, sparse = layer_gradients([1.0] * 4), layer_gradients([1.0, 0.0, 0.0, 0.0])
    assert (sparse.psi_g, dense.psi_g) == pytest.approx((h / d, h**2 / d))
    assert (sparse.psi_L, dense.psi_L) == pytest.approx(((h / d) ** 2, (h**2 / d) ** 2))
    assert dense.bound_factors == pytest.approx((1, 1))
    assert dense.noise_quotient == pytest.approx(d / h**2)


def test_the_printed_verdict():
    from tf_largebatch.diagnostics.density import Density

    def verdict(psi_g, psi_sigma, psi_L):
        return Density(psi_g, psi_sigma, psi_L, [], [], [], []).lars_bound_is_better

    assert verdict(0.5, 0.2, 0.2)
    assert not verdict(0.5, 0.3, 0.2)  # the noise is denser than the gradient's square
    assert not verdict(0.5, 0.2, 0.3)  # the curvature is
    assert not verdict(0.5, math.nan, 0.2)


def test_a_layer_without_gradient_and_one_that_is_not_reached():
    from tf_largebatch.diagnostics.density import density

    x, z = keras.Input((3,)), keras.Input((2,))
    heads = [keras.layers.Dense(1, use_bias=False, name=n)(i) for n, i in (("a", x), ("b", z))]
    unused = keras.layers.Dense(1, name="c")(x)
    model = keras.Model([x, z], [keras.layers.Add()(heads), unused])
    model.compile(loss=["mse", None])
    data = np.random.default_rng(0).normal(size=(4, 3))
    y = np.ones((4, 1))
    found = density(model, [data, np.zeros((4, 2))], [y, y], micro_batch_size=2)
    assert found.layers == ["a/kernel", "b/kernel"]
    assert found.gradient_norms[0] > 0 and found.lipschitz[0] > 0
    assert (found.gradient_norms[1], found.sigmas[1], found.lipschitz[1]) == (0, 0, 0)
    assert found.psi_g == pytest.approx(2 / 5)  # one of two layers, of 5 weights
    nothing = density(model, [data * 0, np.zeros((4, 2))], [y, y], micro_batch_size=2)
    assert all(map(math.isnan, nothing[:3])) and not nothing.lars_bound_is_better


@pytest.mark.parametrize("micro_batch_size", [5, 12, 24])
def test_a_batch_that_has_no_equal_parts_is_refused(micro_batch_size):
    from tf_largebatch.diagnostics.density import density

    with pytest.raises(ValueError, match="must divide the batch into at least 2 parts"):
        density(*layers(), micro_batch_size=micro_batch_size)
