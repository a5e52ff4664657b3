"""How the learning rate and the warmup follow the batch size, in plain floats.

A published recipe is one row, tuned at one batch size; these rules carry it to k times that batch
size. They are starting points, not laws: past the critical batch size more batch buys no fewer
updates, whatever the rule (Shallue et al. 2019, arXiv:1811.03600).
"""

import math
from typing import NamedTuple

RULES = ("linear", "sqrt", "none")


class Scaled(NamedTuple):
    """One row of a recipe: a batch size and what was scaled to it."""

    batch_size: int  # examples per update, over all replicas
    learning_rate: float  # the peak, reached where warmup ends
    warmup_epochs: float


def scale_learning_rate(learning_rate, *, base_batch_size, batch_size, rule="sqrt"):
    """Scale a learning rate from `base_batch_size` to `batch_size` = k * `base_batch_size`.

    - `"linear"`: learning_rate * k, which keeps the expected step per example (Goyal et al. 2017,
      arXiv:1706.02677, section 2.1);
    - `"sqrt"`: learning_rate * sqrt(k), which keeps the variance of the step (Krizhevsky 2014,
      arXiv:1404.5997, section 5), the rule of the published LAMB rows;
    - `"none"`: learning_rate.

    Args:
        learning_rate: The rate tuned at `base_batch_size`; above 0.
        base_batch_size: Examples per update that the rate was tuned with.
        batch_size: Examples per update to scale to; may be the smaller of the two.
        rule: `"linear"`, `"sqrt"` or `"none"`.

    Returns:
        The scaled rate, a float.

    Raises:
        ValueError: If a size isn't a whole number of at least 1, the rate isn't finite and above
            0, or the rule is unknown.

    >>> scale_learning_rate(0.1, base_batch_size=256, batch_size=1024)
    0.2
    >>> scale_learning_rate(0.1, base_batch_size=256, batch_size=1024, rule="linear")
    0.4
    """
    learning_rate = check_number("learning_rate", learning_rate)
    base_batch_size = check_count("base_batch_size", base_batch_size)
    batch_size = check_count("batch_size", batch_size)
    k = batch_size / base_batch_size
    if rule == "linear":
        return learning_rate * k
    if rule == "sqrt":
        return learning_rate * math.sqrt(k)
    if rule == "none":
        return learning_rate
    raise ValueError(f"rule must be one of {RULES}. Received: rule={rule!r}.")


def legw(learning_rate, warmup_epochs, *, base_batch_size, batch_size, rule="sqrt"):
    """Linear-epoch gradual warmup: k times the batch size, k times the warmup epochs.

    An epoch at k times the batch size has 1/k of the updates, so the number of warmup updates
    stays what it was (You et al. 2019, arXiv:1901.08256).

    Args:
        learning_rate: The peak rate tuned at `base_batch_size`; above 0.
        warmup_epochs: The warmup used at `base_batch_size`, in epochs; 0 for none.
        base_batch_size: Examples per update that the row was tuned with.
        batch_size: Examples per update to scale to.
        rule: How the rate scales: `"linear"`, `"sqrt"` or `"none"`.

    Returns:
        `Scaled(batch_size, learning_rate, warmup_epochs)`.

    Raises:
        ValueError: As `scale_learning_rate`; or if `warmup_epochs` is negative or not finite.

    >>> legw(0.005, 0.3125, base_batch_size=512, batch_size=32768)  # ResNet-50 with LAMB
    Scaled(batch_size=32768, learning_rate=0.04, warmup_epochs=20.0)
    """
    warmup_epochs = check_number("warmup_epochs", warmup_epochs, allow_zero=True)
    learning_rate = scale_learning_rate(
        learning_rate, base_batch_size=base_batch_size, batch_size=batch_size, rule=rule
    )
    batch_size = check_count("batch_size", batch_size)
    k = batch_size / check_count("base_batch_size", base_batch_size)
    return Scaled(batch_size, learning_rate, warmup_epochs * k)


def epochs_to_updates(epochs, *, num_examples, batch_size):
    """The whole number of optimizer updates nearest to `epochs` passes over the data.

    The product is formed in integers from the exact value of the float `epochs`, so no rounding
    precedes the one to the nearest update; a half goes up.

    Args:
        epochs: Passes over the data, may be fractional; 0 or more.
        num_examples: Examples in one epoch.
        batch_size: Examples per update, over all replicas.

    Returns:
        The number of updates, an int.

    Raises:
        ValueError: If `epochs` is negative or not finite, or a count isn't a whole number of at
            least 1.

    >>> epochs_to_updates(0.3125, num_examples=1281167, batch_size=512)
    782
    >>> epochs_to_updates(90, num_examples=1281167, batch_size=32768)
    3519
    """
    epochs = check_number("epochs", epochs, allow_zero=True)
    num_examples = check_count("num_examples", num_examples)
    batch_size = check_count("batch_size", batch_size)
    numerator, denominator = epochs.as_integer_ratio()
    denominator *= batch_size
    updates, remainder = divmod(numerator * num_examples, denominator)
    return updates + (2 * remainder >= denominator)


def updates_to_epochs(updates, *, num_examples, batch_size):
    """How many passes over the data `updates` optimizer updates are.

    Args:
        updates: Optimizer updates; 0 or more.
        num_examples: Examples in one epoch.
        batch_size: Examples per update, over all replicas.

    Returns:
        The number of epochs, a float.

    Raises:
        ValueError: If `updates` isn't a whole number of at least 0, or another count isn't one of
            at least 1.

    >>> round(updates_to_epochs(3519, num_examples=1281167, batch_size=32768), 4)
    90.0043
    """
    updates = check_count("updates", updates, at_least=0)
    num_examples = check_count("num_examples", num_examples)
    return updates * check_count("batch_size", batch_size) / num_examples


def check_number(name, value, *, allow_zero=False, mend="Pass a float, such as 0.1."):
    """`value` as a float, or a ValueError that says what is wrong with the argument `name`."""
    number = math.nan
    if not isinstance(value, (str, bytes)) and not _is_bool(value):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    if math.isfinite(number) and (number > 0 or (allow_zero and number == 0)):
        return number
    expected = "of at least 0" if allow_zero else "above 0"
    raise ValueError(
        f"{name} must be a finite number {expected}. Received: {name}={value!r}. {mend}"
    )


def check_count(name, value, *, at_least=1, at_most=math.inf):
    """`value` as an int, or a ValueError that says what is wrong with the argument `name`."""
    try:
        count = None if _is_bool(value) else value.__index__()
    except (AttributeError, TypeError):
        count = None
    if count is not None and at_least <= count <= at_most:
        return count
    limit = "" if at_most == math.inf else f" and at most {at_most}"
    raise ValueError(
        f"{name} must be a whole number of at least {at_least}{limit}. "
        f"Received: {name}={value!r}. Pass an int, such as {max(at_least, 1)}."
    )


def _is_bool(value):
    return type(value).__name__ in ("bool", "bool_")  # Python's, and NumPy's under either name
