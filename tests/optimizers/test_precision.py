"""bfloat16 and float16 weights: updates smaller than their rounding are not lost."""

import math

import keras
import numpy as np
import pytest

from halves import HALVES, half, problem, residuals, rounded, variables_of
from replicas import strategy_of
from stepping import MODES, run
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB

ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
MODE = MODES[0]
ROUNDINGS = ("compensated", "stochastic")


def weights32(optimizer, variables):
    """variable + residual, checked: exact in float32, and the variable its nearest value."""
    found = []
    for variable, residual in zip(variables, residuals(optimizer), strict=True):
        value = np.float64(variable.numpy())
        exact = value if residual is None else value + residual
        weight = np.float32(exact)
        np.testing.assert_array_equal(weight, exact)
        if residual is not None:
            np.testing.assert_array_equal(rounded(weight, variable.dtype), value)
        found.append(weight)
    return found


# Small updates move


def small_steps(name, **options):
    """An optimizer that takes a 10000th of the weight off at each update."""
    if name == "LARS":
        return LARS(0.1, momentum=0.0, weight_decay=0.0, **options)
    return ALL[name](1e-4, weight_decay=0.0, **options)


def test_naive_rounding_stands_still():
    """Half the spacing of bfloat16 below 1 is 1/512: 200 updates of 1e-4 are lost, one by one."""
    w = half(np.ones(4))
    run(keras.optimizers.SGD(1e-4), [w], [[np.ones(4, "float32")]] * 200, MODE)
    np.testing.assert_array_equal(np.float32(w.numpy()), 1.0)


@pytest.mark.parametrize("weight_rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ALL)
def test_updates_far_below_the_rounding_add_up(name, weight_rounding):
    w = half(np.ones(1000))
    optimizer = small_steps(name, weight_rounding=weight_rounding)
    run(optimizer, [w], [[np.ones(1000, "float32")]] * 200, MODE)
    expected = (1 - 1e-4) ** 200  # 0.9802
    if weight_rounding == "compensated":
        np.testing.assert_allclose(weights32(optimizer, [w])[0], expected, atol=1e-5)
        np.testing.assert_array_equal(np.float32(w.numpy()), rounded(expected))
    else:
        # An update rounds to a neighbour 1/256 away with probability 1e-4 * 256.
        deviation = math.sqrt(200 * 1e-4 / 256 / 1000)
        assert abs(np.float64(w.numpy()).mean() - expected) < 4 * deviation
        assert 4 * deviation < (1 - expected) / 10


# Compensated: a float32 weight in two parts


def trained(optimizer, dtypes, start, gradients, mode):
    variables = variables_of(dtypes, start)
    run(optimizer, variables, gradients, mode)
    return weights32(optimizer, variables)


def assert_same_weights(ours, expected, mode):
    for a, b in zip(ours, expected, strict=True):
        if mode in ("eager", "graph"):
            np.testing.assert_array_equal(a, b)
        else:  # XLA sums a norm in another order where other work is fused with it
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


FOLLOWED = [(name, dtype, MODE) for name in ALL for dtype in HALVES]
FOLLOWED += [(name, "bfloat16", mode) for name in ALL for mode in MODES[1:]]


@pytest.mark.parametrize("name, dtype, mode", FOLLOWED)
def test_compensated_follows_float32_bit_for_bit(name, dtype, mode):
    start, gradients = problem(dtype)
    ours, expected = (
        trained(ALL[name](0.05), dtypes, start, gradients, mode)
        for dtypes in ([dtype, "float32", dtype], ["float32"] * 3)
    )
    assert_same_weights(ours, expected, mode)
    assert (expected[0] != rounded(expected[0], dtype)).mean() > 0.9  # much would have been lost


@pytest.mark.parametrize(
    "options",
    [
        {"use_ema": True, "ema_momentum": 0.9},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
        {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 4},
    ],
)
def test_averages_and_accumulation_are_of_the_float32_weights(options):
    start, gradients = problem("bfloat16", updates=7)
    found = []
    for dtype in ("bfloat16", "float32"):
        optimizer = LAMB(0.05, **options)
        found.append(trained(optimizer, [dtype] * 3, start, gradients, MODE))
        found.append([v.numpy() for v in optimizer._model_variables_moving_average])
    assert_same_weights(found[0], found[2], MODE)
    assert_same_weights(found[1], found[3], MODE)


def test_the_final_average_is_kept_whole():
    start, gradients = problem("bfloat16", shapes=((9,),), updates=3)
    w, optimizer = half(start[0]), LAMB(0.05, use_ema=True, ema_momentum=0.9)
    run(optimizer, [w], gradients, MODE)
    optimizer.finalize_variable_values([w])
    average = optimizer._model_variables_moving_average[0].numpy()
    np.testing.assert_array_equal(weights32(optimizer, [w])[0], average)
    assert np.any(average != rounded(average))


def held_still(optimizer, w):
    """One update of rate 0: what it takes for the weights is what it leaves."""
    run(optimizer, [w], [[np.ones(w.shape, "float32")]], MODE, rates=[0.0])
    return np.float32(w.numpy())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ALL)
