"""How training samples are split into parts: five partitioners, as scikit-learn's estimators.

Which one a method of the thesis uses is in `methods`. All have centres, and `predict` finds the
nearest: that is how a routed model finds the part that answers for a new sample.
"""

import numpy as np
import scipy.sparse
from sklearn.base import ClusterMixin, clone
from sklearn.utils import check_random_state

from tf_largebatch.kernels._partition import BasePartition, check_count, squared_distances
from tf_largebatch.kernels.assignment import level, shares


class RandomPartition(BasePartition):
    """Even parts at random, which know nothing of X: CA-SVM, DC-KRR, Cascade.

    Where the data already lie on P machines in no particular order, this partition is there without
    sending anything (thesis, section 2.4, Algorithm 5). A part has floor or ceil of
    n_samples / n_parts samples.

    Args:
        n_parts: Number of parts, at most the number of samples.
        stratify: Whether each part gets the classes of y in their proportions, within rounding.
        random_state: int, RandomState or None, as scikit-learn's.

    Attributes:
        labels_: (n_samples,) integers: the part of each training sample.
        sizes_: (n_parts,) integers: the samples of each part.
        centers_: (n_parts, n_features): the means of the parts.

    >>> X = np.arange(10.0)[:, np.newaxis]
    >>> RandomPartition(4, random_state=0).fit(X).sizes_
    array([3, 3, 2, 2])
    """

    def __init__(self, n_parts=8, *, stratify=False, random_state=None):
        self.n_parts = n_parts
        self.stratify = stratify
        self.random_state = random_state

    def _split(self, X, groups):
        random = check_random_state(self.random_state)
        labels = np.empty(X.shape[0], dtype=np.intp)
        for group, places in enumerate(self._even_quotas(groups)):
            rows = random.permutation(np.flatnonzero(groups == group))
            labels[rows] = np.repeat(np.arange(self.n_parts), places)
        return labels


class FCFSPartition(BasePartition):
    """First come first served: even parts around random samples (thesis, Algorithm 3).

    The centres are n_parts random samples. In the order of the rows, each sample goes to the
    nearest centre that has room. A part has floor or ceil of n_samples / n_parts samples.

    Args:
        n_parts: Number of parts, at most the number of samples.
        stratify: Whether each part gets the classes of y in their proportions, within rounding: the
            samples of each class are dealt apart, around the same centres.
        recompute: Whether `centers_` are the means of the parts, which the thesis calls optional;
            else they are the samples around which the parts were dealt.
        random_state: int, RandomState or None, as scikit-learn's.

    Attributes:
        labels_: (n_samples,) integers: the part of each training sample.
        sizes_: (n_parts,) integers: the samples of each part.
        centers_: (n_parts, n_features): see `recompute`.
        initial_centers_: (n_parts, n_features): the random samples.

    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    >>> FCFSPartition(2, random_state=0).fit(X).sizes_
    array([3, 3])
    """

    def __init__(self, n_parts=8, *, stratify=False, recompute=True, random_state=None):
        self.n_parts = n_parts
        self.stratify = stratify
        self.recompute = recompute
        self.random_state = random_state

    def _split(self, X, groups):
        random = check_random_state(self.random_state)
        first = X[random.choice(X.shape[0], self.n_parts, replace=False)]
        self.initial_centers_ = first.toarray() if scipy.sparse.issparse(first) else first
        return self._serve(X, groups, self._even_quotas(groups))


class KMeansPartition(ClusterMixin, BasePartition):
    """The clusters of K-means, of whatever size they come: CP-SVM, DC-SVM, KKRR.

    No part is empty: where samples coincide so much that K-means finds fewer clusters (it warns),
    each empty part takes the farthest sample of the largest part.

    Args:
        n_parts: Number of parts, at most the number of samples.
        stratify: If true, the parts keep the sizes that K-means gives, within rounding, but each
            gets the classes of y in their proportions: the samples of each class are dealt apart,
            first come first served, around the same centres.
        n_init: Number of starts, as scikit-learn's `KMeans`.
        max_iter: Largest number of iterations of a start.
        random_state: int, RandomState or None, as scikit-learn's.

    Attributes:
        labels_: (n_samples,) integers: the part of each training sample.
        sizes_: (n_parts,) integers: the samples of each part.
        centers_: (n_parts, n_features): the means of the parts.
        initial_centers_: (n_parts, n_features): the centres as K-means left them.
        n_iter_: Iterations of the best start.

    >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [11.0], [12.0]])
    >>> np.sort(KMeansPartition(2, random_state=0).fit(X).sizes_)
    array([2, 4])
    """

    fit_predict = BasePartition.fit_predict  # the mixin's would lose y

    def __init__(
        self, n_parts=8, *, stratify=False, n_init="auto", max_iter=300, random_state=None
    ):
        self.n_parts = n_parts
        self.stratify = stratify
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def _split(self, X, groups):
        labels = self._k_means(X)
        if self.stratify:
            sizes = np.bincount(labels, minlength=self.n_parts)
            labels = self._serve(X, groups, shares(np.bincount(groups), sizes))
        quotas = np.bincount(labels, minlength=self.n_parts)
        for part in np.flatnonzero(quotas == 0):
            quotas[quotas.argmax()] -= 1
            quotas[part] = 1
        return level(labels, quotas, squared_distances(X, self.initial_centers_))


