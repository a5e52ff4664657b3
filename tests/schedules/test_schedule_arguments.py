"""What the schedules read off their arguments, and what they refuse."""

import math

import pytest
from keras.optimizers import schedules as keras_schedules

from tf_largebatch.schedules import LEGW, Cosine, LinearWarmup, Phases, Piecewise, Polynomial


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