def test_weights_assigned_after_build_are_taken_as_they_are(name, dtype):
    w, optimizer = half(np.linspace(0.5, 0.99, 64), dtype), small_steps(name)
    run(optimizer, [w], [[np.ones(64, "float32")]] * 3, MODE)
    stale = residuals(optimizer)[0].copy()
    spacing = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    assert np.all(np.abs(stale) > 1e-3 * spacing)
    # Far smaller weights, whose spacing is below every residual: none can be theirs.
    assigned = rounded(np.linspace(1e-6, 2e-6, 64), dtype)
    w.assign(assigned)
    np.testing.assert_array_equal(held_still(optimizer, w), assigned)
    np.testing.assert_array_equal(residuals(optimizer)[0], 0.0)


def test_only_elements_that_were_assigned_lose_their_residual():
    w, optimizer = half(np.linspace(0.5, 0.99, 64)), small_steps("LAMB")
    run(optimizer, [w], [[np.ones(64, "float32")]] * 3, MODE)
    before, kept = np.float32(w.numpy()), residuals(optimizer)[0].copy()
    assigned = np.where(np.arange(64) % 2, before, rounded(1e-6))
    w.assign(assigned)
    np.testing.assert_array_equal(held_still(optimizer, w), assigned)
    np.testing.assert_array_equal(residuals(optimizer)[0], np.where(np.arange(64) % 2, kept, 0))


def test_a_residual_that_fits_larger_weights_changes_none():
    w, optimizer = half(np.linspace(0.5, 0.99, 64)), small_steps("LAMB")
    run(optimizer, [w], [[np.ones(64, "float32")]] * 3, MODE)
    assigned = rounded(np.linspace(-200, 200, 64))
    w.assign(assigned)
    np.testing.assert_array_equal(held_still(optimizer, w), assigned)


@pytest.mark.parametrize("weight_rounding", ROUNDINGS)
@pytest.mark.parametrize(
    "name, mode", [*((name, MODE) for name in ALL), *(("LAMB", mode) for mode in MODES[1:])]
)
def test_nan_reaches_the_whole_variable_and_no_residual(name, weight_rounding, mode):
    variables = [half(np.ones(3), name=n) for n in ("bad", "good")]
    optimizer = ALL[name](0.1, weight_rounding=weight_rounding)
    bad = np.float32([0.1, np.nan, 0.1])
    run(optimizer, variables, [[bad, np.full(3, 0.1, "float32")]] * 2, mode)
    assert np.isnan(np.float32(variables[0].numpy())).all()
    assert np.isfinite(np.float32(variables[1].numpy())).all()
    if weight_rounding == "compensated":
        np.testing.assert_array_equal(residuals(optimizer)[0], 0.0)
        assert np.all(np.isfinite(residuals(optimizer)[1]))


