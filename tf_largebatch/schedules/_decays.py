"""The rate falls: along a polynomial, half a cosine, or in steps."""

import math

from keras import ops

from tf_largebatch.scaling import check_number
from tf_largebatch.schedules._base import (
    Schedule,
    check_items,
    check_rate,
    check_updates,
    register,
    to_float,
    to_updates,
)


class _Decay(Schedule):
    """From `learning_rate` at `start_update` to `end_learning_rate` at `total_updates`."""

    _arguments = ("learning_rate", "total_updates", "end_learning_rate", "start_update")

    def __init__(self, learning_rate, total_updates, *, end_learning_rate=0.0, start_update=0):
        self.learning_rate = check_rate("learning_rate", learning_rate)
        self.total_updates = check_updates("total_updates", total_updates)
        self.end_learning_rate = check_rate("end_learning_rate", end_learning_rate)
        self.start_update = check_updates("start_update", start_update, at_least=0)
        if self.start_update >= self.total_updates:
            raise ValueError(
                "start_update must come before total_updates. Received: "
                f"start_update={start_update}, total_updates={total_updates}. "
                "Both are counted from update 0."
            )

    def __call__(self, step):
        t = ops.clip(to_updates(step), self.start_update, self.total_updates)
        left = to_float(self.total_updates - t) / float(self.total_updates - self.start_update)
        drop = self.learning_rate - self.end_learning_rate
        return self.end_learning_rate + drop * self._shape(left)  # left falls from 1 to 0


@register
class Polynomial(_Decay):
    """Polynomial decay: end + (learning_rate - end) * ((T - t) / (T - start))^power.

    With power 1 and `start_update=0` this is eta_t = eta_0 * (1 - t/T), the decay of LAMB's BERT
    and ResNet-50 (You et al. 2020, arXiv:1904.00962, section 4); behind a warmup the rate then
    drops where the warmup ends. `start_update=warmup_updates` makes the two meet.

    Args:
        learning_rate: The rate up to `start_update`; 0 or more.
        total_updates: T, the update at which the decay ends, counted from update 0.
        power: Exponent, above 0. Default 1.0.
        end_learning_rate: The rate from `total_updates` on. Default 0.0.
        start_update: The update at which the decay starts. Default 0.

    Raises:
        ValueError: If an argument is out of range, or `start_update` isn't before `total_updates`.

    >>> rate = Polynomial(0.8, total_updates=4, power=2.0)
    >>> [round(float(rate(t)), 3) for t in range(6)]
    [0.8, 0.45, 0.2, 0.05, 0.0, 0.0]
    """

    _arguments = (*_Decay._arguments, "power")

    def __init__(
        self, learning_rate, total_updates, *, power=1.0, end_learning_rate=0.0, start_update=0
    ):
        span = {"end_learning_rate": end_learning_rate, "start_update": start_update}
        super().__init__(learning_rate, total_updates, **span)
        self.power = check_number("power", power)

    def _shape(self, left):
        return left if self.power == 1 else ops.power(left, self.power)


@register
class Cosine(_Decay):
    """Half a cosine: end + (learning_rate - end) * (1 + cos(pi * (t - start) / (T - start))) / 2.

    Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts. Arguments and
    errors are those of `Polynomial`, without `power`.

    >>> rate = Cosine(0.8, total_updates=4)
    >>> [round(float(rate(t)), 3) for t in range(6)]
    [0.8, 0.683, 0.4, 0.117, 0.0, 0.0]
    """

    def _shape(self, left):
        # (1 + cos(pi*(1 - left))) / 2, in the form that loses no digits where the rate is small.
        return ops.square(ops.sin(left * (math.pi / 2)))


@register
class Piecewise(Schedule):
    """A rate that is multiplied by `factor` at each boundary.

    Goyal et al. 2017, arXiv:1706.02677, section 5.1: 1/10 at epochs 30, 60 and 80. The new rate
    holds from the boundary itself on (Keras' `PiecewiseConstantDecay` changes one update later).

    Args:
        learning_rate: The rate before the first boundary; 0 or more.
        boundaries: Increasing optimizer updates, each at least 1.
        factor: What the rate is multiplied by, above 0: one float, or one for each boundary.
            Default 0.1.

    Raises:
        ValueError: If an argument is out of range, the boundaries don't increase, or there isn't
            one factor for each of them.

    >>> rate = Piecewise(0.8, boundaries=[2, 4], factor=0.5)
    >>> [round(float(rate(t)), 3) for t in range(6)]
    [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    """

    _arguments = ("learning_rate", "boundaries", "factor")

    def __init__(self, learning_rate, boundaries, *, factor=0.1):
        self.learning_rate = check_rate("learning_rate", learning_rate)
        boundaries = check_items("boundaries", boundaries, "updates, such as [30000, 60000]")
        self.boundaries = [check_updates("each boundary", boundary) for boundary in boundaries]
        if self.boundaries != sorted(set(self.boundaries)):
            raise ValueError(
                f"boundaries must increase. Received: boundaries={self.boundaries}. "
                "Sort them, and merge the factors of equal ones."
            )
        if hasattr(factor, "__iter__"):
            factors = check_items("factor", factor, "one float, or one for each boundary")
            self.factor = factors = [check_number("each factor", f) for f in factors]
        else:
            self.factor = check_number("factor", factor)
            factors = [self.factor] * len(self.boundaries)
        if len(factors) != len(self.boundaries):
            raise ValueError(
                "factor must be one float, or one for each boundary. Received: "
                f"{len(factors)} factors for {len(self.boundaries)} boundaries."
            )
        self._rates = [self.learning_rate]
        for f in factors:
            self._rates.append(self._rates[-1] * f)

    def __call__(self, step):
        t = to_updates(step)
        rate = to_float(self._rates[0])
        for boundary, next_rate in zip(self.boundaries, self._rates[1:], strict=True):
            rate = ops.where(t >= boundary, next_rate, rate)
        return rate
