"""The partitioners: scikit-learn's checks, sizes, the printed algorithms, classes, CSR, traps."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array, csr_matrix
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from tf_largebatch.kernels import _partition, partition
from tf_largebatch.kernels.partition import (
    PARTITIONS,
    BalancedKMeansPartition,
    FCFSPartition,
    KBalancePartition,
    KMeansPartition,
    RandomPartition,
    make_partition,
)

ALL = list(PARTITIONS.values())
EVEN = [p for p in ALL if p is not KMeansPartition]
AROUND_CENTERS = [p for p in ALL if p is not RandomPartition]


@parametrize_with_checks([p() for p in ALL])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def blobs(m=203, features=4, classes=3, seed=0):
    return make_blobs(m, features, centers=6, random_state=seed)[0], np.random.default_rng(
        seed
    ).choice(classes, m, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))


def squares(X, centers):
    """Squared distances, each as its own sum."""
    return ((X[:, None, :] - centers[None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("method", EVEN)
@pytest.mark.parametrize("parts", [1, 2, 7, 8, 203])
def test_sizes_are_floor_or_ceil(method, parts):
    fitted = method(parts, random_state=1).fit(blobs()[0])
    assert set(fitted.sizes_) <= {203 // parts, -(-203 // parts)} and fitted.sizes_.sum() == 203
    assert (np.bincount(fitted.labels_, minlength=parts) == fitted.sizes_).all()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centers_are_the_means_of_the_parts(method, dtype):
    X = blobs()[0].astype(dtype)
    fitted = method(5, random_state=1).fit(X)
    means = [X[fitted.labels_ == part].mean(axis=0, dtype=np.float64) for part in range(5)]
    assert fitted.centers_.dtype == dtype
    # K-means' own rounding decides nothing here: the means are taken anew.
    np.testing.assert_allclose(fitted.centers_, means, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("method", ALL)
def test_predict_takes_the_nearest_center(method):
    X, _ = blobs()
    fitted = method(5, random_state=1).fit(X)
    new = np.random.default_rng(7).normal(size=(50, 4)) * 6
    expected = squares(new, fitted.centers_).argmin(axis=1)
    assert (fitted.predict(new) == expected).all()
    assert (fitted.predict(csr_matrix(new)) == expected).all()


def test_k_means_parts_are_those_of_the_nearest_center():
    X, _ = blobs()
    fitted = KMeansPartition(5, random_state=1).fit(X)
    assert (fitted.predict(X) == fitted.labels_).all() and fitted.n_iter_ >= 1


@pytest.mark.parametrize("method", [FCFSPartition, KBalancePartition])
def test_rows_are_served_in_their_order(method):
    X, _ = blobs(m=40)
    fitted = method(4, random_state=2, recompute=False).fit(X)
    distances, sizes = squares(X, fitted.centers_), [0] * 4
    for i, part in enumerate(fitted.labels_):
        assert part == min((j for j in range(4) if sizes[j] < 10), key=lambda j: distances[i, j])
        sizes[part] += 1
    assert (fitted.centers_ == fitted.initial_centers_).all()


def test_fcfs_begins_with_samples():
    X, _ = blobs(m=40)
    begun = FCFSPartition(4, random_state=2).fit(X).initial_centers_
    assert (squares(begun, X).min(axis=1) == 0).all()
    assert len(np.unique(begun, axis=0)) == 4


def test_the_k_means_family_begins_with_the_same_centers():
    X, _ = blobs()
    methods = KMeansPartition, KBalancePartition, BalancedKMeansPartition
    centers = [method(5, random_state=4).fit(X).initial_centers_ for method in methods]
    assert (centers[0] == centers[1]).all() and (centers[0] == centers[2]).all()


def test_balanced_k_means_moves_no_more_than_the_surplus():
    X, _ = blobs()
    before = KMeansPartition(5, random_state=4).fit(X)
    after = BalancedKMeansPartition(5, random_state=4).fit(X)
    quotas = np.sort([41, 41, 41, 40, 40])
    surplus = np.maximum(np.sort(before.sizes_) - quotas, 0).sum()
    assert surplus > 0 and (before.labels_ != after.labels_).sum() == surplus


def inertia(X, labels):
    means = np.array([X[labels == part].mean(axis=0) for part in np.unique(labels)])
    return ((X - means[labels]) ** 2).sum()


def test_nearness_is_worth_something():
    """What each promises: closer parts than at random, K-means' the closest."""
    X, _ = make_blobs([20, 180, 60, 40, 30, 70], 4, random_state=0)
    found = {
        name: np.mean([inertia(X, method(6, random_state=s).fit(X).labels_) for s in range(5)])
        for name, method in PARTITIONS.items()
    }
    assert found["kmeans"] < found["balanced_kmeans"] < found["random"] / 2
    assert found["kmeans"] < found["kbalance"] < found["random"] / 2
    assert found["fcfs"] < found["random"] * 0.6


