"""Sharpness against the closed form on quadratics, and all corners where there are few."""

import itertools
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
    model.compile(loss="mse")
    model.set_weights([np.reshape(w, (n, 1))])
    return model, x.astype(dtype), np.zeros((n, 1), dtype)


def half_widths(w, epsilon, box):
    return epsilon * (np.abs(w) + 1) if box == "relative" else np.full(len(w), epsilon / 2)


@pytest.mark.parametrize("box", ["absolute", "relative"])
@pytest.mark.parametrize("w", [[0.0, 0.0, 0.0], [0.3, -0.2, 0.1]])
def test_diagonal(box, w):
    """f(w + z) = sum a (|w| + h)^2 / 2 at the best corner; at the minimum it's sum a h^2 / 2."""
    from tf_largebatch.diagnostics.sharpness import sharpness

    a, w, epsilon = np.array([5.0, 1.0, 0.1]), np.array(w), 0.02
    h = half_widths(w, epsilon, box)
    f = (a * w**2).sum() / 2
    expected = ((a * (np.abs(w) + h) ** 2).sum() / 2 - f) / (1 + f)
    model, x, y = quadratic(np.diag(a), w)
    before = model.get_weights()
    found = sharpness(model, x, y, epsilon=epsilon, box=box)
    assert found == pytest.approx(expected, rel=1e-3)
    assert np.array_equal(before[0], model.get_weights()[0])
    assert sharpness(model, x, y, epsilon=epsilon, box=box, micro_batch_size=2) == pytest.approx(
        found, rel=1e-3
    )


@pytest.mark.parametrize("box", ["absolute", "relative"])
@pytest.mark.parametrize("seed", range(4))
def test_with_terms_off_the_diagonal_it_is_the_best_of_all_corners(box, seed):
    from tf_largebatch.diagnostics.sharpness import sharpness

    random = np.random.default_rng(seed)
    root = random.normal(size=(4, 4))
    A, w, epsilon = root @ root.T + 0.1 * np.eye(4), 0.01 * random.normal(size=4), 0.1
    h = half_widths(w, epsilon, box)
    f = w @ A @ w / 2
    corners = [w + h * np.array(signs) for signs in itertools.product((-1, 1), repeat=4)]
    expected = (max(v @ A @ v / 2 for v in corners) - f) / (1 + f)
    found = sharpness(*quadratic(A, w), epsilon=epsilon, box=box, random_starts=12)
    assert found == pytest.approx(expected, rel=1e-3)


def test_within_the_box_where_the_highest_point_is_no_corner():
    """-(w - 0.02)^2 around 0: the rise ends within the box, and steps are halved to find it."""
    from tf_largebatch.diagnostics.sharpness import sharpness

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(loss=lambda y, output: y - (output - 0.02) ** 2)
    model.set_weights([np.zeros((1, 1))])
    one = np.ones((1, 1))
    found = sharpness(model, one, one, epsilon=0.2, random_starts=0)
    f = 1 - 0.02**2
    assert found == pytest.approx((1 - f) / (1 + f), rel=0.05)


def test_it_is_what_the_seed_says_and_at_a_minimum_needs_random_starts():
    from tf_largebatch.diagnostics.sharpness import sharpness

    model, x, y = quadratic(np.diag([2.0, 1.0]), np.zeros(2))
    assert sharpness(model, x, y, random_starts=0) == 0.0
    values = [sharpness(model, x, y, seed=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1]
    assert values == [pytest.approx(3 / 2 * 0.0005**2, rel=1e-3)] * 3


def test_a_wide_valley_is_less_sharp_than_a_narrow_one():
    from tf_largebatch.diagnostics.sharpness import sharpness

    wide, narrow = (sharpness(*quadratic(a * np.eye(3), np.zeros(3))) for a in (1.0, 50.0))
    assert narrow == pytest.approx(50 * wide, rel=1e-3)


def test_a_loss_that_is_not_finite_gives_nan():
    from tf_largebatch.diagnostics.sharpness import sharpness

    assert math.isnan(sharpness(*quadratic(np.eye(2), [np.nan, 0])))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": "keskar"}, "box must be one of.*Received: 'keskar'"),
        ({"epsilon": 0}, "epsilon must be a finite number above 0"),
        ({"epsilon": math.inf}, "epsilon must be a finite number above 0"),
        ({"random_starts": -1}, "random_starts must be a whole number of at least 0"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1"),
    ],
)
def test_an_argument_out_of_range_is_refused(options, words):
    from tf_largebatch.diagnostics.sharpness import sharpness

    with pytest.raises(ValueError, match=words):
        sharpness(*quadratic(np.eye(2), [1, 1]), **options)


def test_sixteen_bits_and_a_loss_below_minus_one_are_refused():
    from tf_largebatch.diagnostics.sharpness import sharpness

    model, x, y = quadratic(np.eye(2), [1, 1])
    model.compile(loss=lambda y, output: y - 2)
    with pytest.raises(ValueError, match=r"must be above -1.*Received: f=-2.0"):
        sharpness(model, x, y)
    keras.config.set_dtype_policy("mixed_float16")
    narrow = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="narrow")])
    narrow.compile(loss="mse")
    with pytest.raises(ValueError, match="Sharpness must be computed in float32.*layer narrow"):
        sharpness(narrow, x, y)
