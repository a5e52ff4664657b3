"""Gradients and weights that break naive implementations."""

import itertools

import keras
import numpy as np
import pytest

import oracles
from stepping import MODES, applier, run
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB, rules

ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
MODE = MODES[0]


def oracle_of(name, **options):
    if name == "LARS":
        return oracles.Lars(**options)
    betas = {} if name == "LAMB" else {"beta_1": 0.975, "epsilon": 1e-8}
    nesterov = {"LAMB": "", "NLAMB": "m", "NNLAMB": "mv"}[name]
    return oracles.Lamb(nesterov=nesterov, **betas, **options)


EXTREMES = list(itertools.product((1e25, 1e-25, 1e-21, 1.0), (1e25, 1e18, 1e-25, 1.0)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALL)
def test_huge_and_tiny_norms(name, mode):
    """The step is right although squares of these leave float32, and so may the ratio."""
    variable, optimizer = keras.Variable(np.zeros((2, 2), "float32"), name="w"), ALL[name](0.1)
    optimizer.build([variable])
    fresh = [v.numpy() for v in optimizer.variables]
    apply = applier(optimizer, [variable], mode)
    for size, gradient_size in EXTREMES:
        if name != "LARS" and gradient_size > 1e18:
            continue  # v overflows by definition
        w = np.float32([[3.0, -4.0], [1.0, 2.0]]) * np.float32(size)
        g = np.float32([[0.5, 0.2], [-1.0, 0.1]]) * np.float32(gradient_size)
        for own, value in zip([variable, *optimizer.variables], [w, *fresh], strict=True):
            own.assign(value)
        oracle, expected = oracle_of(name), w
        for _ in range(2):
            apply([g])
            expected, _ = oracle.step("w", expected, g, np.float32(0.1))
        ours, step = variable.numpy(), np.abs(expected - w).max()
        assert np.isfinite(ours).all(), (size, gradient_size)
        parting = np.abs(ours - expected).max()
        assert parting <= 0.01 * step + 2e-7 * size, (size, gradient_size)


@pytest.mark.parametrize("name", ALL)
def test_step_where_the_ratio_leaves_float32(name):
    """Without decay |w|/|g| is 1e50 or 1e-50; LARS must still move w by 0.1% a unit of rate."""
    for size, gradient_size in ((1e25, 1e-25), (1e-25, 1e25)):
        if name != "LARS" and gradient_size > 1e18:
            continue
        w, g = np.float32([3.0, 4.0]) * size, np.float32([0.6, 0.8]) * gradient_size
        variable = keras.Variable(np.float32(w), name="w")
        ours = run(ALL[name](0.5, weight_decay=0.0), [variable], [[np.float32(g)]], MODE)[-1][0]
        expected, _ = oracle_of(name, weight_decay=0.0).step("w", np.float32(w), np.float32(g), 0.5)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
        assert np.abs(ours - w).max() > 1e-4 * size


def test_norm_is_exact_from_denormal_squares_to_overflow():
    for exponent in range(-30, 31, 2):
        x = np.float32([3.0, 4.0]) * np.float32(10.0**exponent)
        for order, expected in ((2, 5.0), (1, 7.0), ("inf", 4.0)):
            ours = float(rules.norm(keras.ops.convert_to_tensor(x), order))
            assert ours == pytest.approx(expected * 10.0**exponent, rel=1e-6)
    assert float(rules.norm(keras.ops.zeros((3,)))) == 0.0
    assert float(rules.norm(keras.ops.zeros((0,)))) == 0.0
    assert np.isnan(float(rules.norm(keras.ops.convert_to_tensor([1.0, np.nan]))))
    assert np.isposinf(float(rules.norm(keras.ops.convert_to_tensor([1.0, np.inf]))))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALL)
def test_nan_reaches_the_whole_variable_and_no_other(name, mode):
    """A NaN must not pass for a zero norm, after which the healthy elements would move on."""
    variables = [keras.Variable(np.ones(3, "float32"), name=n) for n in ("bad", "good")]
    bad = np.float32([0.1, np.nan, 0.1])
    optimizer = ALL[name](0.1)
    history = run(optimizer, variables, [[bad, np.full(3, 0.1, "float32")]], mode)
    assert np.isnan(history[-1][0]).all()
    assert np.isfinite(history[-1][1]).all()


@pytest.mark.parametrize("name", ALL)
def test_zero_weights_move_and_zero_gradients_only_decay(name):
    variables = [keras.Variable(np.zeros(3, "float32"), name="w")]
    moved = run(ALL[name](0.1), variables, [[np.ones(3, "float32")]], MODE)[-1][0]
    assert (moved < 0).all()
    variables = [keras.Variable(np.ones(3, "float32"), name="w")]
    still = run(ALL[name](0.1, weight_decay=0.0), variables, [[np.zeros(3, "float32")]], MODE)
    np.testing.assert_array_equal(still[-1][0], 1.0)


