"""What the kernel ridge regressions share: checks, weights, kernel values, the exact solve."""

import warnings
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy.linalg import cho_solve, get_lapack_funcs, lstsq
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, validate_data

from tf_largebatch.kernels._functions import KERNELS, gamma_value, gram

# Kernel values of so many bytes at a time are made for predictions.
PREDICTION_BYTES = 64 * 2**20
SINGULAR = "Singular matrix in solving dual problem. Using least-squares solution instead."


class BaseKernelRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """What is the same in all: f(x) = sum_i dual_coef_i k(x_i, x), thesis equation 3.7."""

    _parameter_constraints: ClassVar = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "kernel": [StrOptions(set(KERNELS)), callable],
        "gamma": [Interval(Real, 0, None, closed="left"), StrOptions({"scale", "auto"}), None],
        "degree": [Interval(Real, 0, None, closed="left")],
        "coef0": [Interval(Real, None, None, closed="neither")],
        "memory_limit_bytes": [Interval(Integral, 0, None, closed="left"), None],
        "verbose": ["verbose"],
    }

    def _check_fit(self, X, y, sample_weight):
        """y as (n_samples, n_targets) in the dtype of X, and the weights or None."""
        self._validate_params()
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], multi_output=True,
            y_numeric=True,
        )  # fmt: skip
        if self.kernel == "precomputed" and X.shape[0] != X.shape[1]:
            raise ValueError(
                "Precomputed matrix must be a square matrix of n_samples rows and columns. "
                f"Received: an array of shape {X.shape}."
            )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.gamma_ = 1.0 if self.kernel == "precomputed" else gamma_value(self.gamma, X)
        self._one_target = y.ndim == 1
        self.X_fit_ = X
        return np.asarray(y, dtype=X.dtype).reshape(X.shape[0], -1), sample_weight

    def _check_predict(self, X):
        return validate_data(
            self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False
        )

    def _gram(self, X, Y=None, out=None):
        return gram(
            X, Y, kernel=self.kernel, gamma=self.gamma_, degree=self.degree, coef0=self.coef0,
            out=out,
        )  # fmt: skip

    def _between(self, rows, columns, out=None):
        """Kernel values between training samples, given by their numbers."""
        if self.kernel == "precomputed":
            return gram(self.X_fit_[np.ix_(rows, columns)], kernel="precomputed", out=out)
        same = rows is columns
        return self._gram(self.X_fit_[rows], None if same else self.X_fit_[columns], out=out)

    def _regularised(self, rows, alpha, roots, out=None):
        """S K S + alpha I among training samples, with S the roots of their weights, or None."""
        K = self._between(rows, rows, out=out)
        if out is None and self.kernel == "precomputed":
            K = K.copy()
        if roots is not None:
            K *= roots[rows][:, np.newaxis]
            K *= roots[rows]
        K.flat[:: len(K) + 1] += alpha
        return K

    def _expansion(self, X, columns=None):
        """sum_i dual_coef_i k(x, x_i) over all training samples or those given, for rows of X."""
        n_fit = self.X_fit_.shape[0] if columns is None else len(columns)
        coefficients, basis = self.dual_coef_, self.X_fit_
        if columns is not None:
            coefficients, basis = coefficients[columns], basis[columns]
        values = np.empty((X.shape[0], *coefficients.shape[1:]), coefficients.dtype)
        chunk = max(1, PREDICTION_BYTES // (8 * n_fit))
        for start in range(0, X.shape[0], chunk):
            rows = X[start : start + chunk]
            if self.kernel == "precomputed" and columns is not None:
                rows = rows[:, columns]
            values[start : start + chunk] = self._gram(rows, basis) @ coefficients
        return values

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags

    def __getstate__(self):
        """Without the strategy, which belongs to its process; predictions need none."""
        return super().__getstate__() | {"strategy": None}


def solve_in_place(A, y):
    """x with A x = y, by a Cholesky factor that is written over A's upper triangle.

    Where A isn't positive definite in working precision (alpha = 0 with equal samples, an
    indefinite kernel), the least-squares solution with a warning, as
    `sklearn.kernel_ridge.KernelRidge`: slower, and with a work space as large as A.

    Args:
        A: (n, n), symmetric, C-contiguous, float32 or float64; destroyed.
        y: (n, n_targets).

    Raises:
        ValueError: If A isn't finite.

    >>> solve_in_place(np.array([[4.0, 2.0], [2.0, 5.0]]), np.array([[2.0], [1.0]]))
    array([[0.5], [0. ]])
    """
    if not np.isfinite(A).all():
        raise ValueError(
            "The kernel's values must be finite. Received: a Gram matrix with infinity or NaN. "
            "Scale the features, or lower gamma or degree."
        )
    diagonal = A.diagonal().copy()
    floor = len(A) * np.finfo(A.dtype).eps * diagonal.max()
    # A.T is the same matrix in LAPACK's order, so nothing is copied.
    (potrf,) = get_lapack_funcs(("potrf",), (A.T,))
    factor, info = potrf(A.T, lower=True, clean=False, overwrite_a=True)
    if info == 0 and np.square(factor.diagonal()).min() > floor:
        return cho_solve((factor, True), y, check_finite=False)
    warnings.warn(SINGULAR, stacklevel=3)
    for row in range(len(A)):  # the lower triangle is still A's
        A[row, row:] = A[row:, row]
    np.fill_diagonal(A, diagonal)
    return lstsq(A.T, y, overwrite_a=True, check_finite=False)[0]
