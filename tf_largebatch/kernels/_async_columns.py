"""Columns of Q: computed from the samples, and kept as long as there is room; numba compiles these.

The arguments are the tuples of `_async_state.py`.
"""

import math

import numpy as np

from tf_largebatch.kernels._instructions import bits_of, float_of

MATRIX, LINEAR, POLY, RBF, SIGMOID = range(5)  # Source.kind
HITS, MISSES = range(2)  # in Cache.counts
CHUNK = 256  # elements that a loop keeps in the nearest cache
_LOG2_E = 1 / math.log(2)
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # the first bits of ln 2: k times it is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # the next
_SHIFT = 1.5 * 2**52
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))
_TAYLOR = tuple(1 / math.factorial(n) for n in range(13, -1, -1))  # r^13 ... 1, for |r| < 0.35


def products(source, cache, i, start, stop, out):
    """out[j - start] = <x_i, x_j>."""
    if source.indptr.size:
        sample = cache.sample
        for k in range(source.indptr[i], source.indptr[i + 1]):
            sample[source.indices[k]] = source.data[k]
        for j in range(start, stop):
            total = 0.0
            for k in range(source.indptr[j], source.indptr[j + 1]):
                total += source.data[k] * sample[source.indices[k]]
            out[j - start] = total
        for k in range(source.indptr[i], source.indptr[i + 1]):
            sample[source.indices[k]] = 0.0
        return
    for first in range(start, stop, CHUNK):
        last = min(first + CHUNK, stop)
        part = out[first - start : last - start]
        part[:] = 0.0
        for feature in range(source.matrix.shape[0]):
            _add_row(part, source.matrix[feature, i], source.matrix[feature, first:last])


def _add_row(out, value, row):
    for j in range(row.size):  # from 0, so that LLVM sees there are no negative indices
        out[j] += value * row[j]


def _exponential(x):
    """e^x of x <= 0, within 2 units of the last digit; 0 where e^x is subnormal.

    The loop around it is vectorized; around the C library's it isn't, and takes 5 times as long.
    x = k ln 2 + r, and 2^k is written into the exponent.
    """
    shifted = x * _LOG2_E + _SHIFT  # so large that its last bits are the whole number k
    k = shifted - _SHIFT
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = _TAYLOR[0]
    for n in range(1, len(_TAYLOR)):
        total = total * r + _TAYLOR[n]
    power = float_of((bits_of(shifted) - _SHIFT_BITS + 1023) << 52)
    return total * power if x > -708.0 else 0.0


def compute_column(source, cache, i, start, stop, out):
    """out[j - start] = Q_ij for the rows j of [start, stop)."""
    products(source, cache, i, start, stop, out)
    gamma, degree, coef0, constant = source.gamma, source.degree, source.coef0, source.constant
    if source.kind == RBF:
        own, squares = source.squares[i], source.squares[start:stop]
        for j in range(out.size):
            distance = own + squares[j] - 2.0 * out[j]
            out[j] = _exponential(-gamma * (distance if distance > 0.0 else 0.0)) + constant
    elif source.kind == POLY:
        whole = int(degree)
        if whole == degree and 0 <= whole <= 16:
            for j in range(out.size):
                base, power = gamma * out[j] + coef0, 1.0
                for _ in range(whole):
                    power *= base
                out[j] = power + constant
        else:
            for j in range(out.size):
                out[j] = (gamma * out[j] + coef0) ** degree + constant
    elif source.kind == SIGMOID:
        for j in range(out.size):
            out[j] = np.tanh(gamma * out[j] + coef0) + constant
    else:
        for j in range(out.size):
            out[j] += constant
    if start <= i < stop:
        out[i - start] = source.diagonal[i]


def column(source, cache, i, start, stop):
    """Rows [start, stop) of q_i: a view of the matrix or of the cache."""
    if source.kind == MATRIX:
        return source.matrix[i, start:stop]
    ends, older, newer = cache.ends, cache.older, cache.newer
    slot = cache.slot_of[i]
    if slot >= 0:
        cache.counts[HITS] += 1
        unlink(cache, slot)
    else:
        cache.counts[MISSES] += 1
        if ends[2] < cache.columns.shape[0]:
            slot = ends[2]
            ends[2] += 1
        else:
            slot = ends[1]
            unlink(cache, slot)
            cache.slot_of[cache.column_in[slot]] = -1
        cache.column_in[slot] = i
        cache.slot_of[i] = slot
        compute_column(source, cache, i, start, stop, cache.columns[slot])
    newer[slot], older[slot] = -1, ends[0]
    if ends[0] >= 0:
        newer[ends[0]] = slot
    else:
        ends[1] = slot
    ends[0] = slot
    return cache.columns[slot]


def unlink(cache, slot):
    """Takes a slot out of the list from the newest to the oldest."""
    before, after = cache.newer[slot], cache.older[slot]
    if before >= 0:
        cache.older[before] = after
    else:
        cache.ends[0] = after
    if after >= 0:
        cache.newer[after] = before
    else:
        cache.ends[1] = before


PARTS = (products, _add_row, _exponential, compute_column, column, unlink)
