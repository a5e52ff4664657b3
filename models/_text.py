"""How every text network here begins: inputs of any length, arguments checked."""

import math
import numbers

import keras

from models import _classifier


def ids(name):
    """An input of (batch, any length) int32."""
    return keras.Input((None,), dtype="int32", name=name)


def check_sizes(name, **sizes):
    """Checks that each of `sizes` of the network called `name` is a positive integer.

    Raises:
        ValueError: If one isn't.
    """
    for argument, value in sizes.items():
        if not _classifier.is_positive_integer(value):
            raise ValueError(
                f"{argument} of {name} must be a positive integer. Received: {argument}={value!r}."
            )


def check_dropout(name, dropout):
    """Checks the rate of dropout of the network called `name`.

    Raises:
        ValueError: If it isn't a number from 0 to below 1.
    """
    is_number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not is_number or not 0 <= dropout < 1:
        raise ValueError(
            f"dropout of {name} must be the share that is dropped, from 0 to below 1. Received: "
            f"dropout={dropout!r}."
        )


def check_range(name, initial_range):
    """Checks where the uniform distribution ends that the network called `name` starts from.

    Raises:
        ValueError: If it isn't a number above 0.
    """
    is_number = isinstance(initial_range, numbers.Real) and not isinstance(initial_range, bool)
    if not is_number or not 0 < initial_range < math.inf:
        raise ValueError(
            f"initial_range of {name} must be a number above 0: weights start between minus and "
            f"plus it. Received: initial_range={initial_range!r}."
        )


def lstm(units, initializer, name, **options):
    """An LSTM layer that gives its output at each step, both its kernels started alike."""
    copy = type(initializer).from_config(initializer.get_config() | {"seed": None})
    return keras.layers.LSTM(
        units,
        return_sequences=True,
        kernel_initializer=initializer,
        recurrent_initializer=copy,
        name=name,
        **options,
    )


def logits_dtype():
    """The dtype that logits are given in: that of the policy, but float32 at least."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