class KBalancePartition(BasePartition):
    """K-means' centres, even parts first come first served: BKRR (thesis, Algorithm 9).

    Finds K-means' centres, forgets its clusters, and deals the samples in the order of the rows:
    each goes to the nearest centre that has room. A part has floor or ceil of n_samples / n_parts
    samples.

    Args:
        n_parts: Number of parts, at most the number of samples.
        stratify: Whether each part gets the classes of y in their proportions, within rounding: the
            samples of each class are dealt apart, around the same centres.
        recompute: Whether `centers_` are the means of the parts, which the thesis calls optional;
            else they are K-means' centres.
        n_workers: 1 for Algorithm 9. More: the thesis's "approximate parallel algorithm" (section
            3.4) with as many workers. Each has a block of consecutive rows and deals it by itself,
            with its own share of the places: n_samples / (n_parts * n_workers) in each part, in the
            thesis n/p². The workers need nothing from each other but the centres. Rows that are
            sorted make it coarse: shuffle them.
        n_init: Number of starts, as scikit-learn's `KMeans`.
        max_iter: Largest number of iterations of a start.
        random_state: int, RandomState or None, as scikit-learn's.

    Attributes:
        labels_: (n_samples,) integers: the part of each training sample.
        sizes_: (n_parts,) integers: the samples of each part.
        centers_: (n_parts, n_features): see `recompute`.
        initial_centers_: (n_parts, n_features): the centres as K-means left them.
        n_iter_: Iterations of the best start.

    >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [11.0], [12.0]])
    >>> balanced = KBalancePartition(2, random_state=0).fit(X)
    >>> balanced.sizes_, balanced.labels_[3] == balanced.labels_[5]  # the fourth came too late
    (array([3, 3]), np.True_)
    """

    def __init__(
        self, n_parts=8, *, stratify=False, recompute=True, n_workers=1, n_init="auto",
        max_iter=300, random_state=None,
    ):  # fmt: skip
        self.n_parts = n_parts
        self.stratify = stratify
        self.recompute = recompute
        self.n_workers = n_workers
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def _groups(self, X, y):
        check_count("n_workers", self.n_workers)
        classes = super()._groups(X, y)
        blocks = np.arange(X.shape[0]) * self.n_workers // X.shape[0]
        return np.unique(blocks * (classes.max() + 1) + classes, return_inverse=True)[1]

    def _split(self, X, groups):
        self._k_means(X)
        return self._serve(X, groups, self._even_quotas(groups))


class BalancedKMeansPartition(BasePartition):
    """K-means, then the overloaded clusters give members away: BKM-SVM (thesis, Algorithm 4).

    Each overloaded part in order gives its farthest sample to the nearest part with room, until it
    has its quota. A part has floor or ceil of n_samples / n_parts samples; the larger clusters
    keep the one more.

    Args:
        n_parts: Number of parts, at most the number of samples.
        stratify: Whether each part gets the classes of y in their proportions, within rounding: the
            samples of each class are levelled apart.
        recompute: Whether `centers_` are the means of the parts, which the thesis calls optional;
            else they are K-means' centres.
        n_init: Number of starts, as scikit-learn's `KMeans`.
        max_iter: Largest number of iterations of a start.
        random_state: int, RandomState or None, as scikit-learn's.

    Attributes:
        labels_: (n_samples,) integers: the part of each training sample.
        sizes_: (n_parts,) integers: the samples of each part.
        centers_: (n_parts, n_features): see `recompute`.
        initial_centers_: (n_parts, n_features): the centres as K-means left them.
        n_iter_: Iterations of the best start.

    >>> X = np.array([[0.0], [1.0], [2.0], [3.5], [11.0], [12.0]])
    >>> level = BalancedKMeansPartition(2, random_state=0).fit(X)
    >>> level.sizes_, level.labels_[3] == level.labels_[5]
    (array([3, 3]), np.True_)
    """

    def __init__(
        self, n_parts=8, *, stratify=False, recompute=True, n_init="auto", max_iter=300,
        random_state=None,
    ):  # fmt: skip
        self.n_parts = n_parts
        self.stratify = stratify
        self.recompute = recompute
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def _split(self, X, groups):
        labels = self._k_means(X)
        largest_first = np.argsort(-np.bincount(labels, minlength=self.n_parts), kind="stable")
        quotas = np.empty((groups.max() + 1, self.n_parts), dtype=np.int64)
        quotas[:, largest_first] = self._even_quotas(groups)
        distances = squared_distances(X, self.initial_centers_)
        for group, quota in enumerate(quotas):
            rows = np.flatnonzero(groups == group)
            labels[rows] = level(labels[rows], quota, lambda chosen, r=rows: distances(r[chosen]))
        return labels


PARTITIONS = {
    "random": RandomPartition,
    "kmeans": KMeansPartition,
    "kbalance": KBalancePartition,
    "balanced_kmeans": BalancedKMeansPartition,
    "fcfs": FCFSPartition,
}


def make_partition(partition, *, n_parts=8, random_state=None):
    """The unfitted partitioner that an estimator's argument `partition` stands for.

    Args:
        partition: One of the names in `PARTITIONS`; or a partitioner object, which is cloned and
            keeps its own n_parts and random_state.
        n_parts: Number of parts of a partitioner given by name.
        random_state: Its random_state.

    Raises:
        ValueError: If there is no partitioner of this name.

    >>> make_partition("fcfs", n_parts=4)
    FCFSPartition(n_parts=4)
    """
    if not isinstance(partition, str):
        return clone(partition)
    if partition not in PARTITIONS:
        raise ValueError(
            f"partition must be one of {sorted(PARTITIONS)} or a partitioner object. Received: "
            f"partition={partition!r}."
        )
    return PARTITIONS[partition](n_parts, random_state=random_state)
