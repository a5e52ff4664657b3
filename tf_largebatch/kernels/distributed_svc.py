"""One exact SVM over rows that lie in parts: Dis-SMO."""

import time

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms

from tf_largebatch.kernels._functions import refuse_what_does_not_fit
from tf_largebatch.kernels._svc import BaseKernelSVC
from tf_largebatch.kernels._tasks import Node
from tf_largebatch.kernels._workers import local_replicas
from tf_largebatch.kernels.ledger import Ledger

KERNELS = ("linear", "poly", "rbf", "sigmoid")


class DistributedSVC(BaseKernelSVC):
    """The whole problem's SVM, by SMO over rows in P parts (Dis-SMO; thesis, section 2.3).

    Takes the same steps as serial SMO, up to rounding. Kernel values are computed from two rows an
    iteration when they are needed, so memory grows with n_samples * n_features / P, and a problem
    may be larger than its Gram matrix allows. In return each iteration sends two rows to all parts,
    and at the end all support vectors go to all: f is computed anew from them, since in its
    increments rounding adds up.

    Args:
        n_parts: Number of parts P, of consecutive rows; at most the number of samples. Replicas of
            a strategy hold ceil(P / replicas) parts each.
        C, kernel, gamma, degree, coef0, class_weight: As of `sklearn.svm.SVC`; kernel: `"linear"`,
            `"poly"`, `"rbf"` or `"sigmoid"`.
        multi_class: `"ovr"`: one class against the rest; `"ovo"`: each pair of classes. All their
            binary problems step together.
        tol: Training ends with f_low <= f_high + 2 tol.
        max_iter: Of each binary problem, at most 10,000,000; -1 for that many.
        strategy: None: all parts on one device. A `tf.distribute.Strategy`: over its replicas, and
            each worker takes its own rows only.
        memory_limit_bytes: Of this worker's rows, which are dense; None: what is available.
        verbose: Above 0: a line each `ITERATIONS_PER_CALL` iterations.

    Attributes:
        classes_: (n_classes,).
        support_: (n_SV,) numbers of the support vectors; `support_vectors_`: their rows.
        dual_coef_: (k, n_SV) alpha_i y_i for each of k binary problems; `intercept_`: (k,).
        n_iter_: (k,) SMO's iterations.
        models_: The one trained model, as a list.
        ledger_: `Ledger` of what P nodes with a part each would send.
        fit_times_: Seconds: `"train"`.

    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(200, noise=0.2, random_state=0)
    >>> model = DistributedSVC(4).fit(X, y)
    >>> model.score(X, y), len(model.support_)
    (0.945, 54)
    """

    def __init__(
        self, n_parts=8, *, C=1.0, kernel="rbf", gamma="scale", degree=3, coef0=0.0,
        multi_class="ovr", class_weight=None, tol=1e-3, max_iter=-1, strategy=None,
        memory_limit_bytes=None, verbose=0,
    ):  # fmt: skip
        self.n_parts = n_parts
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.multi_class = multi_class
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.strategy = strategy
        self.memory_limit_bytes = memory_limit_bytes
        self.verbose = verbose

    def fit(self, X, y):
        """Trains.

        Args:
            X: (n_samples, n_features), dense or CSR; its rows are made dense in their parts.
            y: (n_samples,) classes.

        Raises:
            ValueError: If a parameter or the data are not as described, y has one class, or a value
                of the kernel would be infinite.
            MemoryError: If this worker's rows would not fit.
        """
        from tf_largebatch.kernels._dis_smo import solve

        X, codes = self._start_fit(X, y)
        if self.n_parts > X.shape[0]:
            raise ValueError(
                f"n_parts must be at most n_samples. Received: n_parts={self.n_parts}, "
                f"n_samples = {X.shape[0]}."
            )
        self._set_gamma(X)
        self._refuse_overflow(X)
        self.ledger_ = Ledger()
        samples = self._samples(X, codes)
        self._refuse(X, samples)
        began = time.perf_counter()
        alpha, b, n_iter, gap, turns, renewals = solve(
            X, samples.signs + (samples.signs == 0), samples.bounds, n_parts=self.n_parts,
            kernel=samples.kernel, tol=self.tol, max_iter=self.max_iter, strategy=self.strategy,
            ledger=self.ledger_, progress=self._progress if self.verbose else None,
        )  # fmt: skip
        self.fit_times_ = {"train": time.perf_counter() - began}
        self._book(X, codes, len(b), turns, renewals)
        node = Node(
            np.arange(X.shape[0]), alpha.astype(np.float64), b.astype(np.float64), n_iter, gap,
            self.fit_times_["train"],
        )  # fmt: skip
        self._set_model(node, samples)
        self._warn_of_gaps([node])
        return self

    def _check_parameters(self):
        super()._check_parameters()
        self._check_number("n_parts", low=1, whole=True)
        if self.kernel not in KERNELS:
            raise ValueError(
                f"DistributedSVC computes kernel values from rows: kernel must be one of "
                f"{list(KERNELS)}. Received: kernel={self.kernel!r}. Use PartitionedSVC or "
                "CascadeSVC for others."
            )

    def _refuse_overflow(self, X):
        """ValueError where a row's kernel value with itself, the largest in size, is infinite."""
        with np.errstate(over="ignore"):
            largest = row_norms(X, squared=True).max()
            if self.kernel in ("poly", "sigmoid"):
                largest = X.dtype.type(self.gamma_) * largest + X.dtype.type(abs(self.coef0))
            if self.kernel == "poly":
                largest = largest**self.degree
        if not np.isfinite(largest):
            raise ValueError(
                "The kernel's values must be finite. Received: samples whose values overflow "
                f"{X.dtype}. Scale the features, or lower gamma, degree or coef0."
            )

    def _refuse(self, X, samples):
        """Dense rows, and y, C, alpha, f and a few vectors more for each binary problem."""
        replicas = 1 if self.strategy is None else self.strategy.num_replicas_in_sync
        share = len(local_replicas(self.strategy)) / replicas
        per_row = (1 if sparse.issparse(X) or share < 1 else 0) + 1
        n_bytes = X.shape[0] * share * X.dtype.itemsize
        n_bytes *= per_row * X.shape[1] + 12 * samples.signs.shape[1]
        kind = "sparse rows, made dense," if sparse.issparse(X) else "rows"
        refuse_what_does_not_fit(
            int(n_bytes), f"Dis-SMO on {X.shape[0]} {kind} of {X.shape[1]} features",
            self.memory_limit_bytes,
        )  # fmt: skip

    def _book(self, X, codes, k, turns, renewals):
        """What P nodes send: rows once; each turn all extremes to all, and two rows to all; when f
        is computed anew all support vectors to all, and the extremes."""
        P, size = self.n_parts, X.dtype.itemsize
        rows = -(-X.shape[0] // P)
        for part in range(1, P):
            block = slice(part * rows, (part + 1) * rows)
            if part * rows < X.shape[0]:
                self.ledger_.send(
                    "distribute", "samples and labels", X[block],
                    np.asarray(codes[block], np.float64), source=0, target=part,
                )  # fmt: skip
        to_all = P * (P - 1)
        self.ledger_.record(
            "train", "extremes", n_bytes=turns * to_all * 2 * k * size, n_messages=turns * to_all
        )
        self.ledger_.record(
            "train", "rows of the pair", n_messages=turns * 2 * (P - 1),
            n_bytes=turns * 2 * (P - 1) * k * (X.shape[1] + 3) * size,
        )  # fmt: skip
        vectors = (P - 1) * sum(renewals) * (X.shape[1] + k) * size
        self.ledger_.record(
            "train", "f anew", n_messages=len(renewals) * to_all * 2,
            n_bytes=vectors + len(renewals) * to_all * 2 * k * size,
        )  # fmt: skip

    def _progress(self, n_iter, gap):
        print(
            f"[kernels] Dis-SMO: {n_iter.max()} iterations, f_low - f_high at most {gap.max():.3g}",
            flush=True,
        )
