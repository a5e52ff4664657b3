"""How fast one device is at each micro-batch size, from measured points."""

import math
from typing import NamedTuple

from tf_largebatch.scaling import check_count, check_number


class Measured(NamedTuple):
    """Seconds that a device took for one micro-batch, forward and back."""

    micro_batch_size: int
    seconds: float

    @property
    def examples_per_second(self):
        """Its rate."""
        return self.micro_batch_size / self.seconds


def knee(measured, *, share_of_best=0.9):
    """The smallest micro-batch that reaches 90 % of the best rate: more memory buys little.

    Args:
        measured: `Measured`s, at least one.
        share_of_best: What "reaches" means, in (0, 1].

    Returns:
        The `Measured`.

    Raises:
        ValueError: If there is none, or the share is out of range.

    >>> knee([Measured(16, 0.1), Measured(32, 0.11), Measured(64, 0.2), Measured(128, 0.4)])
    Measured(micro_batch_size=32, seconds=0.11)
    """
    points = _points(measured)
    if not 0 < share_of_best <= 1:
        raise ValueError(
            f"share_of_best must lie in (0, 1]. Received: share_of_best={share_of_best!r}. Pass "
            "0.9."
        )
    best = max(point.examples_per_second for point in points)
    return next(p for p in points if p.examples_per_second >= share_of_best * best)


def micro_batch_seconds(measured, micro_batch_size):
    """The time of a micro-batch, on straight lines between the measured ones.

    Below the smallest measured size it takes as long as that one: the cost of a call is the same.

    Args:
        measured: `Measured`s, at least one.
        micro_batch_size: Examples; at most the largest measured.

    Returns:
        Seconds.

    Raises:
        ValueError: If nothing is measured, or nothing as large: what doesn't fit in memory has no
            time.

    >>> points = [Measured(16, 0.2), Measured(32, 0.3)]
    >>> [round(micro_batch_seconds(points, size), 3) for size in (8, 24, 32)]
    [0.2, 0.25, 0.3]
    """
    points = _points(measured)
    size = check_count("micro_batch_size", micro_batch_size)
    if size > points[-1].micro_batch_size:
        raise ValueError(
            "micro_batch_size must not exceed the largest one that was measured and fitted, "
            f"{points[-1].micro_batch_size}. Received: {size}. Take a smaller one."
        )
    above = next(point for point in points if point.micro_batch_size >= size)
    below = max((p for p in points if p.micro_batch_size <= size), default=above)
    if below == above:
        return above.seconds
    part = (size - below.micro_batch_size) / (above.micro_batch_size - below.micro_batch_size)
    return below.seconds + part * (above.seconds - below.seconds)


def fastest_micro_batch(measured, batch_per_device):
    """The micro-batch size by which a device is through its share soonest; of equals the larger.

    Args:
        measured: `Measured`s, at least one.
        batch_per_device: The share, in examples; the size divides it.

    Returns:
        The size, an int.

    Raises:
        ValueError: If nothing is measured, or the share isn't a whole number of at least 1.

    >>> points = [Measured(16, 0.2), Measured(32, 0.3), Measured(64, 0.7)]
    >>> fastest_micro_batch(points, 128), fastest_micro_batch(points, 24)
    (32, 24)
    """
    share = check_count("batch_per_device", batch_per_device)
    largest = min(share, _points(measured)[-1].micro_batch_size)
    sizes = [size for size in _divisors(share) if size <= largest]
    return min(sizes, key=lambda size: (micro_batch_seconds(measured, size) / size, -size))


def _divisors(number):
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return {*small, *(number // d for d in small)}


def _points(measured):
    points = sorted(measured)
    if not points:
        raise ValueError("There is no measurement. Received: measured=[]. Measure one size first.")
    for point in points:
        check_count("micro_batch_size", point.micro_batch_size)
        check_number("seconds", point.seconds)
    return points
