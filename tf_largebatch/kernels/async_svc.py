"""AsyncGCDSVC: a kernel SVM trained by threads that don't wait for each other."""

import time

import numpy as np
from scipy import sparse

from tf_largebatch.kernels._functions import gram, gram_bytes, refuse_what_does_not_fit
from tf_largebatch.kernels._svc import BaseKernelSVC
from tf_largebatch.kernels._tasks import Expansion
from tf_largebatch.kernels.box_qp import BoxQP, KernelMatrix

MAX_UPDATES = 5_000_000  # by default; and at least this many times n_samples:
MAX_UPDATES_A_SAMPLE = 100


class AsyncGCDSVC(BaseKernelSVC):
    """Kernel SVM by asynchronous greedy coordinate descent, Asy-GCD (thesis, Algorithm 14).

    Solves eq. 4.9, the dual of the SVM without bias: minimize a'Qa / 2 - e'a over 0 <= a_i <= C_i
    with Q_ij = y_i y_j K(x_i, x_j). Each thread owns a block of the samples and updates one
    multiplier after the other; nothing is as large as the Gram matrix. Needs numba, the extra
    [async], and no TensorFlow.

    Args:
        C: Bound of the multipliers; above 0 and finite.
        kernel: `"linear"`, `"poly"`, `"rbf"`, `"sigmoid"`, `"precomputed"`, or a function of two
            matrices, of which the whole Gram matrix is made.
        gamma, degree, coef0: The kernel's, as `sklearn.svm.SVC`.
        fit_intercept: If true, 1 is added to the kernel, which is a bias with a penalty; else
            there is none.
        multi_class: `"ovr"` or `"ovo"`: which binary problems are solved, one after the other, with
            the same columns.
        class_weight: None, `"balanced"` or a dict of classes: factors of C.
        tol: The end: the largest projected gradient |a_i - clip(a_i - g_i)| is below
            tol * min(1, C_i): it can't exceed C_i.
        max_iter: Most updates of all threads in one binary problem; -1: 100 n_samples, but at
            least 5,000,000. A large C with classes that overlap can need more: scale the data,
            lower C, or give a larger number.
        n_threads: None: as many as cores, but no more than one for 1,000 samples.
        sync, selection, blocks, max_staleness, hold_back: How the threads go about it, as
            `solve_box_qp`.
        cache_bytes: Memory for columns of the kernel matrix, of all threads together.
        verbose: If true, a line at each pause, after n_samples or at least 10,000 updates.
        random_state: int, RandomState or None; for the blocks and `selection="random"`. With one
            thread the same int gives the same bits; with more, the same solution within tol.

    Attributes:
        classes_: The classes.
        support_: (n_SV,) numbers of the support vectors.
        support_vectors_: (n_SV, n_features); None with a precomputed kernel.
        dual_coef_: (k, n_SV): y_i a_i of the k binary problems.
        intercept_: (k,); 0 unless `fit_intercept`.
        gamma_: The kernel's gamma, a number.
        n_iter_: (k,) updates.
        results_: k `BoxQPResult`, for x = y a: objective, gradient, history, staleness, cache.
        n_threads_: How many there were.
        fit_times_: Seconds for the blocks (K-means and the new order) and for each problem.

    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> model = AsyncGCDSVC(C=10, gamma=2, random_state=0).fit(X, y)
    >>> model.score(X, y), len(model.support_) < 40
    (1.0, True)
    """

    def __init__(
        self, C=1.0, *, kernel="rbf", gamma="scale", degree=3, coef0=0.0, fit_intercept=False,
        multi_class="ovr", class_weight=None, tol=1e-3, max_iter=-1, n_threads=None, sync="log",
        selection="greedy", blocks=None, max_staleness=16, hold_back=None, cache_bytes=2**28,
        verbose=0, random_state=None,
    ):  # fmt: skip
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.fit_intercept = fit_intercept
        self.multi_class = multi_class
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.n_threads = n_threads
        self.sync = sync
        self.selection = selection
        self.blocks = blocks
        self.max_staleness = max_staleness
        self.hold_back = hold_back
        self.cache_bytes = cache_bytes
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X, y):
        """Trains; Ctrl-C ends all threads.

        Args:
            X: (n_samples, n_features), dense or CSR; with a precomputed kernel the values of all
                pairs of samples, (n_samples, n_samples). Computed in float64.
            y: (n_samples,) classes.

        Raises:
            ValueError: If a parameter or the data are not as described, y has one class, or the
                samples are so large or so small that the kernel's values aren't numbers.
            ImportError: If there is no numba.
            MemoryError: If the Gram matrix of a kernel function would not fit.

        Warns:
            ConvergenceWarning: If the end is at max_iter.
        """
        X, codes = self._start_fit(X, y)
        X = X.astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # BoxQP refuses such samples
            self._set_gamma(X)
        began = time.perf_counter()
        problem = BoxQP(
            self._matrix(X), n_threads=self.n_threads, sync=self.sync, selection=self.selection,
            blocks=self.blocks, max_staleness=self.max_staleness, hold_back=self.hold_back,
            cache_bytes=self.cache_bytes, random_state=self.random_state,
        )  # fmt: skip
        self.n_threads_ = problem.n_threads
        self.fit_times_ = {"blocks": time.perf_counter() - began}
        with np.errstate(over="ignore"):
            samples, self.results_ = self._samples(X, codes), []
        if not np.isfinite(samples.bounds).all():
            raise ValueError("C times class_weight must be finite.")
        most = max(MAX_UPDATES, MAX_UPDATES_A_SAMPLE * X.shape[0])
        for sign, bound in zip(samples.signs.T, samples.bounds.T, strict=True):
            # In x = y a the matrix is the kernel's for every problem, and the columns are kept.
            result = problem.solve(
                -sign.astype(float), np.where(sign < 0, -bound, 0), np.where(sign > 0, bound, 0),
                tol=self.tol * min(1.0, bound[bound > 0].min()),
                max_updates=most if self.max_iter == -1 else self.max_iter, verbose=self.verbose,
            )  # fmt: skip
            self.results_.append(result)
        self.fit_times_["problems"] = [result.seconds for result in self.results_]
        self.n_iter_ = np.array([result.n_updates for result in self.results_])
        self._keep(X, np.stack([result.x for result in self.results_], axis=1))
        return self

    def _matrix(self, X):
        """Q, for `BoxQP`."""
        constant = float(self.fit_intercept)
        if isinstance(self.kernel, str) and self.kernel != "precomputed":
            return KernelMatrix(X, **self._kernel(), constant=constant)
        n_samples = X.shape[0]
        if self.kernel != "precomputed" or sparse.issparse(X) or constant:
            refuse_what_does_not_fit(
                gram_bytes(n_samples), f"The Gram matrix of {n_samples} samples"
            )
        matrix = gram(X, **self._kernel())
        return matrix + constant if constant else matrix

    def _keep(self, X, coefficients):
        """The fitted model, of y_i a_i (n_samples, k)."""
        self.support_ = np.flatnonzero(coefficients.any(axis=1))
        self.support_vectors_ = None if self.kernel == "precomputed" else X[self.support_]
        kept = coefficients[self.support_]
        self.dual_coef_ = kept.T
        self.intercept_ = kept.sum(axis=0) * float(self.fit_intercept)
        self.models_ = [Expansion(self.support_, self.support_vectors_, kept, self.intercept_)]
