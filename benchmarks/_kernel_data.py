"""Data for the benchmark of the kernel methods: made by scikit-learn, shipped with it, or given."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MaxAbsScaler, StandardScaler


class Data(NamedTuple):
    """Training and test samples, in an order of their own for each seed."""

    X: np.ndarray  # (n_samples, n_features)
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def moons(n, seed):
    """Two half moons in the plane: a boundary that each part sees a piece of."""
    return _split(*datasets.make_moons(n + _test(n), noise=0.27, random_state=seed), n, seed)


def gaussians(n, seed):
    """32 overlapping Gaussians in 10 dimensions, each of one of two classes."""
    random = np.random.default_rng(7)  # the same clusters for all seeds
    centers, classes = random.normal(scale=1.4, size=(32, 10)), random.permutation(32) % 2
    X, cluster = datasets.make_blobs(n + _test(n), centers=centers, random_state=seed)
    return _split(X, classes[cluster], n, seed)


def digits(n, seed):
    """Even or odd: scikit-learn's 1,797 digits of 8 by 8 pixels, at most 1,200 to train on."""
    X, digit = datasets.load_digits(return_X_y=True)
    return _split(X / 16, digit % 2, min(n, 1200), seed)


def classification(n, seed):
    """make_classification: one boundary through everything, of which each part sees 1/P."""
    X, y = datasets.make_classification(
        n + _test(n), 22, n_informative=12, n_redundant=4, n_clusters_per_class=4, class_sep=1.0,
        flip_y=0.05, random_state=42,
    )  # fmt: skip
    return _split(X, y, n, seed, StandardScaler())


CLASSIFICATION = {
    "moons": moons,
    "32 Gaussians": gaussians,
    "digits, even or odd": digits,
    "make_classification": classification,
}


def friedman(noise):
    """Friedman's first function of 5 of 10 features, with noise of this deviation."""

    def make(n, seed):
        X, y = datasets.make_friedman1(n + _test(n), 10, noise=noise, random_state=seed)
        return _split(X, y, n, seed)

    return make


def clustered(n, seed):
    """16 clusters in 8 dimensions, in each another linear function: no part helps another."""
    random = np.random.default_rng(11)
    centers = random.normal(scale=3.0, size=(16, 8))
    slopes, levels = random.normal(size=(16, 8)), random.normal(scale=3.0, size=16)
    X, cluster = datasets.make_blobs(n + _test(n), centers=centers, random_state=seed)
    y = levels[cluster] + np.einsum("ij,ij->i", X - centers[cluster], slopes[cluster])
    noise = np.random.default_rng(seed).normal(scale=0.5, size=len(y))
    return _split(X, y + noise, n, seed)


def wiggle(waves=1.0):
    """A wave in the plane with a little noise; `waves` times as many of them."""

    def make(n, seed):
        random = np.random.default_rng(seed)
        X = random.uniform(-1, 1, (n + _test(n), 2))
        y = np.sin(12 * waves * X[:, 0]) * np.cos(10 * waves * X[:, 1])
        return _split(X, y + random.normal(scale=0.05, size=len(X)), n, seed)

    return make


REGRESSION = {
    "friedman1": friedman(0.0),
    "friedman1, noise 1": friedman(1.0),
    "clustered": clustered,
    "wiggle": wiggle(),
}


def from_file(path):
    """A file in svmlight's format, such as ijcnn1, covtype.binary or YearPredictionMSD (.bz2, too).

    `n` random rows are for training, up to 10,000 of the rest for tests. Features are scaled to at
    most 1 in size, which leaves zeros zero, or standardised where most values aren't zero.
    """
    X, y = datasets.load_svmlight_file(str(path))
    dense = X.nnz > 0.5 * X.shape[0] * X.shape[1]

    def make(n, seed):
        given = (X.toarray(), StandardScaler()) if dense else (X, MaxAbsScaler())
        return _split(given[0], y, n, seed, given[1])

    return make


def fetched_covtype():
    """Forest cover types 1 and 2 against the rest, which scikit-learn fetches from the network."""
    X, cover = datasets.fetch_covtype(return_X_y=True)

    def make(n, seed):
        return _split(X, (cover <= 2).astype(int), n, seed, StandardScaler())

    return make


def _test(n):
    return max(n // 2, 1000)


def _split(X, y, n, seed, scaler=None):
    n = min(n, 2 * len(y) // 3)
    left = min(len(y) - n, 10_000)
    X, X_test, y, y_test = train_test_split(
        X, y, train_size=n, test_size=left, random_state=seed,
        stratify=y if len(np.unique(y)) < 20 else None,
    )  # fmt: skip
    if scaler is not None:
        X, X_test = scaler.fit_transform(X), scaler.transform(X_test)
    if scipy.sparse.issparse(X):
        X, X_test = X.tocsr(), X_test.tocsr()
    return Data(X, y, X_test, y_test)