@pytest.mark.parametrize("method", EVEN)
@pytest.mark.parametrize("names", [False, True], ids=["numbers", "names"])
def test_stratified_parts_are_even_in_every_class(method, names):
    X, y = blobs()
    labels = np.array(["one", "two", "three"])[y] if names else y
    fitted = method(8, stratify=True, random_state=1).fit(X, labels)
    assert set(fitted.sizes_) <= {25, 26}
    for label in range(3):
        counts = np.bincount(fitted.labels_[y == label], minlength=8)
        assert counts.max() - counts.min() <= 1


def test_stratified_k_means_keeps_its_sizes():
    X, y = blobs(m=400)
    plain = KMeansPartition(6, random_state=1).fit(X)
    fitted = KMeansPartition(6, stratify=True, random_state=1).fit(X, y)
    assert np.abs(fitted.sizes_ - plain.sizes_).max() <= 2
    expected = np.bincount(y)[:, None] * plain.sizes_ / len(y)
    counts = [np.bincount(fitted.labels_[y == label], minlength=6) for label in range(3)]
    assert np.abs(counts - expected).max() <= 1


def test_a_class_smaller_than_the_number_of_parts():
    X, y = blobs(m=60)
    y = np.where(np.arange(60) < 3, 9, y)
    for method in EVEN:
        fitted = method(8, stratify=True, random_state=0).fit(X, y)
        assert np.bincount(fitted.labels_[y == 9], minlength=8).max() == 1
        assert set(fitted.sizes_) <= {7, 8}


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("sparse_type", [csr_array, csr_matrix])
def test_csr_gives_the_parts_of_dense(method, sparse_type):
    X, y = blobs()
    X = np.where(np.abs(X) < 3, 0.0, X)
    dense = method(5, stratify=True, random_state=3).fit(X, y)
    sparse = method(5, stratify=True, random_state=3).fit(sparse_type(X), y)
    assert (dense.labels_ == sparse.labels_).all()
    assert isinstance(sparse.centers_, np.ndarray)
    np.testing.assert_allclose(dense.centers_, sparse.centers_, atol=1e-12)
    assert (sparse.predict(sparse_type(X)) == dense.predict(X)).all()


@pytest.mark.parametrize("method", AROUND_CENTERS)
def test_csr_is_never_made_dense(method, monkeypatch):
    X = csr_matrix((np.ones(300), (np.arange(300), np.arange(300) * 1000)), shape=(300, 300_000))

    def refuse(*_, **__):
        raise AssertionError("made dense")

    made_dense = csr_matrix.toarray
    monkeypatch.setattr(csr_matrix, "todense", refuse)
    monkeypatch.setattr(
        csr_matrix,
        "toarray",
        lambda self, *a, **k: refuse() if self.shape[0] > 4 else made_dense(self, *a, **k),
    )
    assert method(4, random_state=0).fit(X).centers_.shape == (4, 300_000)


@pytest.mark.parametrize("method", ALL)
def test_a_state_repeats_and_another_one_differs(method):
    X, _ = blobs()
    first = method(5, random_state=0).fit(X).labels_
    assert (first == method(5, random_state=0).fit(X).labels_).all()
    assert any((first != method(5, random_state=s).fit(X).labels_).any() for s in range(1, 6))


@pytest.mark.parametrize("method", ALL)
def test_pickled(method):
    X, _ = blobs()
    fitted = method(5, random_state=0).fit(X)
    assert (pickle.loads(pickle.dumps(fitted)).predict(X) == fitted.predict(X)).all()