DTYPES = ["float16", "bfloat16"]
if keras.backend.backend() != "jax":  # which has no float64 by default
    DTYPES += ["float64"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_other_dtypes(name, dtype, mode):
    """State is float32 at least, so that bfloat16's 0.999 = 1 does no harm."""
    w = np.float32([[0.5, -0.25], [1.0, 2.0]])
    g = np.float32([[0.5, 0.25], [-1.0, 0.125]])
    variable = keras.Variable(w, dtype=dtype, name="w")
    optimizer = ALL[name](0.125)
    ours = np.float64(run(optimizer, [variable], [[g]], mode)[-1][0])
    expected, _ = oracle_of(name).step("w", w, g, 0.125)
    rounding = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-12}[dtype]
    np.testing.assert_allclose(ours, expected, rtol=rounding)
    slots = [v for v in optimizer.variables if tuple(v.shape) == (2, 2)]
    assert {v.dtype for v in slots} == {"float64" if dtype == "float64" else "float32"}


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_follows_float32_over_many_updates(name):
    """Second moments stay sane: 30 updates end within bfloat16's rounding of float32's."""
    random = np.random.default_rng(1)
    gradients = [[random.normal(size=(8, 8)).astype("float32")] for _ in range(30)]
    start = random.normal(size=(8, 8)).astype("float32")
    ends = [
        np.float64(
            run(
                ALL[name](0.05),
                [keras.Variable(start, dtype=dtype, name="w")],
                gradients,
                MODE,
            )[-1][0]
        )
        for dtype in ("float32", "bfloat16")
    ]
    assert np.abs(ends[1] - ends[0]).max() < 0.1
    assert np.isfinite(ends[1]).all()


@pytest.mark.parametrize("name", ALL)
def test_missing_gradients_skip_the_variable(name):
    variables = [keras.Variable(np.ones(2, "float32"), name=n) for n in ("a", "b")]
    optimizer = ALL[name](0.1)
    optimizer.build(variables)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([np.ones(2, "float32"), None], variables)
    assert (variables[0].numpy() < 1).all()
    np.testing.assert_array_equal(variables[1].numpy(), 1.0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ALL)
def test_sparse_gradients_equal_dense_ones(name, mode):
    """Rows that occur twice in IndexedSlices are summed before the norm is taken."""
    import tensorflow as tf

    table = np.arange(8, dtype="float32").reshape(4, 2) + 1
    slices = tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [0.5, 0.5], [1.0, 2.0]]),
        tf.constant([2, 0, 2]),
        tf.constant([4, 2]),
    )
    dense = np.float32([[0.5, 0.5], [0, 0], [2.0, 4.0], [0, 0]])
    ends = [
        run(ALL[name](0.1), [keras.Variable(table, name="t")], [[g], [g]], mode)[-1][0]
        for g in (slices, dense)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


@pytest.mark.tensorflow
def test_sparse_gradients_of_an_embedding_in_fit():
    inputs = keras.Input((3,), dtype="int32")
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Embedding(5, 2)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=LAMB(0.1, clipnorm=1.0), loss="mse")
    x, y = np.int32([[1, 1, 2], [3, 1, 0]]), np.float32([[1.0], [0.0]])
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=5, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ALL)
def test_bare_tf_variables(name):
    import tensorflow as tf

    variables = [tf.Variable([3.0, 4.0], name="kernel"), tf.Variable([1.0], name="bias")]
    optimizer = ALL[name](0.1, exclude_from_weight_decay=["^bias$"])
    optimizer.build(variables)
    optimizer.apply([tf.constant([0.1, 0.2]), tf.constant([0.1])], variables)
    assert [row.variable for row in optimizer.exclusion_table()] == ["kernel", "bias"]
    assert [row.decayed for row in optimizer.exclusion_table()] == [True, False]
    assert variables[0].numpy()[0] < 3.0


def test_scalar_variable():
    for name, cls in ALL.items():
        variable = keras.Variable(np.float32(2.0), name="s")
        ours = run(cls(0.1), [variable], [[np.float32(0.5)]], MODE)[-1][0]
        expected, _ = oracle_of(name).step("s", 2.0, 0.5, 0.1)
        assert float(ours) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_constraints_are_kept(name):
    variable = keras.Variable(np.float32([0.01, 1.0]), name="w")
    variable.constraint = keras.constraints.NonNeg()
    optimizer = ALL[name](1.0)
    for _ in range(3):
        optimizer.apply([np.float32([5.0, -0.1])], [variable])
    assert (variable.numpy() >= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_global_clip_spreads_what_is_not_finite(value):
    """Not half an update: a norm that isn't finite can clip nothing."""
    variables = [keras.Variable(np.ones(2, "float32"), name=n) for n in ("bad", "good")]
    grads = [np.float32([value, 1.0]), np.float32([100.0, 100.0])]
    history = run(LAMB(0.1, global_clipnorm=1.0), variables, [grads], MODE)
    assert np.isnan(history[-1]).all()
