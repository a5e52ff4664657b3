"""Local response normalisation, against the formula in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from models.lrn import LocalResponseNormalization


def oracle(x, size, alpha, beta, k):
    """Caffe's formula, one channel after the other, in float64."""
    x = x.astype("float64")
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(0, c - size // 2) : c + size // 2 + 1]
        y[..., c] = x[..., c] / (k + alpha / size * (near**2).sum(-1)) ** beta
    return y


@pytest.mark.parametrize("channels", [1, 2, 4, 9])
@pytest.mark.parametrize(
    "options", [{}, {"size": 3, "alpha": 2.0, "beta": 0.5, "k": 0.3}, {"size": 1, "alpha": 1.0}]
)
def test_follows_caffes_formula(channels, options):
    x = 30 * np.random.default_rng(channels).normal(size=(2, 3, 4, channels)).astype("float32")
    expected = oracle(x, **{"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0, **options})
    y = ops.convert_to_numpy(LocalResponseNormalization(**options)(x))
    np.testing.assert_allclose(y, expected, rtol=2e-6)


def test_half_precision_rounds_the_result_only():
    x = ops.cast(30 * np.random.default_rng(0).normal(size=(9, 9, 9, 64)), "bfloat16")
    y = LocalResponseNormalization(alpha=1e-2, dtype="mixed_bfloat16")(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    exact = oracle(ops.convert_to_numpy(ops.cast(x, "float32")), 5, 1e-2, 0.75, 1.0)
    rounded = ops.cast(exact.astype("float32"), "bfloat16")
    # In float32 a few results lie so near the middle that they round the other way.
    assert np.mean(ops.convert_to_numpy(ops.cast(y == rounded, "float32"))) > 0.995


@pytest.mark.tensorflow  # JAX has no float64 unless it is switched on
def test_float64_is_not_rounded():
    x = 30 * np.random.default_rng(0).normal(size=(2, 3, 4, 7))
    y = LocalResponseNormalization(dtype="float64")(x)
    expected = oracle(x, 5, 1e-4, 0.75, 1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, rtol=1e-14)


def test_comes_back_from_its_config():
    layer = LocalResponseNormalization(size=3, alpha=0.1, beta=0.5, k=2.0, name="n")
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert (again.size, again.alpha, again.beta, again.k, again.name) == (3, 0.1, 0.5, 2.0, "n")


@pytest.mark.parametrize("size", [0, 2, -1, 5.0, None])
def test_refuses_an_even_window(size):
    with pytest.raises(ValueError, match="odd positive integer.*Received: size="):
        LocalResponseNormalization(size=size)


def test_refuses_a_k_of_zero():
    with pytest.raises(ValueError, match="k must be above 0.*Received: k=0"):
        LocalResponseNormalization(k=0)
