"""One table of schedules for all their tests, each with its formula as an oracle.

The oracles are the papers' formulas in Python's ints and doubles.
"""

import math

import pytest
from keras.optimizers import schedules as keras_schedules

from tf_largebatch.schedules import LEGW, Cosine, LinearWarmup, Phases, Piecewise, Polynomial

E24 = 2**24  # float32 has no 2**24 + 1
E8 = 10**8


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
