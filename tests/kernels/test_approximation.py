"""Identities and bounds of section 2.5, on dense and CSR data, for any parts."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix
from sklearn.datasets import make_blobs

from tf_largebatch.kernels import approximation
from tf_largebatch.kernels.partition import KMeansPartition, RandomPartition


def gaussian(X, gamma):
    return np.exp(-gamma * ((X[:, None, :] - X[None]) ** 2).sum(axis=2))


@pytest.fixture(name="cases", params=range(5))
def make_cases(request):
    random = np.random.default_rng(request.param)
    X = make_blobs(90, 3, centers=5, cluster_std=0.7, random_state=request.param)[0]
    X -= random.normal(size=3)
    return X, [
        random.integers(0, 6, 90),
        np.zeros(90, dtype=int),
        np.arange(90),
        np.array(list("abc"))[random.integers(0, 3, 90)],
        KMeansPartition(5, random_state=0).fit(X).labels_,
    ]


def k_means(X, labels):
    parts = [X[labels == part] for part in np.unique(labels)]
    return sum(((rows - rows.mean(axis=0)) ** 2).sum() for rows in parts)


def test_the_k_means_objective(cases):
    X, partitions = cases
    for labels in partitions:
        expected = pytest.approx(k_means(X, labels), rel=1e-10, abs=1e-10)
        for given in (X, csr_array(X), csr_matrix(X)):
            assert approximation.k_means_objective(given, labels) == expected


def test_j_1_and_k_means_share_the_squared_norm(cases):
    X, partitions = cases
    for labels in partitions:
        j_1 = approximation.j_1(X @ X.T, labels)
        assert (X**2).sum() - j_1 == pytest.approx(k_means(X, labels), rel=1e-9, abs=1e-9)


def test_j_2s_bound_holds_and_can_be_near(cases):
    X, partitions = cases
    for gamma in (1e-4, 0.01, 0.5, 20.0):
        K = gaussian(X, gamma)
        for labels in partitions:
            bound = approximation.j_2_lower_bound(len(X), gamma, k_means(X, labels))
            assert approximation.j_2(K, labels) >= bound
    # Parts of one point each: J_2 = m, and the bound loses its factor of two only.
    alone = np.arange(len(X))
    assert approximation.j_2(K, alone) == len(X)
    assert approximation.j_2_lower_bound(len(X), 20.0, 0.0) == len(X) / 2


def test_r_is_the_steepest_slope():
    """R² = 2 gamma / e against the slope itself, on a grid."""
    gamma, s = 0.7, np.linspace(0, 5, 200_001)
    steepest = (2 * gamma * s * np.exp(-gamma * s**2)).max()
    r_squared = (50 - approximation.j_2_lower_bound(100, gamma, 1.0)) / 2
    assert r_squared == pytest.approx(steepest**2, rel=1e-6)
    assert r_squared == pytest.approx(2 * gamma / math.e)


def test_blocks_are_never_above_the_whole(cases):
    X, partitions = cases
    for gamma in (0.01, 20.0):
        K = gaussian(X, gamma)
        for labels in partitions:
            norm = approximation.block_norm(K, labels)
            kept = K * (labels[:, None] == labels)
            assert norm.whole == pytest.approx(np.linalg.norm(K))
            assert norm.blocks == pytest.approx(np.linalg.norm(kept))
            assert norm.blocks <= norm.whole * (1 + 1e-12)
            assert norm.error == pytest.approx(1 - norm.blocks / norm.whole, abs=1e-12)
            expected = np.linalg.norm(K - kept) / norm.whole
            assert norm.distance == pytest.approx(expected, abs=1e-7)


def test_table_2_19_as_printed_cannot_be():
    """Its clustered norms are above the whole's; its errors and the random column are right."""
    printed = (36.0, 27.8, 21.3, 16.5, 13.1, 10.6)
    for (_, whole, random, clustered), percent in zip(
        approximation.TABLE_2_19, printed, strict=True
    ):
        assert clustered > whole > random
        assert 100 * (whole - random) / whole == pytest.approx(percent, abs=0.05001)


def test_clusters_approximate_better_than_random_parts():
    X = make_blobs(300, 5, centers=6, random_state=2)[0]
    K = gaussian(X, 0.05)
    clusters = KMeansPartition(6, random_state=0).fit(X).labels_
    random = RandomPartition(6, random_state=0).fit(X).labels_
    clustered, at_random = (approximation.block_norm(K, labels) for labels in (clusters, random))
    assert clustered.error < 0.05 and at_random.error > 0.4


def test_labels_belong_to_the_matrix():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        approximation.block_norm(np.eye(3), [0, 1])
