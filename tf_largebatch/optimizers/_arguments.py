"""Checks of constructor arguments, shared by the optimizers."""

import math
import numbers


def real(name, value, *, low=-math.inf, below=math.inf, open_low=False):
    """`value` as a float within [low, below), or (low, below) with `open_low`; else ValueError."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if fits and math.isfinite(value) and low <= value < below and not (open_low and value == low):
        return float(value)
    left = "(" if open_low or low == -math.inf else "["
    bounds = f"{left}{low:g}, {below:g})".replace("-inf", "-infinity").replace("inf)", "infinity)")
    raise ValueError(f"`{name}` must be a number in {bounds}. Received: {name}={value!r}")


def optional_real(name, value, **bounds):
    """As `real`, but None is kept."""
    return None if value is None else real(name, value, **bounds)


def optional_pair(name, value):
    """None, or (low, high) with 0 <= low <= high as a tuple of floats; else ValueError."""
    if value is None:
        return None
    try:
        low, high = (real(name, bound, low=0.0) for bound in value)
        if low <= high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"`{name}` must be None or a pair (low, high) of finite numbers with 0 <= low <= high. "
        f"Received: {name}={value!r}"
    )


def flag(name, value):
    """`value` if it is a bool; else ValueError."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")


def choice(name, value, choices):
    """`value` if it is one of `choices`; else ValueError."""
    if value in choices and not isinstance(value, bool):
        return value
    raise ValueError(f"`{name}` must be one of {list(choices)}. Received: {name}={value!r}")
