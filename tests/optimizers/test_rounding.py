"""Rounding to bfloat16 and float16, to nearest and at random, against NumPy and by its laws."""

import math

import keras
import numpy as np
import pytest

from halves import HALVES, rounded
from stepping import MODES
from tf_largebatch.optimizers import _rounding as rounding

MODE = MODES[0]


def compute(function, mode, *arrays):
    """What `function` of keras.ops returns, as NumPy, run in one of MODES."""
    tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
    if mode == "jit":
        import jax

        function = jax.jit(function)
    elif mode != "eager":
        import tensorflow as tf

        function = tf.function(function, jit_compile=mode == "xla")
    return keras.tree.map_structure(keras.ops.convert_to_numpy, function(*tensors))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", HALVES)
def test_nearest_is_the_cast_of_numpy(dtype, mode):
    random = np.random.default_rng(0)
    w = random.normal(size=3000) * np.exp2(random.integers(-30, 20, 3000))
    ties = np.ldexp(1.0, -9) * np.arange(-40, 41) + np.sign(np.arange(-40, 41))
    ties = np.concatenate([ties, np.ldexp(ties, 3 - 9), np.ldexp(np.arange(-40, 41), -26)])
    edges = [0.0, -0.0, 65504.0, 65519.99, 65520.0, -65520.0, 1e30, 3.39e38, 3.4e38, 2**-14]
    edges += [np.inf, -np.inf, np.nan, np.nextafter(np.float32(2**-14), np.float32(0))]
    w = np.float32(np.concatenate([w, ties, edges]))
    expected = rounded(w, dtype)
    ours, rest = compute(lambda x: rounding.split(x, dtype), mode, w)
    np.testing.assert_array_equal(ours, expected)
    fits = np.isfinite(expected)
    np.testing.assert_array_equal(np.float64(ours[fits]) + rest[fits], w[fits])
    np.testing.assert_array_equal(rest[~fits], 0.0)
    joined = compute(lambda a, b: rounding.joined(a, b, dtype), mode, ours, rest)
    np.testing.assert_array_equal(joined, np.where(fits, w, expected))


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", HALVES)
def test_nothing_is_cast_there_and_back(dtype):
    """XLA takes that for the identity on GPUs, not on CPUs: a rest of zero would go unseen here."""
    import tensorflow as tf

    joined = lambda w: rounding.joined(*rounding.split(w, dtype), dtype)  # noqa: E731
    graph = tf.function(joined).get_concrete_function(tf.ones(3)).graph
    types = {tensor.dtype for op in graph.get_operations() for tensor in op.outputs}
    assert tf.uint32 in types and tf.as_dtype(dtype) not in types


def neighbours(w):
    """The bfloat16 values around float32 `w`, nearer to zero and farther; equal if w is one."""
    bits = w.view("uint32")
    near = bits & np.uint32(0xFFFF0000)
    far = np.where(bits == near, near, near + np.uint32(0x10000)).astype("uint32")
    return near.view("float32"), far.view("float32")


def drawn(w, mode=MODE, update=7, index=3):
    return compute(lambda x: rounding.stochastic(x, update, index), mode, np.float32(w))


@pytest.mark.parametrize("mode", MODES)
def test_stochastic_takes_both_neighbours_and_nothing_else(mode):
    random = np.random.default_rng(0)
    w = random.normal(size=20000) * np.exp2(random.integers(-120, 120, 20000))
    # Just below a power of two the farther neighbour is in the next binade.
    below = np.ldexp(1 - 2.0**-20, np.arange(-100, 100))
    w = np.float32(np.concatenate([w, below, -below]))
    ours = drawn(w, mode)
    near, far = neighbours(w)
    assert np.all((ours == near) | (ours == far))
    assert 0.45 < np.mean(ours[:20000] == far[:20000]) < 0.55
    assert np.mean(ours[20000:] == far[20000:]) > 0.99


