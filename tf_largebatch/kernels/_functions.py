"""Kernel functions of Table 2.1, on dense or CSR rows, and whether a Gram matrix fits in memory."""

import contextlib
import numbers
import os

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import pairwise_kernels

from tf_largebatch.kernels._threads import FLOPS_FOR_THREADS, one_thread

KERNELS = ("linear", "poly", "rbf", "sigmoid", "precomputed")
# Rows are made so many at a time: pairwise_kernels holds temporaries as large as its result.
CHUNK_BYTES = 2**22


def gamma_value(gamma, X):
    """The number behind `gamma`, as in `sklearn.svm.SVC`.

    Args:
        gamma: `"scale"`: 1 / (n_features * X.var()), 1.0 if X is constant; `"auto"` or None:
            1 / n_features; or a number of at least 0.
        X: (n_samples, n_features), dense or sparse.

    Returns:
        A float.

    Raises:
        ValueError: If `gamma` is neither of these, or infinite, or the variance is.

    >>> gamma_value("scale", np.array([[0.0, 2.0], [2.0, 0.0]]))
    0.5
    >>> gamma_value("scale", sparse.csr_array([[0.0, 2.0], [2.0, 0.0]]))
    0.5
    """
    n_features = X.shape[1]
    if isinstance(gamma, str) and gamma == "scale":
        if sparse.issparse(X):
            # float64 sums: with float32 the difference of the moments would lose its digits.
            data, n = np.asarray(X.data, np.float64), X.shape[0] * n_features
            with np.errstate(over="ignore", invalid="ignore"):
                variance = (data * data).sum() / n - (data.sum() / n) ** 2
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                variance = np.var(X, dtype=np.float64)
        if not np.isfinite(variance):
            raise ValueError(
                f'gamma="scale" needs a finite variance. Received: X with X.var() = {variance}. '
                "Scale the features, or give gamma as a number."
            )
        return float(1.0 / (n_features * variance)) if variance > 0 else 1.0
    if gamma is None or (isinstance(gamma, str) and gamma == "auto"):
        return 1.0 / n_features
    if isinstance(gamma, numbers.Real) and not isinstance(gamma, bool) and 0 <= gamma < np.inf:
        return float(gamma)
    raise ValueError(
        'gamma must be "scale", "auto" or a finite number of at least 0. Received: '
        f"gamma={gamma!r}."
    )


