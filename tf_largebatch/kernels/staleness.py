"""Theorem 4.1: up to which staleness Asy-GCD is proved to converge, and how fast."""

import math
from typing import NamedTuple


class AsyGCDCondition(NamedTuple):
    """What Theorem 4.1 says of a problem, a number of blocks and a staleness."""

    step_size: float  # gamma = 1 / (3 L_max), for which it is stated
    left: float  # T (T + 1)
    right: float  # sqrt(n) L_max / (4 e L_res)
    holds: bool  # left <= right and n >= 6
    largest_staleness: int  # the largest T for which it would hold; -1: none, as n < 6
    rate: float | None  # E f(x_k) - f* falls at least by this factor an update; None: not asked


def asy_gcd_condition(*, n_blocks, staleness, l_max, l_res, l_all=None, l_t=None, kappa=None):
    """Whether T (T + 1) <= sqrt(n) L_max / (4 e L_res), eq. 4.8, and the rate if so.

    The theorem asks for n >= 6 blocks of equal size, drawn at random, the step size 1 / (3 L_max),
    and a staleness of at most T updates; then E f(x_k) - f* <= rate^k (f(x_0) - f*) with

        rate = 1 - 2 L_max b / (L kappa^2 n),  b = 1 / (L_T^2 / (18 sqrt(n) L_max L_res) + 2).

    It is narrower than it looks. L_res >= L_max, so that a staleness of 1 needs n >= 473 blocks at
    the least, and fewer blocks are covered for T = 0 alone (`max_staleness=0` of `solve_box_qp`).
    The thesis's own example, L_res = 3.5 L_max, needs 5,794. With a block for each of 20 threads,
    as in its experiments, nothing stale is proved to converge; it did, as it does in ours.

    Args:
        n_blocks: n, the number of blocks; with one for each thread, of threads.
        staleness: T, how many updates a step may not have seen (`max_staleness`).
        l_max: The largest Q_ii.
        l_res: The largest norm of a column of Q (eq. 4.5).
        l_all: L, the largest eigenvalue of Q (eq. 4.4); with `kappa`, for the rate.
        l_t: L_T, the same of the worst T coordinates; None: L, which bounds it, for a slower rate.
        kappa: The constant of the global error bound, eq. 4.7.

    Returns:
        `AsyGCDCondition`.

    Raises:
        ValueError: If a number isn't in its range, or L_max <= L_res <= L fails.

    >>> asy_gcd_condition(n_blocks=20, staleness=1, l_max=1.0, l_res=3.5).holds
    False
    >>> asy_gcd_condition(n_blocks=472, staleness=1, l_max=1.0, l_res=1.0).largest_staleness
    0
    >>> asy_gcd_condition(n_blocks=473, staleness=1, l_max=1.0, l_res=1.0).largest_staleness
    1
    """
    numbers = {"l_max": l_max, "l_res": l_res, "l_all": l_all, "l_t": l_t, "kappa": kappa}
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0. Received: {value!r}.")
    for name, value, least in (("n_blocks", n_blocks, 1), ("staleness", staleness, 0)):
        if value != int(value) or value < least:
            raise ValueError(
                f"{name} must be a whole number of at least {least}. Received: {value!r}."
            )
    if not l_max <= l_res * (1 + 1e-12) or (l_all is not None and not l_res <= l_all * (1 + 1e-12)):
        raise ValueError(
            f"L_max <= L_res <= L must hold. Received: l_max={l_max}, l_res={l_res}, l_all={l_all}."
        )
    right = math.sqrt(n_blocks) * l_max / (4 * math.e * l_res)
    left = staleness * (staleness + 1)
    # The largest whole T with T^2 + T - right <= 0.
    largest = math.floor((math.sqrt(1 + 4 * right) - 1) / 2) if n_blocks >= 6 else -1
    rate = None
    if l_all is not None and kappa is not None:
        l_t = l_all if l_t is None else l_t
        b = 1 / (l_t**2 / (18 * math.sqrt(n_blocks) * l_max * l_res) + 2)
        rate = 1 - 2 * l_max * b / (l_all * kappa**2 * n_blocks)
    return AsyGCDCondition(
        step_size=1 / (3 * l_max), left=float(left), right=right,
        holds=n_blocks >= 6 and left <= right, largest_staleness=largest, rate=rate,
    )  # fmt: skip