@pytest.mark.parametrize("mode", MODES)
def test_stochastic_leaves_what_bfloat16_holds(mode):
    random = np.random.default_rng(0)
    held = rounded(random.normal(size=2000) * np.exp2(random.integers(-100, 100, 2000)))
    held = np.concatenate([held, np.float32([0.0, -0.0, np.inf, -np.inf, np.nan])])
    ours = drawn(held, mode)
    np.testing.assert_array_equal(ours, held)
    np.testing.assert_array_equal(np.signbit(ours[-5:-1]), np.signbit(held[-5:-1]))


def test_stochastic_near_zero_stays_near_zero():
    """Subnormal numbers may be flushed to zero, but never grow."""
    w = np.float32([1e-39, -1e-39, 1e-42, -1e-45] * 100)
    ours = drawn(w)
    assert np.all(np.abs(ours) <= np.float32(1.1e-39))
    assert not np.any(ours * np.sign(w) < 0)


@pytest.mark.parametrize("fraction", [2.0**-16, 0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("near", [1.0, -1.0, 255.0, -0.0078125, 1e-30])
def test_stochastic_is_right_in_the_mean(near, fraction):
    """Over 200,000 elements, within four standard errors; exactly as many bits as are dropped."""
    near = rounded(near)
    spacing = np.float64(np.abs(neighbours(np.nextafter(near, near * 2))[1] - near))
    w = np.float32(near + np.sign(near) * fraction * spacing)
    ours = np.float64(drawn(np.full(200_000, w)))
    chance = np.float64(w - near) / (np.sign(near) * spacing)
    error = spacing * math.sqrt(chance * (1 - chance) / ours.size)
    assert abs(ours.mean() - np.float64(w)) < 4 * error


def ups(update, index, size=100_000):
    """Which of many elements half-way between two values are rounded up."""
    return np.float64(drawn(np.full(size, 1 + 2.0**-8), update=update, index=index) > 1)


def test_draws_of_other_updates_variables_and_elements_are_others():
    seen = {(t, i): ups(t, i) for t in (0, 1, 2, 1000, 2**31) for i in (0, 1, 2, 300)}
    draws = list(seen.values())
    bound = 4.5 / math.sqrt(draws[0].size)  # of a correlation; 210 pairs are looked at
    for j, a in enumerate(draws):
        assert abs(2 * a.mean() - 1) < bound
        for lag in (1, 2, 256, 1024):
            assert abs(np.corrcoef(a[lag:], a[:-lag])[0, 1]) < bound
        for b in draws[:j]:
            assert abs(np.corrcoef(a, b)[0, 1]) < bound


def test_draws_over_the_updates_are_right_in_the_mean():
    function = lambda t: rounding.stochastic(  # noqa: E731
        keras.ops.full((50,), 1 + 0.3 * 2.0**-7, "float32"), t, 5
    )
    counts = sum(compute(function, "eager", np.int32(t)) > 1 for t in range(400))
    deviation = math.sqrt(400 * 0.3 * 0.7)
    assert np.all(np.abs(counts - 120) < 4.5 * deviation)
    assert abs(counts.mean() - 120) < 4 * deviation / math.sqrt(50)


def finalised(h):
    """Murmur3's finaliser in Python's integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor % 2**32
    return h


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 1, 4), (0,), (2, 0)])
def test_the_draw_is_a_function_of_update_variable_and_element(shape, mode):
    """The same on every backend and in every mode, whatever the shape: elements are numbered."""
    update, index = 123_456, 17
    w = np.float32(np.random.default_rng(0).normal(size=shape))
    key = finalised((update + index * 0x9E3779B9) % 2**32)
    noise = [finalised((key + place * 0x85157AF5) % 2**32) >> 16 for place in range(w.size)]
    bits = w.ravel().view("uint32") + np.array(noise, "uint32").reshape(-1)
    expected = (bits & np.uint32(0xFFFF0000)).view("float32").reshape(shape)
    np.testing.assert_array_equal(drawn(w, mode, update, index), expected)