@pytest.mark.parametrize("method", ALL)
def test_one_part(method):
    X, _ = blobs()
    fitted = method(1).fit(X)
    assert not fitted.labels_.any() and not fitted.predict(X).any()
    np.testing.assert_allclose(fitted.centers_, X.mean(axis=0, keepdims=True))


@pytest.mark.parametrize("method", ALL)
def test_duplicates_leave_no_part_empty(method):
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    fitted = method(5, random_state=0)
    if "KMeans" in method.__name__ or "KBalance" in method.__name__:
        with pytest.warns(ConvergenceWarning, match="Number of distinct clusters"):
            fitted.fit(X)
    else:
        fitted.fit(X)
    assert fitted.sizes_.min() >= 1 and np.isfinite(fitted.centers_).all()


def test_no_stratified_k_means_part_is_empty():
    X = np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [90.0]])
    fitted = KMeansPartition(2, stratify=True, random_state=0).fit(X, [0, 1, 2, 3, 4, 5])
    assert sorted(fitted.sizes_) == [1, 5]


def test_parallel_k_balance_deals_each_block_evenly():
    X, y = blobs(m=400)
    fitted = KBalancePartition(4, n_workers=5, random_state=0).fit(X)
    assert set(fitted.sizes_) == {100}
    assert (np.array([np.bincount(b) for b in fitted.labels_.reshape(5, 80)]) == 20).all()
    # One block by itself, with the same centres.
    distances, sizes = squares(X[80:160], fitted.initial_centers_), [0] * 4
    for row, part in zip(distances, fitted.labels_[80:160], strict=True):
        assert part == min((j for j in range(4) if sizes[j] < 20), key=lambda j: row[j])
        sizes[part] += 1
    both = KBalancePartition(4, n_workers=5, stratify=True, random_state=0).fit(X, y)
    for label in range(3):
        assert np.abs(np.bincount(both.labels_[y == label]) - (y == label).sum() / 4).max() <= 5
    assert set(both.sizes_) == {100}


def test_parallel_k_balance_is_close_to_the_serial_one():
    X, _ = blobs(m=4000)
    serial = KBalancePartition(4, random_state=0).fit(X)
    parallel = KBalancePartition(4, n_workers=4, random_state=0).fit(X)
    assert inertia(X, parallel.labels_) < 1.05 * inertia(X, serial.labels_)


@pytest.mark.parametrize("method", ALL)
def test_more_parts_than_samples_are_refused(method):
    with pytest.raises(ValueError, match="n_samples=3 and n_parts=4. Lower n_parts to 3"):
        method(4).fit(np.eye(3))


@pytest.mark.parametrize("n_parts", [0, -1, 2.0, True, "8", None])
def test_parts_are_a_count(n_parts):
    with pytest.raises(ValueError, match="n_parts must be an integer of at least 1. Received"):
        RandomPartition(n_parts).fit(np.eye(3))


def test_workers_are_a_count():
    with pytest.raises(ValueError, match="n_workers must be an integer of at least 1"):
        KBalancePartition(2, n_workers=0).fit(np.eye(3))


def test_stratify_wants_class_labels():
    X, y = blobs(m=20)
    with pytest.raises(ValueError, match="stratify=True needs class labels, but y is None"):
        FCFSPartition(2, stratify=True).fit(X)
    with pytest.raises(ValueError, match="Unknown label type"):
        FCFSPartition(2, stratify=True).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FCFSPartition(2, stratify=True).fit(X, y[:-1])


def test_predict_wants_a_fit():
    with pytest.raises(NotFittedError):
        FCFSPartition(2).predict(np.eye(3))


def test_centers_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(_partition, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="2 of 1000 features need 16,000 bytes, and 1,000"):
        RandomPartition(2).fit(np.ones((3, 1000)))


def test_partitions_by_name():
    for name, method in PARTITIONS.items():
        made = make_partition(name, n_parts=3, random_state=5)
        assert type(made) is method and (made.n_parts, made.random_state) == (3, 5)
    given = KBalancePartition(4, n_workers=2).fit(np.eye(4))
    cloned = make_partition(given, n_parts=3)
    assert cloned is not given and cloned.get_params() == given.get_params()
    assert not hasattr(cloned, "labels_")
    with pytest.raises(ValueError, match=r"partition must be one of .*'random'.*\. Received: part"):
        make_partition("k-means")
    assert partition.__doc__
