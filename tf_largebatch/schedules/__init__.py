"""Learning-rate schedules for Keras, clocked on optimizer updates (never on micro-steps).

Each is a `keras.optimizers.schedules.LearningRateSchedule`: hand it to any optimizer, save it with
the model, call it on any backend, in graph mode and under XLA. `schedule(t)` is the rate of update
t, counted from 0, as a float32 scalar; `t` is an int or an integer tensor (a float is truncated).
Update counts are compared and subtracted as integers, because float32 can't tell 2**24 from
2**24 + 1; only differences, already clipped to the schedule's span, become floats.
"""

from tf_largebatch.schedules._decays import Cosine, Piecewise, Polynomial
from tf_largebatch.schedules._warmups import LEGW, LinearWarmup, Phases

__all__ = ["Cosine", "LEGW", "LinearWarmup", "Phases", "Piecewise", "Polynomial"]
