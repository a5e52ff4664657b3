"""What Asy-GCD's threads work on, laid out for them: the columns' source, caches, point and log."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from tf_largebatch.kernels._async import PAD, RING
from tf_largebatch.kernels._async_columns import LINEAR, MATRIX, POLY, RBF, SIGMOID

KINDS = {"linear": LINEAR, "poly": POLY, "rbf": RBF, "sigmoid": SIGMOID}
NOTHING = np.zeros(0)
NOT_FINITE = "{} must be finite. Received: some that overflow. Scale the samples (StandardScaler)."


class Source(NamedTuple):
    """Where the columns of Q come from: a matrix, or samples and a kernel function."""

    kind: int  # MATRIX, LINEAR, ...
    matrix: np.ndarray  # MATRIX: Q (n, n); dense samples: their transpose (n_features, n)
    data: np.ndarray  # of CSR samples, else empty, as are the next two
    indices: np.ndarray  # int32
    indptr: np.ndarray  # int64
    diagonal: np.ndarray  # (n,), of Q
    squares: np.ndarray  # (n,): |x_i|^2, for the Gaussian
    gamma: float
    degree: float
    coef0: float
    constant: float  # added to each element of Q


class Cache(NamedTuple):
    """One thread's columns; the one used longest ago leaves first: a doubly linked list."""

    columns: np.ndarray  # (capacity, rows)
    slot_of: np.ndarray  # (n,) int32: where column i lies, or -1
    column_in: np.ndarray  # (capacity,) int32
    older: np.ndarray  # (capacity,) int32: the slot used just before this one, or -1
    newer: np.ndarray  # (capacity,) int32
    ends: np.ndarray  # (3,) int32: the newest slot, the oldest, how many are taken
    counts: np.ndarray  # (2,) int64: hits, misses
    sample: np.ndarray  # (n_features,) of zeros: room for one CSR row


class Iterate(NamedTuple):
    """The point, its gradient, its box, and the step along each coordinate."""

    x: np.ndarray
    g: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    steps: np.ndarray  # 1 / Q_ii, or the one step size; 0: f isn't strictly convex along i


class Shared(NamedTuple):
    """What the threads tell each other by."""

    stop: np.ndarray  # (1,) int64: not 0: leave at once
    tail: np.ndarray  # (1,) int64: updates begun; in the log: slots given away
    finished: np.ndarray  # (1,) int64: updates written ("atomic")
    sequence: np.ndarray  # (RING,) int64: k + 1 as soon as update k may be read from its slot
    index: np.ndarray  # (RING,) int64
    delta: np.ndarray  # (RING,)
    heads: np.ndarray  # (threads * PAD,) int64: updates that thread t had seen when it last picked
    quiet: np.ndarray  # (threads * PAD,) int64: k + 1: after k updates S_t has nothing to do
    wants: np.ndarray  # (threads * PAD,): the violation that thread t would mend next
    tallies: np.ndarray  # (threads, PAD) int64
    random: np.ndarray  # (threads * PAD,) uint64


def matrix_source(Q):
    """Columns of a symmetric float64 matrix."""
    none = np.zeros(0, np.int32)
    return Source(
        MATRIX, Q, NOTHING, none, none.astype(np.int64), np.diagonal(Q).copy(), NOTHING,
        0.0, 0.0, 0.0, 0.0,
    )  # fmt: skip


def kernel_source(X, *, kernel, gamma, degree, coef0, constant):
    """Columns of k(x_i, x_j) + constant, computed from the rows of X, dense or CSR."""
    n_samples = X.shape[0]
    if sparse.issparse(X):
        X = sparse.csr_array(X, dtype=np.float64)
        X.sum_duplicates()
        squares = np.asarray(X.multiply(X).sum(axis=1)).reshape(n_samples)
        layout = (
            np.zeros((0, 0)), X.data, X.indices.astype(np.int32, copy=False),
            X.indptr.astype(np.int64),
        )  # fmt: skip
    else:
        X = np.asarray(X, np.float64)
        squares = np.einsum("ij,ij->i", X, X)
        none = np.zeros(0, np.int32)
        layout = (np.ascontiguousarray(X.T), NOTHING, none, none.astype(np.int64))
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what isn't finite
        if kernel == "rbf":
            diagonal = np.ones(n_samples)
        elif kernel == "poly":
            diagonal = (gamma * squares + coef0) ** degree
        elif kernel == "sigmoid":
            diagonal = np.tanh(gamma * squares + coef0)
        else:
            diagonal = squares.copy()
    return Source(
        KINDS[kernel], *layout, diagonal + constant, squares,
        float(gamma), float(degree), float(coef0), float(constant),
    )  # fmt: skip


def refuse_large_samples(X):
    """ValueError where |x_i - x_j|^2, of rows of dense or CSR X in float64, could overflow."""
    values = X.data if sparse.issparse(X) else X
    largest = float(np.abs(values).max(initial=0.0))
    # |x_i - x_j|^2 is at most 4 |x|^2; products of Python floats become inf in silence.
    if not np.isfinite(4.0 * largest * largest * X.shape[1]):
        with np.errstate(over="ignore"):
            squares = X.multiply(X).sum(axis=1) if sparse.issparse(X) else (X * X).sum(axis=1)
            if not np.isfinite(4.0 * squares).all():
                raise ValueError(NOT_FINITE.format("The samples' squared norms"))


def column_bytes(n_samples, rows):
    """Bytes of a cache apart from its columns, and bytes of one more column."""
    return 4 * n_samples, 8 * rows + 3 * 4


def make_cache(source, n_samples, rows, n_features, n_bytes):
    """An empty cache of at most `n_bytes` for columns of `rows` elements; None: it can't be.

    The memory is taken by the system as columns come.
    """
    fixed, each = column_bytes(n_samples, rows)
    capacity = min(n_samples, (n_bytes - fixed) // each)
    if source.kind == MATRIX:
        n_samples = capacity = 0
    elif capacity < 1:
        return None
    return Cache(
        np.empty((capacity, rows)),
        np.full(n_samples, -1, np.int32),
        np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty(capacity, np.int32),
        np.array([-1, -1, 0], np.int32),
        np.zeros(2, np.int64),
        np.zeros(n_features if source.indptr.size else 0),
    )  # fmt: skip


def cache_nbytes(cache):
    """What a cache holds, in bytes: its columns and its lists."""
    lists = (cache.columns, cache.slot_of, cache.column_in, cache.older, cache.newer)
    return sum(array.nbytes for array in lists)


def make_shared(n_threads, random):
    """Counters and log before the first update.

    Args:
        n_threads: how many threads there are.
        random: `numpy.random.RandomState` that the threads' generators start from.
    """
    slots = n_threads * PAD
    zeros = {
        "sequence": RING, "index": RING, "stop": 1, "tail": 1, "finished": 1,
        "heads": slots, "quiet": slots,
    }  # fmt: skip
    # Arrays of one element, too, get a cache line of their own: the first of PAD.
    arrays = {name: np.zeros(max(size, PAD), np.int64)[:size] for name, size in zeros.items()}
    return Shared(
        **arrays,
        delta=np.zeros(RING),
        wants=np.zeros(slots),
        tallies=np.zeros((n_threads, PAD), np.int64),
        random=random.randint(0, 2**63, slots, np.int64).astype(np.uint64),
    )
