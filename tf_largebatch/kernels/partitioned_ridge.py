"""Kernel ridge regression on parts of the samples: DC-KRR, KKRR, KKRR2, BKRR and BKRR2."""

import time
from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, check_X_y

from tf_largebatch.kernels._engine import BATCH_BYTES, Problem, solve_parts
from tf_largebatch.kernels._ridge import BaseKernelRidge, solve_in_place
from tf_largebatch.kernels.ledger import Ledger, payload_bytes
from tf_largebatch.kernels.partition import PARTITIONS, RandomPartition, make_partition


class PartitionedKernelRidge(BaseKernelRidge):
    """Splits the samples, fits a kernel ridge regression to each part, combines the predictions.

    Each part t of m_t samples solves (K_t + lambda m_t I) dual_coef = y_t by a Cholesky factor
    (thesis equation 3.6), which takes 1 / n_parts^2 of the whole one's time for all parts together,
    and 1 / n_parts^3 where each part has a machine of its own (section 3.7). Nothing is sent while
    they are solved. What a method of chapter 3 is:

    | method | partition | combine |
    |---|---|---|
    | DC-KRR (Algorithm 8) | random | average |
    | KKRR, KKRR2 | kmeans | average, nearest |
    | BKRR, BKRR2 (Algorithm 10) | kbalance | average, nearest |
    | KKRR3, BKRR3 (Algorithm 11) | kmeans, kbalance | `oracle_score`, a bound |

    Routing to the nearest part (BKRR2) is more accurate than averaging (DC-KRR) where the error is
    bias: little noise, or a target with another form in each region. Averaging is more accurate
    where it is noise.

    Args:
        alpha: Ridge penalty of the whole, at least 0, with scikit-learn's meaning: alpha = lambda
            n_samples. A part gets alpha n_part / n_samples, so that lambda is the same for all;
            with weights, its share of their sum.
        n_parts: Number of parts.
        partition: `"kmeans"`, `"kbalance"`, `"balanced_kmeans"`, `"fcfs"`, `"random"`, or a
            partitioner object, which keeps its own n_parts and random_state.
        combine: `"nearest"`: the model of the part with the nearest center predicts;
            `"average"`: the mean of all models.
        kernel: `"rbf"`, `"linear"`, `"poly"`, `"sigmoid"`; a function of two matrices that returns
            the values of all pairs of rows; or `"precomputed"`, with a random partition and
            the average only: other partitions and routing need the features.
        gamma: A number; None or `"auto"`: 1 / n_features; `"scale"`: 1 / (n_features X.var()).
            For the thesis's sigma, gamma = 1 / (2 sigma^2).
        degree: Of poly.
        coef0: The constant of poly and sigmoid.
        strategy: None: one device, batched over the parts. A `tf.distribute.Strategy`: each replica
            takes a group of parts. The results are equal. Pickles leave it out.
        memory_limit_bytes: Of the Gram matrices that are in memory at a time, the largest part's or
            those of a batch, and of their factors, which count as much again; None: what is
            available.
        batch_bytes: Parts of like size are solved together, as many as fit in these bytes. 0: one
            at a time, so that `fit_times_["parts"]` is measured and not shared out.
        verbose: Above 0: a line for each batch of parts.
        random_state: Of a partitioner given by name: int, RandomState or None.

    Attributes:
        partition_: The fitted partitioner: `labels_`, `centers_`, `sizes_`.
        part_indices_: List of n_parts arrays: the numbers of the training samples of each part.
        dual_coef_: (n_samples,) or (n_samples, n_targets): each sample's in its part's model.
        X_fit_: The training samples, which predictions need.
        gamma_: The number behind `gamma`.
        is_definite_: (n_parts,) bool: whether the part had a Cholesky factor. If not, its model is
            the least-squares solution, and `fit` warned.
        n_iter_: None: the solve is direct.
        fit_times_: Seconds: "partition", "solve" and, an array, "parts". The slowest part and
            "partition" are what n_parts machines would take.
        ledger_: A `Ledger`: what n_parts machines would send each other; nothing while they solve.

    Raises:
        ValueError: In `fit`, for what scikit-learn's `KernelRidge` refuses, for more parts than
            samples, and for a precomputed kernel with anything but random parts and the average.
        MemoryError: In `fit`, if the largest part's Gram matrix and its factor don't fit; says the
            bytes.

    Choose alpha and gamma by cross-validation, as for every scikit-learn estimator:

    >>> from sklearn.datasets import make_friedman1
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_friedman1(480, random_state=0)
    >>> search = GridSearchCV(
    ...     PartitionedKernelRidge(n_parts=2, partition="kbalance", random_state=0),
    ...     {"alpha": [1e-3, 1.0], "gamma": [0.01, 0.1]},
    ...     cv=3,
    ... ).fit(X[:400], y[:400])
    >>> search.best_params_, round(search.score(X[400:], y[400:]), 2)
    ({'alpha': 0.001, 'gamma': 0.1}, 0.93)
    """

    _parameter_constraints: ClassVar = BaseKernelRidge._parameter_constraints | {
        "n_parts": [Integral],  # what is wrong with a number, the partitioner says
        "partition": [StrOptions(set(PARTITIONS)), HasMethods(["fit", "predict"])],
        "combine": [StrOptions({"nearest", "average"})],
        "strategy": [object],
        "batch_bytes": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, alpha=1.0, *, n_parts=8, partition="kmeans", combine="nearest", kernel="rbf",
        gamma=None, degree=3, coef0=1, strategy=None, memory_limit_bytes=None,
        batch_bytes=BATCH_BYTES, verbose=0, random_state=None,
    ):  # fmt: skip
        self.alpha = alpha
        self.n_parts = n_parts
        self.partition = partition
        self.combine = combine
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.strategy = strategy
        self.memory_limit_bytes = memory_limit_bytes
        self.batch_bytes = batch_bytes
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None):
        """Splits the samples and fits a model to each part.

        Args:
            X: (n_samples, n_features) floats, dense or CSR; (n_samples, n_samples) if precomputed.
                float32 is solved in float32.
            y: (n_samples,) or (n_samples, n_targets) numbers.
            sample_weight: (n_samples,) or a number: weights of the squared errors. They do not
                enter the partition, but samples of weight 0 are left out of it.

        Returns:
            self.
        """
        y, sample_weight = self._check_fit(X, y, sample_weight)
        self.ledger_, self.n_iter_, began = Ledger(), None, time.perf_counter()
        self._split(y, sample_weight)
        split = time.perf_counter()
        self._solve(y, sample_weight)
        self.fit_times_ |= {"partition": split - began, "solve": time.perf_counter() - split}
        if self._one_target:
            self.dual_coef_ = self.dual_coef_.ravel()
        return self

    def predict(self, X):
        """The nearest part's prediction, or the mean of all parts' predictions.

        Args:
            X: (n_samples, n_features) floats, dense or CSR; if the kernel is precomputed, its
                values (n_samples, n_samples_fit).

        Returns:
            (n_samples,) or (n_samples, n_targets) floats.
        """
        check_is_fitted(self)
        X = self._check_predict(X)
        if self.combine == "average":
            total = sum(self._expansion(X, indices) for indices in self.part_indices_)
            return total / len(self.part_indices_)
        nearest = self.partition_.predict(X)
        values = np.empty((len(nearest), *self.dual_coef_.shape[1:]), self.dual_coef_.dtype)
        for part in np.unique(nearest):
            rows = np.flatnonzero(nearest == part)
            values[rows] = self._expansion(X[rows], self.part_indices_[part])
        return values

    def oracle_score(self, X, y, *, sample_weight=None):
        """Mean squared error if the part with the best prediction were known: a lower bound.

        For each sample the model is chosen by the true target (KKRR3, BKRR3; thesis Algorithm 11),
        so that no choice between these parts can have a smaller error. It is no predictor's error:
        even parts that know nothing score well. The smaller the better, unlike `score`.

        Args:
            X: As for `predict`.
            y: (n_samples,) or (n_samples, n_targets): the true targets.
            sample_weight: (n_samples,): weights in the mean.

        Returns:
            The mean of the squared errors, over samples and targets.

        >>> X = np.linspace(0, 6, 60)[:, np.newaxis]
        >>> model = PartitionedKernelRidge(0.1, n_parts=3, gamma=1.0, random_state=0)
        >>> error = np.mean((model.fit(X, np.sin(X[:, 0])).predict(X) - np.sin(X[:, 0])) ** 2)
        >>> bool(0 < model.oracle_score(X, np.sin(X[:, 0])) <= error)
        True
        """
        check_is_fitted(self)
        X, y = check_X_y(
            self._check_predict(X), y, accept_sparse="csr", multi_output=True, y_numeric=True
        )
        targets, best = np.reshape(y, (len(y), -1)), np.full(len(y), np.inf)
        for indices in self.part_indices_:
            values = self._expansion(X, indices).reshape(targets.shape)
            best = np.minimum(best, np.mean((values - targets) ** 2, axis=1))
        return float(np.average(best, weights=sample_weight))

    def _split(self, y, sample_weight):
        """Sets the partitioner and each part's samples; books what is sent to the parts."""
        is_random = self.partition == "random" or isinstance(self.partition, RandomPartition)
        if self.kernel == "precomputed" and not (is_random and self.combine == "average"):
            raise ValueError(
                'kernel="precomputed" needs partition="random" and combine="average": other '
                "partitions, and routing to the nearest center, need the samples' features. "
                f"Received: partition={self.partition!r}, combine={self.combine!r}."
            )
        kept = np.arange(len(y))
        if sample_weight is not None:
            kept = np.flatnonzero(sample_weight > 0)
        rows, targets = self.X_fit_, y.ravel() if self._one_target else y
        if len(kept) < len(y):
            rows, targets = rows[kept], targets[kept]
        self.partition_ = make_partition(
            self.partition, n_parts=self.n_parts, random_state=self.random_state
        ).fit(rows, targets)
        labels = self.partition_.labels_
        # Stable: the samples of a part stay in their order.
        ends = np.cumsum(self.partition_.sizes_)[:-1]
        self.part_indices_ = np.split(kept[np.argsort(labels, kind="stable")], ends)
        self._book(y)

    def _solve(self, y, sample_weight):
        import tensorflow  # noqa: F401  (else the first solve's time would hold its import)

        from tf_largebatch.kernels._cholesky import solve_stack

        roots = None if sample_weight is None else np.sqrt(sample_weight).astype(y.dtype)
        weights = np.ones(len(y)) if sample_weight is None else sample_weight
        right = y if roots is None else y * roots[:, np.newaxis]
        alphas = [self.alpha * weights[i].sum() / weights.sum() for i in self.part_indices_]

        def problem(indices, alpha):
            def make():
                return {
                    "K": lambda out: self._regularised(indices, alpha, roots, out=out),
                    "y": right[indices],
                }

            return Problem(make, len(indices), y.dtype)

        solved = solve_parts(
            solve_stack, list(map(problem, self.part_indices_, alphas)), strategy=self.strategy,
            ledger=self.ledger_, memory_limit_bytes=self.memory_limit_bytes, verbose=self.verbose,
            batch_bytes=self.batch_bytes, n_matrices=2,
        )  # fmt: skip
        self.dual_coef_ = np.zeros_like(y)
        self.is_definite_ = np.array([bool(result["is_definite"]) for result in solved])
        for indices, alpha, result in zip(self.part_indices_, alphas, solved, strict=True):
            found = result["dual_coef"]
            if not result["is_definite"]:
                found = solve_in_place(self._regularised(indices, alpha, roots), right[indices])
            self.dual_coef_[indices] = found
        if roots is not None:
            self.dual_coef_ *= roots[:, np.newaxis]
        self.fit_times_ = {"parts": solved.seconds}

    def _book(self, y):
        """Samples go from the root, part 0, to their parts; models and centres come back."""
        for part, indices in enumerate(self.part_indices_[1:], start=1):
            samples = payload_bytes(self.X_fit_[indices], y[indices])
            self.ledger_.record("distribute", "samples", n_bytes=samples, source=0, target=part)
            model = y[indices].nbytes  # a coefficient for each sample and target
            self.ledger_.record("collect", "models", n_bytes=model, source=part, target=0)
            if self.combine == "nearest":
                self.ledger_.send(
                    "collect", "centres", self.partition_.centers_[part], source=part, target=0
                )
