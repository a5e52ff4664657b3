"""Theorem 4.1's condition, beside what it is computed from."""

import math

import numpy as np
import pytest

from tf_largebatch.kernels.staleness import asy_gcd_condition


def test_the_printed_condition():
    Q = np.array([[2.0, 1.0], [1.0, 1.0]])
    l_max, l_res, l_all = 2.0, math.sqrt(5), np.linalg.eigvalsh(Q)[-1]
    found = asy_gcd_condition(
        n_blocks=10_000, staleness=2, l_max=l_max, l_res=l_res, l_all=l_all, l_t=2.5, kappa=3.0
    )
    right = math.sqrt(10_000) * 2 / (4 * math.e * math.sqrt(5))
    assert found.step_size == pytest.approx(1 / 6)
    assert (found.left, found.right) == (6, pytest.approx(right))
    assert found.holds and found.largest_staleness == 2  # 3 * 4 > 8.2
    b = 1 / (2.5**2 / (18 * 100 * 2 * math.sqrt(5)) + 2)
    assert found.rate == pytest.approx(1 - 2 * 2 * b / (l_all * 9 * 10_000), rel=1e-15)


def test_fewer_than_six_blocks_are_never_covered():
    found = asy_gcd_condition(n_blocks=5, staleness=0, l_max=1.0, l_res=1.0)
    assert not found.holds and found.largest_staleness == -1 and found.rate is None
    assert asy_gcd_condition(n_blocks=6, staleness=0, l_max=1.0, l_res=1.0).holds


def test_the_theses_example_needs_thousands_of_blocks():
    for n_blocks, largest in ((5793, 0), (5794, 1)):
        found = asy_gcd_condition(n_blocks=n_blocks, staleness=1, l_max=1.0, l_res=3.5)
        assert found.largest_staleness == largest and found.holds == (largest == 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"l_max": 0}, "l_max must be a finite number above 0"),
        ({"n_blocks": 0}, "n_blocks must be a whole number of at least 1"),
        ({"staleness": 0.5}, "staleness must be a whole number of at least 0"),
        ({"l_res": 0.5}, "L_max <= L_res <= L must hold"),
        ({"l_all": 1.5}, "L_max <= L_res <= L must hold"),
    ],
)
def test_errors(change, words):
    given = {"n_blocks": 8, "staleness": 1, "l_max": 1.0, "l_res": 2.0, **change}
    with pytest.raises(ValueError, match=words):
        asy_gcd_condition(**given)
