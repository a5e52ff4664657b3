"""The schedules against plain float64, eager and compiled, at the steps where counts go wrong."""

import keras
import numpy as np
import pytest
from keras import ops

from schedule_cases import CASES, E24, each_case, peak_of, steps_around
from tf_largebatch.schedules import LinearWarmup, Piecewise, Polynomial

BACKEND = keras.backend.backend()


@each_case
@pytest.mark.parametrize("dtype", [int, np.int64, np.int32, "tensor"])
def test_follows_the_formula(schedule, oracle, turns, dtype):
    for t in steps_around(turns):
        step = ops.convert_to_tensor(t, "int32") if dtype == "tensor" else dtype(t)
        rate = schedule(step)
        assert ops.is_tensor(rate)
        assert keras.backend.standardize_dtype(rate.dtype) == "float32"
        assert rate.shape == ()
        error = abs(float(rate) - oracle(t))
        assert error <= 1e-6 * peak_of(oracle, turns), (t, float(rate), oracle(t))


def compilers():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return {"graph": tf.function, "xla": lambda f: tf.function(f, jit_compile=True)}
    if BACKEND == "jax":
        import jax

        return {"jit": jax.jit}
    return {}


@each_case
@pytest.mark.parametrize("compiler", compilers())
@pytest.mark.parametrize("dtype", ["int32", "int"])
def test_follows_the_formula_when_compiled(schedule, oracle, turns, compiler, dtype):
    compiled = compilers()[compiler](lambda step: schedule(step))
    for t in steps_around(turns):
        rate = float(compiled(ops.convert_to_tensor(t, dtype)))
        assert abs(rate - oracle(t)) <= 1e-6 * peak_of(oracle, turns), (t, rate, oracle(t))


@pytest.mark.parametrize("floatx", ["bfloat16", "float64"])
def test_rates_are_float32_whatever_floatx(floatx):
    cases = [case for case in CASES if "Keras" not in case[0]]
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        for name, schedule, oracle, turns in cases:
            rate = schedule(turns[0] - 1)
            assert keras.backend.standardize_dtype(rate.dtype) == "float32"
            expected = oracle(turns[0] - 1)
            assert abs(float(rate) - expected) <= 1e-6 * peak_of(oracle, turns), name
    finally:
        keras.config.set_floatx(before)


def test_reads_the_iterations_variable():
    variable = keras.Variable(E24 + 1, dtype="int", trainable=False)
    schedule = Piecewise(0.8, [E24 + 1])
    assert float(schedule(variable)) == pytest.approx(0.08)
    variable.assign(E24)
    assert float(schedule(variable)) == pytest.approx(0.8)


@pytest.mark.tensorflow
def test_reads_a_tf_variable():
    import tensorflow as tf

    schedule = LinearWarmup(Polynomial(0.5, 10), 4)
    assert float(schedule(tf.Variable(3, dtype=tf.int64))) == pytest.approx(0.375)
    assert float(schedule(tf.Variable(3, dtype=tf.int32))) == pytest.approx(0.375)


def test_a_float_step_is_truncated():
    schedule = Polynomial(0.5, 10)
    for step in (2.0, 2.9, np.float32(2.5), ops.convert_to_tensor(2.9, "float32")):
        assert float(schedule(step)) == pytest.approx(0.4)


def test_a_step_before_the_first_is_the_first():
    for schedule in (Polynomial(0.5, 10), LinearWarmup(0.5, 4, initial_learning_rate=0.1)):
        assert float(schedule(-3)) == float(schedule(0))
