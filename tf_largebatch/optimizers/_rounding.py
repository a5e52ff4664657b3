"""Half-precision weights that small updates move: what rounding to them leaves, or random rounding.

An update below half the spacing of bfloat16, 1/512 to 1/256 of a weight, vanishes when it is
rounded to nearest. Either what rounding leaves is kept beside the weight (`split`, `joined`), or
the direction is drawn so that the mean is right (`stochastic`).

All work on the bits of float32: XLA takes a cast to bfloat16 and back for the identity on GPUs
(openxla/xla issue 41605), and nothing would seem left over.
"""

import math

import numpy as np
from keras import ops

HALVES = ("bfloat16", "float16")

# Steps through a 32-bit counter that stay far apart: 2^32 / golden ratio, and another odd number.
_VARIABLE_STEP, _ELEMENT_STEP = 0x9E3779B9, 0x85157AF5


def split(w, dtype):
    """float32 `w` as the nearest value of `dtype` and the exact rest, both float32.

    The rest is 0 where it isn't finite (w is NaN or inf, or too large for `dtype`).

    >>> [float(part) for part in split(ops.convert_to_tensor(1.0 + 2**-12), "bfloat16")]
    [1.0, 0.000244140625]
    """
    kept = nearest(w, dtype)
    rest = w - kept
    return kept, ops.where(ops.isfinite(rest), rest, 0.0)


def joined(kept, rest, dtype):
    """The w of `split`; `kept` alone where `rest` can't be its rest, since it was assigned anew."""
    w = kept + rest
    return ops.where(ops.equal(nearest(w, dtype), kept), w, kept)


def nearest(w, dtype):
    """float32 `w` rounded to the nearest value of `dtype`, ties to even, as float32."""
    dropped = {"bfloat16": 16, "float16": 13}[dtype]
    bits = ops.view(w, "uint32")
    odd = ops.bitwise_and(ops.right_shift(bits, dropped), _uint32(1))
    rounded = _without_last(bits + (odd + _uint32(2 ** (dropped - 1) - 1)), dropped)
    if dtype == "float16":
        # Below 2^-14 its values are the multiples of 2^-24; above 65504 there is none.
        rounded = ops.where(ops.abs(w) < 2.0**-14, ops.round(w * 2.0**24) * 2.0**-24, rounded)
        rounded = ops.where(ops.abs(rounded) > 65504.0, rounded * math.inf, rounded)
    return ops.where(ops.isfinite(w), rounded, w)


def stochastic(w, update, index):
    """float32 `w` rounded to one of the two bfloat16 values around it, as float32.

    To the one farther from zero with the share of the way to it that w has gone: the mean is w.
    The draw is a function of the number of the update, the index of the variable and the place of
    the element alone, and so the same on every replica and after a resumption.

    >>> w = ops.full((4096,), 1 + 2**-9)  # a quarter of the way from 1 to 1 + 2^-7
    >>> float(ops.mean(stochastic(w, update=0, index=0) > 1))
    0.25
    """
    bits = ops.view(w, "uint32")
    # Sign and magnitude: the sum carries into the kept half as often as the dropped half is large.
    rounded = _without_last(bits + _random_16_bits(tuple(w.shape), update, index), 16)
    return ops.where(ops.isfinite(w), rounded, w)


def _without_last(bits, dropped):
    return ops.view(ops.bitwise_and(bits, _uint32(2**32 - 2**dropped)), "float32")


def _random_16_bits(shape, update, index):
    """For each element, 16 bits of murmur3's finaliser (Appleby 2011) of a counter."""
    start = ops.cast(update, "uint32") + _uint32(index * _VARIABLE_STEP)
    h = _scrambled(start)
    h = ops.bitwise_xor(h, ops.right_shift(h, 16))
    step = _ELEMENT_STEP
    # By dimension and from the last one: a long range would be made on the host, not on a GPU.
    for axis in reversed(range(len(shape))):
        places = ops.cast(ops.arange(shape[axis], dtype="int32"), "uint32") * _uint32(step)
        h = h + ops.reshape(places, (-1,) + (1,) * (len(shape) - 1 - axis))
        step *= shape[axis]
    return ops.right_shift(_scrambled(h), 16)


def _scrambled(h):
    h = ops.bitwise_xor(h, ops.right_shift(h, 16)) * _uint32(0x85EBCA6B)
    return ops.bitwise_xor(h, ops.right_shift(h, 13)) * _uint32(0xC2B2AE35)


def _uint32(value):
    return ops.convert_to_tensor(np.uint32(value % 2**32))
