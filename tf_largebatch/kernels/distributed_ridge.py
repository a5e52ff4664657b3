"""DKRR: exact kernel ridge regression, whose matrix no single device needs to hold."""

import time
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from tf_largebatch.kernels._functions import gram_bytes, refuse_what_does_not_fit
from tf_largebatch.kernels._ridge import BaseKernelRidge, solve_in_place
from tf_largebatch.kernels.ledger import Ledger, payload_bytes


class DistributedKernelRidge(BaseKernelRidge):
    """Kernel ridge regression by one Cholesky factor, on one device or over replicas (DKRR).

    Solves (K + lambda n I) dual_coef = y (thesis equation 3.6 and section 3.3). Without a strategy
    it is scikit-learn's `KernelRidge` with the matrix in memory once. With a strategy of P
    replicas, each holds every P-th block row or so of the matrix's upper triangle, n^2 / (2 P)
    numbers, makes them from the samples by itself, and the replicas factor them together. The time
    grows with n^3 / P and the memory of each with n^2 / P, so that in the end it is parts
    (`PartitionedKernelRidge`) that carry on.

    Args:
        alpha: Ridge penalty, at least 0: alpha = lambda n_samples.
        kernel: `"rbf"`, `"linear"`, `"poly"`, `"sigmoid"`, `"precomputed"`, or a function of two
            matrices that returns the values of all pairs of rows.
        gamma: A number; None or `"auto"`: 1 / n_features; `"scale"`: 1 / (n_features X.var()).
            For the thesis's sigma, gamma = 1 / (2 sigma^2).
        degree: Of poly.
        coef0: The constant of poly and sigmoid.
        strategy: None: SciPy on this machine. A `tf.distribute.Strategy`: its replicas, on one or
            more workers, each of which calls `fit` with the same samples. Pickles leave it out.
        block_size: Rows of a block at most. Smaller blocks share the work and the memory more
            evenly and send more messages.
        memory_limit_bytes: Of what the solve holds on this worker; None: what is available.
        verbose: Above 0: a line for each tenth of the steps.

    Attributes:
        dual_coef_: (n_samples,) or (n_samples, n_targets).
        X_fit_: The training samples, which predictions need.
        gamma_: The number behind `gamma`.
        n_iter_: None: the solve is direct.
        bytes_per_replica_: (P,): bytes of the matrix, with right-hand sides, that each replica
            keeps; they are twice in memory while a step writes the next ones.
        fit_times_: Seconds: "kernel", "solve".
        ledger_: A `Ledger`: what the replicas send each other, a panel to each of the others.

    Raises:
        ValueError: In `fit`, for what scikit-learn's `KernelRidge` refuses.
        MemoryError: In `fit`, if the matrix doesn't fit; says the bytes it would need.
        numpy.linalg.LinAlgError: In `fit` with a strategy, if the matrix isn't positive definite.
            Without one, the least-squares solution with a warning, as `KernelRidge`.

    >>> from sklearn.datasets import make_friedman1
    >>> X, y = make_friedman1(500, random_state=0)
    >>> model = DistributedKernelRidge(alpha=1e-3, gamma=0.1).fit(X[:400], y[:400])
    >>> round(model.score(X[400:], y[400:]), 3)
    0.961
    >>> DistributedKernelRidge(memory_limit_bytes=10**6).fit(X[:400], y[:400])
    Traceback (most recent call last):
      ...
    MemoryError: The Gram matrix of 400 samples needs 1,280,000 bytes; the limit is 1,000,000.
    Use more parts (n_parts) if they decide, float32 input, or a larger memory_limit_bytes.
    """

    _parameter_constraints: ClassVar = BaseKernelRidge._parameter_constraints | {
        "strategy": [object],
        "block_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, alpha=1.0, *, kernel="rbf", gamma=None, degree=3, coef0=1, strategy=None,
        block_size=256, memory_limit_bytes=None, verbose=0,
    ):  # fmt: skip
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.strategy = strategy
        self.block_size = block_size
        self.memory_limit_bytes = memory_limit_bytes
        self.verbose = verbose

    def fit(self, X, y, sample_weight=None):
        """Makes the matrix and solves.

        Args:
            X: (n_samples, n_features) floats, dense or CSR; (n_samples, n_samples) if precomputed.
                float32 is solved in float32.
            y: (n_samples,) or (n_samples, n_targets) numbers.
            sample_weight: (n_samples,) or a number: weights of the squared errors.

        Returns:
            self.
        """
        y, sample_weight = self._check_fit(X, y, sample_weight)
        roots = None if sample_weight is None else np.sqrt(sample_weight).astype(y.dtype)
        right = y if roots is None else y * roots[:, np.newaxis]
        self.ledger_, self.n_iter_ = Ledger(), None
        solve = self._solve_here if self.strategy is None else self._solve_on_replicas
        self.dual_coef_ = solve(right, roots)
        if roots is not None:
            self.dual_coef_ *= roots[:, np.newaxis]
        if self._one_target:
            self.dual_coef_ = self.dual_coef_.ravel()
        return self

    def predict(self, X):
        """The predictions, f(x) = sum_i dual_coef_i k(x_i, x) (thesis equation 3.7).

        Args:
            X: (n_samples, n_features) floats, dense or CSR; if the kernel is precomputed, its
                values (n_samples, n_samples_fit).

        Returns:
            (n_samples,) or (n_samples, n_targets) floats.
        """
        check_is_fitted(self)
        return self._expansion(self._check_predict(X))

    def _solve_here(self, right, roots):
        n = len(right)
        size = gram_bytes(n, dtype=right.dtype)
        refuse_what_does_not_fit(size, f"The Gram matrix of {n} samples", self.memory_limit_bytes)
        self.bytes_per_replica_ = np.array([size])
        began = time.perf_counter()
        A = self._regularised(np.arange(n), self.alpha, roots)
        made = time.perf_counter()
        found = solve_in_place(A, right)
        self.fit_times_ = {"kernel": made - began, "solve": time.perf_counter() - made}
        return found

    def _solve_on_replicas(self, right, roots):
        from tf_largebatch.kernels._cholesky_replicas import BlockRows

        n, n_targets = right.shape
        system = BlockRows(
            n, n_targets, self.strategy, block_size=self.block_size, dtype=right.dtype
        )
        P = system.n_replicas
        refuse_what_does_not_fit(
            system.worker_bytes(),
            f"This worker's share of the Gram matrix of {n} samples, on {P} replicas,",
            self.memory_limit_bytes,
        )
        self.bytes_per_replica_ = np.full(P, system.replica_bytes)
        began = time.perf_counter()
        system.fill(lambda rows, columns: self._block(rows, columns, roots), right)
        made = time.perf_counter()
        found = system.solve(self._progress)
        if found is None:
            raise np.linalg.LinAlgError(
                "The kernel's matrix with alpha on its diagonal must be finite and definite. "
                f"Received: alpha={self.alpha}, kernel={self.kernel!r}. Raise alpha, remove equal "
                "samples, or use a positive definite kernel such as rbf."
            )
        self.fit_times_ = {"kernel": made - began, "solve": time.perf_counter() - made}
        self._book(system, right)
        return found

    def _block(self, rows, columns, roots):
        """A block row's part of S K S + alpha I, from its diagonal on."""
        numbers = np.arange(self.X_fit_.shape[0])
        block = np.array(self._between(numbers[rows], numbers[columns]))
        if roots is not None:
            block *= roots[rows, np.newaxis]
            block *= roots[columns]
        block.flat[:: block.shape[1] + 1] += self.alpha
        return block

    def _progress(self, n_done, n_steps):
        tenth = -(-n_steps // 10)
        if self.verbose and (n_done % tenth == 0 or n_done == n_steps):
            print(f"[kernels] {n_done}/{n_steps} steps of the solve done", flush=True)

    def _book(self, system, right):
        """What P nodes send: the samples from the root, panels and blocks of x to all others.

        `tf.distribute` has no broadcast: it is a sum in which the others add zeros, and what that
        moves is its own affair.
        """
        P, rows = system.n_replicas, system.block_size
        if P == 1:
            return
        self.ledger_.record(
            "distribute", "samples", source=0, n_messages=P - 1,
            n_bytes=(P - 1) * payload_bytes(self.X_fit_, right),
        )  # fmt: skip
        for k in range(system.n_blocks):
            owner = system.owner(k)
            self.ledger_.record(
                "train", "panel", source=owner, n_messages=P - 1,
                n_bytes=(P - 1) * system.panel_bytes(k),
            )  # fmt: skip
            self.ledger_.record(
                "train", "block of the solution", source=owner, n_messages=P - 1,
                n_bytes=(P - 1) * rows * right.shape[1] * right.itemsize,
            )  # fmt: skip
