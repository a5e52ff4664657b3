"""Means, intervals and stable rates, against SciPy and by hand."""

import numpy as np
import pytest

from tf_largebatch.study._statistics import (
    CONFIDENCE,
    difference,
    stable_interval,
    summary,
    t_quantile,
)


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 4.7, 8, 30, 1e3, 1e5])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_quantile_is_students(freedom, confidence):
    from scipy import stats

    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert t_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (5, 5), (20, 4)])
def test_the_interval_is_welchs(sizes):
    from scipy import stats

    random = np.random.default_rng(sum(sizes))
    ones, others = (99 + (k + 0.3) * random.standard_normal(n) for k, n in enumerate(sizes))
    expected = stats.ttest_ind(ones, others, equal_var=False).confidence_interval(CONFIDENCE)
    found = difference(ones, others)
    assert found.value == pytest.approx(np.mean(ones) - np.mean(others), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-8)


def test_a_side_that_does_not_vary_leaves_the_spread_to_the_other():
    from scipy import stats

    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 7.0).confidence_interval(CONFIDENCE)
    found = difference([1.0, 2.0, 4.0], [7.0, 7.0])
    assert (found.low, found.high) == pytest.approx((expected.low - 7, expected.high - 7))


@pytest.mark.parametrize(
    "sides", [([1.0], [2.0, 3.0]), ([2.0, 3.0], [1.0]), ([0.1] * 3, [0.3] * 3)]
)
def test_without_spread_there_is_no_interval(sides):
    found = difference(*sides)
    assert found.value == pytest.approx(np.mean(sides[0]) - np.mean(sides[1]))
    assert found.low is None and found.high is None


def test_the_deviation_is_that_of_a_sample():
    values = [98.5, 99.25, 99.0, 97.0]
    mean = sum(values) / 4
    variance = sum((value - mean) ** 2 for value in values) / 3
    assert summary(values) == pytest.approx((4, mean, variance**0.5))
    assert summary([]) == (0, None, None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.90, 0.98, 0.99, 0.985, 0.97], (1, 3)),
        ([0.99, 0.99, 0.99], (0, 2)),  # the whole grid
        ([0.99, None, 0.985], (0, 0)),  # a diverged rate ends it
        ([0.99, 0.97, 0.985], (0, 0)),  # so does a dip
        ([None, None], None),
        ([], None),
    ],
)
def test_the_stable_rates_surround_the_best(values, expected):
    assert stable_interval(list(range(len(values))), values, 0.01) == expected
