"""bfloat16 and float16 weights for the tests of how they are rounded."""

import keras
import ml_dtypes
import numpy as np

HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def rounded(values, dtype="bfloat16"):
    """float32 `values` at the nearest ones of `dtype`."""
    with np.errstate(over="ignore"):
        return np.float32(values).astype(HALVES[dtype]).astype("float32")


def half(values, dtype="bfloat16", name="w"):
    """A variable of `dtype`."""
    return keras.Variable(rounded(values, dtype), dtype=dtype, name=name)


def problem(dtype, shapes=((16, 17), (5,), ()), updates=20):
    """Weights and gradients that `dtype` holds, so that float32 can be given the same."""
    random = np.random.default_rng(0)
    made = [[rounded(random.normal(size=s), dtype) for s in shapes] for _ in range(updates + 1)]
    return made[0], made[1:]


def variables_of(dtypes, values):
    """Variables v0, v1, ... of these dtypes."""
    return [
        keras.Variable(w, dtype=d, name=f"v{i}")
        for i, (d, w) in enumerate(zip(dtypes, values, strict=True))
    ]


def residuals(optimizer):
    """The residual of each variable as NumPy, None for those that have none."""
    return [None if r is None else r.numpy() for r in optimizer._slots["residual"]]
