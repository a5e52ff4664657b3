"""The schedules against plain float64, eager and compiled, at the steps where counts go wrong."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from keras.optimizers import schedules as keras_schedules

from tf_largebatch.schedules import LEGW, Cosine, LinearWarmup, Phases, Piecewise, Polynomial

BACKEND = keras.backend.backend()
E24 = 2**24  # float32 has no 2**24 + 1
E8 = 10**8


# Oracles: the papers' formulas in Python's ints and doubles.


def warmup(t, after, updates, peak, initial=0.0):
    return initial + (peak - initial) * t / updates if t < updates else after(t)


def decay(t, shape, rate, total, end=0.0, start=0):
    t = min(max(t, start), total)
    return end + (rate - end) * shape((t - start) / (total - start))


def polynomial(t, rate, total, power=1.0, end=0.0, start=0):
    return decay(t, lambda done: (1 - done) ** power, rate, total, end, start)


def cosine(t, rate, total, end=0.0, start=0):
    return decay(t, lambda done: (1 + math.cos(math.pi * done)) / 2, rate, total, end, start)


def piecewise(t, rate, boundaries, factors):
    return rate * math.prod(f for b, f in zip(boundaries, factors, strict=True) if t >= b)


def bert(t, start=0):
    return warmup(t, lambda t: polynomial(t, 0.005, 15625, start=start), 3125, 0.005)


def long_phases(t):
    if t < E24 + 1:
        return warmup(t, lambda t: polynomial(t, 0.4, E24 + 1), 7, 0.4)
    if t < E8:
        return warmup(t - E24 - 1, lambda t: 0.1, 5, 0.1)
    return polynomial(t - E8, 0.3, 1000)


# One row for each: a name, the schedule, its oracle, and updates where it turns.
CASES = [
    (
        "warmup to a constant",
        LinearWarmup(0.4, 10, initial_learning_rate=0.05),
        lambda t: warmup(t, lambda t: 0.4, 10, 0.4, 0.05),
        (10,),
    ),
    ("no warmup", LinearWarmup(0.4, 0), lambda t: 0.4, (1,)),
    (
        "long warmup to a lower rate",
        LinearWarmup(0.01, E24 + 1, peak_learning_rate=1.0),
        lambda t: warmup(t, lambda t: 0.01, E24 + 1, 1.0),
        (E24 + 1,),
    ),
    ("polynomial", Polynomial(0.3, 100), lambda t: polynomial(t, 0.3, 100), (100,)),
    (
        "polynomial with every option",
        Polynomial(0.3, E8, power=2.0, end_learning_rate=0.01, start_update=E24 - 1),
        lambda t: polynomial(t, 0.3, E8, 2.0, 0.01, E24 - 1),
        (E24 - 1, E8),
    ),
    (
        "eight updates of decay, late",
        Polynomial(1.0, E24 + 8, power=0.5, start_update=E24),
        lambda t: polynomial(t, 1.0, E24 + 8, 0.5, 0.0, E24),
        (E24, E24 + 7),
    ),
    (
        "three updates of decay, later",
        Cosine(1.0, E8 + 3, end_learning_rate=0.1, start_update=E8),
        lambda t: cosine(t, 1.0, E8 + 3, 0.1, E8),
        (E8, E8 + 2),
    ),
    ("cosine", Cosine(0.3, 100), lambda t: cosine(t, 0.3, 100), (50, 100)),
    (
        "thirds",
        Piecewise(0.8, [30, 60, 80]),
        lambda t: piecewise(t, 0.8, [30, 60, 80], [0.1] * 3),
        (30, 60, 80),
    ),
    (
        "late boundaries with their own factors",
        Piecewise(0.8, [E24 + 1, E24 + 2, E8 + 1], factor=[0.5, 4.0, 0.1]),
        lambda t: piecewise(t, 0.8, [E24 + 1, E24 + 2, E8 + 1], [0.5, 4.0, 0.1]),
        (E24 + 2, E8 + 1),
    ),
    (
        "BERT at 32K",
        LEGW(6.25e-4, 1 / 320, 512, 32768, num_examples=512_000_000, epochs=1),
        bert,
        (3125, 15625),
    ),
    (
        "BERT at 32K, continuous",
        LEGW(
            *(6.25e-4, 1 / 320, 512, 32768),
            num_examples=512_000_000,
            epochs=1,
            decay_from="warmup_end",
        ),
        lambda t: bert(t, start=3125),
        (3125, 15625),
    ),
    (
        "phases",
        Phases(
            [
                (E24 + 1, LinearWarmup(Polynomial(0.4, E24 + 1), 7)),
                (E8 - E24 - 1, LinearWarmup(0.1, 5)),
                (10, Polynomial(0.3, 1000)),
            ]
        ),
        long_phases,
        (7, E24 + 1, E24 + 6, E8, E8 + 10, E8 + 1000),
    ),
    (
        "warmup around Keras' cosine",
        LinearWarmup(keras_schedules.CosineDecay(0.2, 100), 10),
        lambda t: warmup(t, lambda t: cosine(t, 0.2, 100), 10, 0.2),
        (10, 100),
    ),
    (
        "warmup around Keras' steps",
        LinearWarmup(keras_schedules.PiecewiseConstantDecay([30, 60], [0.2, 0.02, 0.002]), 10),
        lambda t: warmup(t, lambda t: piecewise(t, 0.2, [31, 61], [0.1] * 2), 10, 0.2),
        (10, 30, 31, 61),
    ),
    (
        "warmup around Keras' exponential",
        LinearWarmup(keras_schedules.ExponentialDecay(0.2, 10, 0.5), 4, peak_learning_rate=0.1),
        lambda t: warmup(t, lambda t: 0.2 * 0.5 ** (min(t, E24) / 10), 4, 0.1),
        (4,),
    ),
]
each_case = pytest.mark.parametrize(
    "schedule, oracle, turns", [pytest.param(*case[1:], id=case[0]) for case in CASES]
)


def steps_around(turns):
    """Each turn of the schedule -1/0/+1, and the same around 0, 2**24 and 1e8."""
    return sorted({max(u + d, 0) for u in (0, E24, E8, *turns) for d in (-1, 0, 1)})


def peak_of(oracle, turns):
    return max(oracle(t) for t in steps_around(turns))


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


@each_case
def test_survives_its_config(schedule, oracle, turns):
    config = schedule.get_config()
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    assert serialized["registered_name"] == f"tf_largebatch>{type(schedule).__name__}"
    copies = [
        type(schedule).from_config(config),
        keras.saving.deserialize_keras_object(serialized),
        keras_schedules.deserialize(keras_schedules.serialize(schedule)),
    ]
    for copy in copies:
        assert type(copy) is type(schedule)
        assert copy.get_config() == config
        for t in steps_around(turns):
            assert float(copy(t)) == float(schedule(t)), t


def one_weight_model(schedule):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(schedule), loss="mse")
    return model


@each_case
def test_survives_a_saved_model(schedule, oracle, turns, tmp_path):
    model = one_weight_model(schedule)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer._learning_rate
    assert type(loaded) is type(schedule)
    assert loaded.get_config() == schedule.get_config()


def test_moves_the_weights_in_fit():
    # The gradient of mean(w*x) is 1, so w falls by the rate of updates 0 .. 5.
    model = one_weight_model(LinearWarmup(Polynomial(0.5, 10), 4))
    model.compile(model.optimizer, loss=lambda y, w: ops.mean(w), jit_compile=False)
    kernel = model.layers[0].kernel
    before = float(ops.squeeze(kernel))
    model.fit(np.ones((6, 1)), np.ones((6, 1)), batch_size=1, verbose=0)
    rates = [0, 0.125, 0.25, 0.375, 0.3, 0.25]
    assert float(ops.squeeze(kernel)) == pytest.approx(before - sum(rates), abs=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2, abs=1e-7)


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


# Table 6.5 at every batch size: peak, updates and warmup from its first row.
@pytest.mark.parametrize("x", range(7))
def test_legw_gives_the_bert_table(x):
    schedule = LEGW(5 / 8e3, 1 / 320, 512, 512 * 2**x, num_examples=512_000_000, epochs=1)
    assert schedule.peak_learning_rate == pytest.approx(5 / (2 ** (3 - x / 2) * 1e3), rel=1e-14)
    assert schedule.total_updates == [1000_000, 500_000, 250_000, 125_000, 62500, 31250, 15625][x]
    assert schedule.warmup_updates == 3125
    after_warmup = schedule.peak_learning_rate * (1 - 2**x / 320)  # the printed ratio, 1/5 at 32K
    assert float(schedule(3125)) == pytest.approx(after_warmup, rel=1e-6)


@pytest.mark.parametrize("batch_size", [300, 512, 1000, 32768])
def test_legw_keeps_the_number_of_warmup_updates(batch_size):
    schedule = LEGW(
        *(0.005, 0.3125, 512, batch_size), num_examples=1281167, epochs=90, rule="linear", power=2
    )
    assert schedule.warmup_updates == 782
    assert schedule.peak_learning_rate == pytest.approx(0.005 * batch_size / 512)
    total = schedule.total_updates
    assert total == math.floor(90 * 1281167 / batch_size + 0.5)
    expected = polynomial(1000, schedule.peak_learning_rate, total, 2)
    assert float(schedule(1000)) == pytest.approx(expected, rel=1e-6)


def test_the_rate_is_warmed_up_from_zero_again_at_the_phase_switch():
    # Mixed-batch BERT: 9/10 of the sequences at 64K, 1/10 at 32K.
    row = (5 / 8e3, 1 / 320, 512)
    first = LEGW(*row, 65536, num_examples=512_000_000, epochs=0.9)
    second = LEGW(*row, 32768, num_examples=512_000_000, epochs=0.25)
    switch = first.total_updates
    assert switch == 7031
    schedule = Phases([(switch, first), (second.total_updates, second)])
    peak = 5e-3
    assert float(schedule(switch - 1)) == pytest.approx(peak * math.sqrt(2) / 7031, rel=1e-5)
    assert float(schedule(switch)) == 0
    assert float(schedule(switch + 100)) == pytest.approx(peak * 100 / 3125, rel=1e-6)
    assert float(schedule(switch + 3125)) < float(schedule(switch + 3124))
    assert schedule.total_updates == switch + second.total_updates


class Mystery(keras_schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.7  # a plain float, as Keras allows


def test_a_schedule_of_unknown_peak_needs_it_spelled_out():
    schedule = LinearWarmup(Mystery(), 10, peak_learning_rate=0.7)
    assert float(schedule(5)) == pytest.approx(0.35)
    assert float(schedule(10)) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "after, peak",
    [
        (0.3, 0.3),
        (Polynomial(0.3, 10), 0.3),
        (Cosine(0.3, 10), 0.3),
        (Piecewise(0.3, [5]), 0.3),
        (keras_schedules.PolynomialDecay(0.3, 10), 0.3),
        (keras_schedules.InverseTimeDecay(0.3, 10, 0.5), 0.3),
        (keras_schedules.CosineDecayRestarts(0.3, 10), 0.3),
        (keras_schedules.PiecewiseConstantDecay([5], [0.3, 0.1]), 0.3),
    ],
)
def test_the_peak_is_read_from_what_follows(after, peak):
    schedule = LinearWarmup(after, 4)
    assert schedule.peak_learning_rate == peak
    assert float(schedule(2)) == pytest.approx(peak / 2)


HUGE = 2**31
ROW = (0.1, 1, 256, 512)
DATA = {"num_examples": 1000, "epochs": 90}


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: LinearWarmup(0.1, -1),
            "warmup_updates must be a whole number of at least 0 .* Received: warmup_updates=-1",
        ),
        (lambda: LinearWarmup(0.1, 1.5), "Received: warmup_updates=1.5. Pass an int"),
        (lambda: LinearWarmup(0.1, True), "Received: warmup_updates=True"),
        (
            lambda: LinearWarmup(0.1, HUGE),
            "at most 2147483647. Received: warmup_updates=2147483648",
        ),
        (lambda: LinearWarmup(-0.1, 1), "after must be a finite number of at least 0. Received"),
        (lambda: LinearWarmup(math.cos, 1), "Or pass an instance of a Keras LearningRateSchedule"),
        (lambda: LinearWarmup(Polynomial, 1), "Or pass an instance of a Keras Learning"),
        (lambda: LinearWarmup(0.1, 1, initial_learning_rate=math.nan), "initial_learning_rate=nan"),
        (lambda: LinearWarmup(0.1, 1, peak_learning_rate=math.inf), "peak_learning_rate=inf"),
        (
            lambda: LinearWarmup(Polynomial(0.1, 10), 11),
            "must not be longer than .* Received: warmup_updates=11, total_updates=10. Train for",
        ),
        (lambda: LinearWarmup(Mystery(), 1), "after=Mystery, .* Pass peak_learning_rate, the rate"),
        (lambda: LinearWarmup(LinearWarmup(0.1, 1), 1), "after=LinearWarmup.* Pass peak_learning"),
        (lambda: LinearWarmup(LEGW(*ROW, **DATA), 1), "after=LEGW, .* Pass peak_learning_rate"),
        (lambda: LinearWarmup(Phases([(9, 0.1)]), 1), "after=Phases, .* Pass peak_learning_rate"),
        (
            lambda: LinearWarmup(keras_schedules.CosineDecay(0.0, 9, warmup_target=0.1), 1),
            "after=CosineDecay, .* Pass peak_learning_rate",
        ),
        (lambda: Polynomial(-0.1, 10), "learning_rate must be a finite .* learning_rate=-0.1"),
        (lambda: Polynomial(True, 10), "Received: learning_rate=True"),
        (lambda: Polynomial(0.1, 0), "total_updates must be .* at least 1 .* total_updates=0"),
        (lambda: Polynomial(0.1, 1e3), "Received: total_updates=1000.0. Pass an int"),
        (lambda: Polynomial(0.1, 10, power=0), "power must be a finite number above 0. Received"),
        (lambda: Polynomial(0.1, 10, power=math.nan), "Received: power=nan"),
        (lambda: Polynomial(0.1, 10, end_learning_rate=-1), "Received: end_learning_rate=-1"),
        (
            lambda: Polynomial(0.1, 10, start_update=10),
            "start_update must come before total_updates. Received: start_update=10, total_up",
        ),
        (lambda: Cosine(0.1, 10, start_update=-1), "Received: start_update=-1"),
        (lambda: Cosine(0.1, 10, start_update=11), "start_update must come before total_updates"),
        (lambda: Cosine(math.inf, 10), "Received: learning_rate=inf"),
        (lambda: Piecewise(0.1, 10), "boundaries must be updates, such as .* boundaries=10"),
        (lambda: Piecewise(0.1, []), r"boundaries must be updates, .* boundaries=\[\]"),
        (lambda: Piecewise(0.1, [20, 10]), r"must increase. Received: boundaries=\[20, 10\]. Sort"),
        (lambda: Piecewise(0.1, [10, 10]), r"must increase. Received: boundaries=\[10, 10\]"),
        (lambda: Piecewise(0.1, [0, 10]), "each boundary must be a whole number of at least 1"),
        (lambda: Piecewise(0.1, [1.5]), "Received: each boundary=1.5"),
        (lambda: Piecewise(0.1, [10], factor=0), "factor must be a finite number above 0"),
        (lambda: Piecewise(0.1, [10], factor=[-1]), "each factor must be a finite number above 0"),
        (lambda: Piecewise(0.1, [10], factor=[0.1] * 2), "Received: 2 factors for 1 boundaries"),
        (lambda: LEGW(0, 1, 256, 512, **DATA), "Received: learning_rate=0"),
        (lambda: LEGW(0.1, -1, 256, 512, **DATA), "Received: warmup_epochs=-1"),
        (lambda: LEGW(0.1, 1, 256, 0, **DATA), "Received: batch_size=0"),
        (lambda: LEGW(*ROW, num_examples=10.5, epochs=1), "Received: num_examples=10.5"),
        (lambda: LEGW(*ROW, num_examples=1000, epochs=0), "Received: epochs=0"),
        (lambda: LEGW(*ROW, **DATA, rule="cubic"), "rule must be one of .* Received: rule='cubic'"),
        (lambda: LEGW(*ROW, **DATA, power=-1), "Received: power=-1"),
        (
            lambda: LEGW(*ROW, **DATA, decay_from="end"),
            "decay_from must be 'start' or 'warmup_end'. Received: decay_from='end'",
        ),
        (
            lambda: LEGW(0.1, 5, 256, 8192, **DATA),
            r"shorter than the training. Received: 20 warmup updates \(160 epochs at batch_size="
            r"8192\) of 11 updates in all \(90 epochs\). Use a smaller batch_size, or train",
        ),
        (lambda: Phases([]), r"phases must be pairs \(num_updates, schedule\), .* phases=\[\]"),
        (lambda: Phases(0.1), "phases must be pairs .* Received: phases=0.1"),
        (lambda: Phases([10, 0.1]), "phases must be pairs .* Received: phases=10"),
        (lambda: Phases([(10, 0.1, 1)]), r"Received the phase \(10, 0.1, 1\)"),
        (lambda: Phases([(0, 0.1)]), "num_updates must be a whole number of at least 1"),
        (lambda: Phases([(1, -0.1)]), "schedule must be a finite number of at least 0"),
        (lambda: Phases([(HUGE - 1, 0.1)] * 2), "the updates of all phases must be .* at most"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
