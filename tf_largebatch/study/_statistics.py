"""What a few seeds can show: means with their spread, differences with their interval."""

import functools
import math
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """Mean and sample standard deviation of `n` values; None where too few make it."""

    n: int
    mean: float | None
    deviation: float | None


class Difference(NamedTuple):
    """A difference of two means and its interval; no interval where a side has one value."""

    value: float
    low: float | None
    high: float | None


def summary(values):
    """Mean and standard deviation, with n - 1, of the values given.

    >>> summary([1.0, 2.0, 6.0])
    Summary(n=3, mean=3.0, deviation=2.6457513110645907)
    >>> summary([4.0]), summary([]).mean
    (Summary(n=1, mean=4.0, deviation=None), None)
    """
    n = len(values)
    mean = float(np.mean(values)) if n else None
    return Summary(n, mean, float(np.std(values, ddof=1)) if n > 1 else None)


def difference(ones, others):
    """The mean of `ones` minus that of `others`, with its 95 % interval by Welch's t.

    The two sides may differ in number and spread (Welch 1947, Biometrika 34, 28-35). Where one
    side has fewer than two values, or neither side varies, the spread can't be estimated, and
    there is no interval.

    Args:
        ones, others: sequences of floats, each of at least one.

    Returns:
        Difference, in the values' unit.

    >>> found = difference([5.0, 6.0, 7.0], [1.0, 2.0, 6.0])
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (3.0, -2.741, 8.741)
    """
    ones, others = np.asarray(ones, np.float64), np.asarray(others, np.float64)
    value = float(np.mean(ones) - np.mean(others))
    if min(ones.size, others.size) < 2:
        return Difference(value, None, None)
    shares = [side.var(ddof=1) / side.size for side in (ones, others)]
    if sum(shares) <= (1e-12 * max(np.abs(ones).max(), np.abs(others).max())) ** 2:
        return Difference(value, None, None)
    freedom = sum(shares) ** 2 / sum(
        share**2 / (side.size - 1) for share, side in zip(shares, (ones, others), strict=True)
    )
    half = t_quantile(CONFIDENCE, freedom) * math.sqrt(sum(shares))
    return Difference(value, value - half, value + half)


def t_quantile(confidence, freedom):
    """The t that Student's distribution stays within, on both sides, with this probability.

    With t = sqrt(freedom) tan(a), the probability within t is an integral of cos(a)^(freedom - 1),
    smooth where `freedom` is at least 1, as Welch's always is.

    Args:
        confidence: probability, between 0 and 1.
        freedom: degrees of freedom, at least 1; need not be whole.

    >>> round(t_quantile(0.95, 8), 3)
    2.306
    """
    nodes, weights = _quadrature()
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def within(angle):
        at = angle * (nodes + 1) / 2
        return scale * angle * float(weights @ np.cos(at) ** (freedom - 1))

    # No t lies beyond for any usual confidence, and the nodes stay where the integrand is.
    low, high = 0.0, math.atan((10 + 1e3 / freedom) / math.sqrt(freedom))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


@functools.cache
def _quadrature():
    return np.polynomial.legendre.leggauss(64)


def stable_interval(rates, values, margin):
    """The learning rates around the best one whose value is within `margin` of the best.

    Args:
        rates: learning rates, increasing.
        values: what each reached; None for a rate at which a run diverged.
        margin: in the values' unit.

    Returns:
        (first, last): indices of the interval's ends, the best one among them; None if no rate
        has a value.

    >>> stable_interval([1, 2, 4, 8, 16], [0.90, 0.985, 0.99, 0.981, None], 0.01)
    (1, 3)
    """
    reached = [-math.inf if value is None else value for value in values]
    if not reached or max(reached) == -math.inf:
        return None
    first = last = best = reached.index(max(reached))
    least = reached[best] - margin - 1e-12
    while first > 0 and reached[first - 1] >= least:
        first -= 1
    while last + 1 < len(rates) and reached[last + 1] >= least:
        last += 1
    return first, last


def decimals(num_values):
    """Digits after the point that a percentage of so many yes-or-no answers warrants, 0 to 2.

    >>> [decimals(n) for n in (50, 360, 5 * 360, 50_000)]
    [0, 1, 2, 2]
    """
    return min(2, max(0, math.ceil(math.log10(max(num_values, 1) / 100))))