def gram(X, Y=None, *, kernel="rbf", gamma=None, degree=3, coef0=0.0, out=None):
    """The kernel's values for all pairs of rows, (n_X, n_Y).

    linear: x'y; poly: (gamma x'y + coef0)^degree; rbf: exp(-gamma |x - y|^2); sigmoid:
    tanh(gamma x'y + coef0) (thesis, Table 2.1).

    Args:
        X: (n_X, n_features), dense or CSR; for `kernel="precomputed"` the values themselves.
        Y: (n_Y, n_features), or None for X; not used with a precomputed kernel.
        kernel: One of `KERNELS`, or a function of the two matrices X and Y that returns the values
            of all pairs, as `sklearn.svm.SVC` takes it.
        gamma: A number; None: 1 / n_features.
        degree: Of the polynomial.
        coef0: The constant of poly and sigmoid.
        out: (n_X, n_Y) array to write into, so that the matrix exists once; None: a new one.

    Returns:
        (n_X, n_Y) ndarray, float32 if both are float32, else float64.

    Raises:
        ValueError: If the kernel is unknown, a function returns another shape, or a value is NaN or
            infinite.

    >>> gram(np.array([[0.0], [1.0]]), kernel="rbf", gamma=np.log(2))
    array([[1. , 0.5], [0.5, 1. ]])
    """
    if kernel == "precomputed":
        values = X.toarray() if sparse.issparse(X) else np.asarray(X)
        _refuse_what_is_not_finite(values)
        if out is None:
            return values
        out[...] = values
        return out
    same = Y is None
    Y = X if same else Y
    if out is None:
        both = X.dtype == np.float32 and Y.dtype == np.float32
        out = np.empty((X.shape[0], Y.shape[0]), np.float32 if both else np.float64)
    rows = max(1, CHUNK_BYTES // max(1, out.itemsize * Y.shape[0]))
    mirrors = same and isinstance(kernel, str)  # a function need not be symmetric
    flops = 2 * min(rows, X.shape[0]) * Y.shape[0] * X.shape[1]
    # What a user's function does is not known here.
    is_small = isinstance(kernel, str) and flops < FLOPS_FOR_THREADS
    threads = one_thread if is_small else contextlib.nullcontext
    for start in range(0, X.shape[0], rows):
        stop = min(start + rows, X.shape[0])
        first = start if mirrors else 0
        with threads(), np.errstate(over="ignore", invalid="ignore"):  # refused below
            block = _values(X[start:stop], Y[first:], kernel, gamma, degree, coef0)
            out[start:stop, first:] = block
        _refuse_what_is_not_finite(out[start:stop, first:])
        if mirrors:
            out[stop:, start:stop] = block[:, stop - start :].T
    if same and kernel == "rbf":
        np.fill_diagonal(out, 1.0)  # as pairwise_kernels does for one matrix, not for its chunks
    return out


def _refuse_what_is_not_finite(values):
    """ValueError for NaN and infinity; without an array of flags where all is well."""
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum may overflow where no value is infinite: only then all are looked at.
        if np.isfinite(values.sum(axis=1)).all() or np.isfinite(values).all():
            return
    raise ValueError(
        "The kernel's values must be finite. Received: a Gram matrix with infinity or NaN. "
        "Scale the features, or lower gamma, degree or coef0."
    )


def _values(X, Y, kernel, gamma, degree, coef0):
    if callable(kernel):
        values = kernel(X, Y)
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        if values.shape != (X.shape[0], Y.shape[0]):
            raise ValueError(
                "kernel, if a function, must return the values of all pairs of rows. Received: an "
                f"array of shape {values.shape} for {X.shape[0]} and {Y.shape[0]} rows."
            )
        return values
    if not isinstance(kernel, str) or kernel not in KERNELS:
        raise ValueError(
            f"kernel must be one of {list(KERNELS)} or a function. Received: kernel={kernel!r}."
        )
    if kernel == "linear":
        return pairwise_kernels(X, Y, metric="linear")
    # filter_params: rbf takes neither degree nor coef0, sigmoid no degree.
    return pairwise_kernels(
        X, Y, metric=kernel, filter_params=True, gamma=gamma, degree=degree, coef0=coef0
    )


def gram_bytes(n_rows, n_columns=None, dtype=np.float64):
    """Bytes of a Gram matrix of (n_rows, n_columns), square by default.

    >>> gram_bytes(8000)
    512000000
    """
    n_columns = n_rows if n_columns is None else n_columns
    return int(n_rows) * int(n_columns) * np.dtype(dtype).itemsize


def available_bytes():
    """Memory that can be had without swapping, in bytes; None where the system doesn't say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def refuse_what_does_not_fit(n_bytes, what, memory_limit_bytes=None):
    """MemoryError before anything is allocated, where `n_bytes` is more than the limit.

    Args:
        n_bytes: Bytes that would be needed.
        what: What for, the beginning of the message's sentence.
        memory_limit_bytes: The limit; None: the memory that is available now.

    >>> refuse_what_does_not_fit(gram_bytes(8000), "The Gram matrix of 8000 samples", 10**6)
    Traceback (most recent call last):
      ...
    MemoryError: The Gram matrix of 8000 samples needs 512,000,000 bytes; the limit is 1,000,000.
    Use more parts (n_parts) if they decide, float32 input, or a larger memory_limit_bytes.
    """
    limit = available_bytes() if memory_limit_bytes is None else memory_limit_bytes
    if limit is not None and n_bytes > limit:
        raise MemoryError(
            f"{what} needs {int(n_bytes):,} bytes; the limit is {int(limit):,}. Use more parts "
            "(n_parts) if they decide, float32 input, or a larger memory_limit_bytes."
        )
