"""What the partitioners share: checks of the input, groups that are dealt apart, centres."""

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from tf_largebatch.kernels._functions import available_bytes
from tf_largebatch.kernels.assignment import first_come_first_served, shares


class BasePartition(BaseEstimator):
    """What the partitioners share: checks, groups that are dealt apart, centres, `predict`.

    No `ClusterMixin`: even parts are no clusters, and scikit-learn's checks would want to see some.
    """

    def fit(self, X, y=None):
        """Splits the samples into parts.

        Args:
            X: (n_samples, n_features) floats, dense or CSR.
            y: (n_samples,) class labels, used if `stratify`; else ignored.

        Returns:
            self.

        Raises:
            ValueError: If there are fewer samples than parts, or `stratify` finds no class labels.
            MemoryError: If the centres, which are dense, would not fit.
        """
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32])
        n_samples, n_features = X.shape
        check_count("n_parts", self.n_parts)
        if n_samples < self.n_parts:
            raise ValueError(
                f"A part needs at least one sample: received n_samples={n_samples} and n_parts="
                f"{self.n_parts}. Lower n_parts to {n_samples} or less."
            )
        _refuse_large_centers(self.n_parts, n_features)
        labels = self._split(X, self._groups(X, y))
        self.sizes_ = np.bincount(labels, minlength=self.n_parts)
        self.labels_ = labels
        if getattr(self, "recompute", True):
            self.centers_ = _means(X, labels, self.sizes_)
        else:
            self.centers_ = self.initial_centers_
        return self

    def fit_predict(self, X, y=None):
        """Fits and returns `labels_`, the part of each sample of X."""
        return self.fit(X, y).labels_

    def predict(self, X):
        """The part whose center is nearest to each sample.

        That needn't be the part a training sample was put in, where that part had no room.

        Args:
            X: (n_samples, n_features) floats, dense or CSR.

        Returns:
            (n_samples,) integers from 0 to n_parts - 1.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return pairwise_distances_argmin(X, self.centers_)

    def _groups(self, X, y):
        """(n_samples,) integers: samples of one group are dealt evenly, apart from the others."""
        if not self.stratify:
            return np.zeros(X.shape[0], dtype=np.intp)
        if y is None:
            raise ValueError(
                "stratify=True needs class labels, but y is None. Call fit(X, y), or pass "
                "stratify=False."
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        check_classification_targets(y)
        return np.unique(y, return_inverse=True)[1]

    def _serve(self, X, groups, quotas):
        """Deals the rows of each group, in their order, first come first served."""
        labels = np.empty(X.shape[0], dtype=np.intp)
        distances = squared_distances(X, self.initial_centers_)
        for group, room in enumerate(quotas):
            rows = np.flatnonzero(groups == group)
            labels[rows] = first_come_first_served(distances, room, rows)
        return labels

    def _even_quotas(self, groups):
        return shares(np.bincount(groups), np.ones(self.n_parts, dtype=np.int64))

    def _k_means(self, X):
        """Fits K-means; sets the centres it found and how long it took; returns its labels."""
        k_means = KMeans(
            self.n_parts, n_init=self.n_init, max_iter=self.max_iter, random_state=self.random_state
        ).fit(X)
        self.initial_centers_, self.n_iter_ = k_means.cluster_centers_, k_means.n_iter_
        return k_means.labels_.astype(np.intp)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def check_count(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1. Received: {name}={value!r}.")


def _refuse_large_centers(n_parts, n_features):
    n_bytes, limit = 8 * n_parts * n_features, available_bytes()
    if limit is not None and n_bytes > limit:
        raise MemoryError(
            f"The centers are dense: {n_parts} of {n_features} features need {n_bytes:,} bytes, "
            f"and {limit:,} are available. Lower n_parts, or reduce the features first."
        )


def squared_distances(X, centers):
    """A function from row numbers to the squares of their distances from all centres."""
    return lambda rows: euclidean_distances(X[rows], centers, squared=True)


def _means(X, labels, sizes):
    """(n_parts, n_features): the means of the parts, dense, in the dtype of X."""
    n_samples, n_parts = len(labels), len(sizes)
    average = scipy.sparse.csr_array(
        (1.0 / sizes[labels], (labels, np.arange(n_samples))), shape=(n_parts, n_samples)
    )
    means = average @ X
    if scipy.sparse.issparse(means):
        means = means.toarray()
    return np.asarray(means, dtype=X.dtype)