def test_weights_past_the_range_become_infinite_and_leave_no_residual():
    w = half([60000.0, -60000.0, 1.0], "float16")
    optimizer = LAMB(10.0, weight_decay=0.0)
    run(optimizer, [w], [[np.float32([-1.0, 1.0, 1.0])]], MODE)
    values = np.float32(w.numpy())
    assert values[0] == np.inf and values[1] == -np.inf
    np.testing.assert_array_equal(residuals(optimizer)[0][:2], 0.0)


# Stochastic: no state, but a draw that anyone can repeat


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ALL)
def test_stochastic_training_is_the_same_in_every_mode(name):
    start, gradients = problem("bfloat16", shapes=((16, 17), (5,)), updates=5)
    ends = []
    for mode in (*MODES, MODE):
        variables = [half(w, name=f"v{i}") for i, w in enumerate(start)]
        optimizer = ALL[name](0.01, weight_rounding="stochastic")
        ends.append(run(optimizer, variables, gradients, mode)[-1])
    for end in ends[1:]:
        for a, b in zip(end, ends[0], strict=True):
            np.testing.assert_array_equal(np.float32(a), np.float32(b))


def test_equal_variables_and_updates_are_rounded_otherwise():
    variables = [half(np.ones(400), name=n) for n in "ab"]
    gradients = [[np.ones(400, "float32")] * 2] * 2
    optimizer = small_steps("LARS", weight_rounding="stochastic")
    optimizer.learning_rate = 1000 * 2.0**-9  # a step is half the spacing below 1
    (a, b), (later, _) = (np.float32(w) for w in run(optimizer, variables, gradients, MODE))
    fell = [a < 1, b < 1, later < a]
    for one, other in ((0, 1), (0, 2)):
        assert 0.3 < np.mean(fell[one] == fell[other]) < 0.7


def test_the_draws_are_clocked_on_updates():
    """With accumulation the second micro-step draws what the first update draws."""
    ends = []
    for steps in (None, 2):
        w = half(np.linspace(0.5, 1, 500))
        optimizer = small_steps(
            "LARS", weight_rounding="stochastic", gradient_accumulation_steps=steps
        )
        run(optimizer, [w], [[np.ones(500, "float32")]] * 4 * (steps or 1), MODE)
        ends.append(np.float32(w.numpy()))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("dtypes", [["float16"], ["bfloat16", "float16", "float32"]])
def test_stochastic_rounding_takes_no_float16(dtypes):
    variables = [keras.Variable(1.0, dtype=d, name=f"v_{d}") for d in dtypes]
    optimizer = LAMB(weight_rounding="stochastic")
    with pytest.raises(ValueError, match=r"Received float16: v_float16\. Use .*compensated"):
        optimizer.build(variables)
    assert not optimizer.built


# Replicas


def trained_on_replicas(replicas, start, gradients, **options):
    """The values on each replica of the variable, and of its residual if it has one."""
    import tensorflow as tf

    strategy = strategy_of(replicas)
    with strategy.scope():
        w, optimizer = half(start), LAMB(0.01, **options)
        optimizer.build([w])

    @tf.function
    def step(g):
        strategy.run(lambda: optimizer.apply([g / replicas], [w]))

    for g in gradients:
        step(tf.cast(g, "bfloat16"))
    optimizer.finalize_variable_values([w])
    kept = [w, *optimizer._slots.get("residual", [])]
    return [[v.numpy() for v in strategy.experimental_local_results(k.value)] for k in kept]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "options",
    [
        {"weight_rounding": "stochastic"},
        {"weight_rounding": "stochastic", "gradient_accumulation_steps": 2},
        {"weight_rounding": "compensated"},
        {"gradient_accumulation_steps": 2, "use_ema": True, "ema_overwrite_frequency": 2},
    ],
)
def test_replicas_round_alike_and_as_one_device(options):
    (start,), gradients = problem("bfloat16", shapes=((40, 10),), updates=4)
    ends = (trained_on_replicas(n, start, [g for (g,) in gradients], **options) for n in (1, 2))
    for (one,), (first, second) in zip(*ends, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, one)
