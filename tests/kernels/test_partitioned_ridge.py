"""Kernel ridge regression in parts, against NumPy's solve and scikit-learn's KernelRidge."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from replicas import strategy_of
from tf_largebatch.kernels.partition import PARTITIONS, KBalancePartition, RandomPartition
from tf_largebatch.kernels.partitioned_ridge import PartitionedKernelRidge

pytestmark = pytest.mark.tensorflow
KERNELS = {"rbf": {"gamma": 0.5}, "linear": {}, "poly": {"degree": 2}, "sigmoid": {"gamma": 0.01}}
SINGULAR = "ignore:Singular matrix"


def samples(n=160, n_targets=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n, 3))
    Y = np.stack([np.sin(3 * X[:, 0]) + X[:, 1], X[:, 1] * X[:, 2], X[:, 0] ** 2], axis=1)
    return X, Y[:, 0] if n_targets == 1 else Y[:, :n_targets]


def rbf(X, Z, gamma):
    return np.exp(-gamma * ((X[:, np.newaxis] - Z) ** 2).sum(axis=2))


def oracle(X, y, labels, new, *, alpha, gamma, weights=None):
    """Each part's predictions: (K_t + lambda m_t I) a = y_t with lambda = alpha / m."""
    weights = np.ones(len(X)) if weights is None else weights
    predictions = []
    for part in range(labels.max() + 1):
        i = labels == part
        # Weighted least squares: K + lambda m_t W^-1 on the diagonal.
        penalty = alpha * weights[i].sum() / weights.sum() / weights[i]
        a = np.linalg.solve(rbf(X[i], X[i], gamma) + np.diag(penalty), y[i])
        predictions.append(rbf(new, X[i], gamma) @ a)
    return np.array(predictions)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_every_part_solves_its_system(partition, n_targets, weighted):
    X, y = samples(n_targets=n_targets)
    new, _ = samples(40, seed=1)
    weights = np.random.default_rng(2).uniform(0.5, 2, size=len(X)) if weighted else None
    model = PartitionedKernelRidge(0.3, n_parts=5, partition=partition, gamma=0.7, random_state=0)
    model.fit(X, y, weights)
    labels, centers = model.partition_.labels_, model.partition_.centers_
    each = oracle(X, y, labels, new, alpha=0.3, gamma=0.7, weights=weights)
    nearest = ((new[:, np.newaxis] - centers) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(model.predict(new), each[nearest, np.arange(40)], atol=1e-9)
    model.set_params(combine="average")
    np.testing.assert_allclose(model.predict(new), each.mean(axis=0), atol=1e-9)


@pytest.mark.filterwarnings(SINGULAR)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("kernel", KERNELS)
def test_one_part_is_sklearns_kernel_ridge(kernel, container):
    X, Y = samples(n_targets=2)
    X[np.abs(X) < 0.2] = 0.0
    weights = np.random.default_rng(1).integers(0, 3, size=len(X)).astype(float)
    theirs = KernelRidge(alpha=0.2, kernel=kernel, **KERNELS[kernel]).fit(X, Y, weights)
    ours = PartitionedKernelRidge(0.2, n_parts=1, kernel=kernel, **KERNELS[kernel])
    ours.fit(container(X), Y, weights)
    np.testing.assert_allclose(ours.predict(container(X)), theirs.predict(X), atol=1e-8)


def test_linear_kernel_is_ridge_without_intercept():
    X, y = samples()
    ours = PartitionedKernelRidge(0.7, n_parts=1, kernel="linear").fit(X, y)
    ridge = Ridge(0.7, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), ridge.predict(X), atol=1e-10)
    np.testing.assert_allclose(ours.dual_coef_ @ X, ridge.coef_, atol=1e-10)


def test_weights_are_repetitions_in_one_part():
    X, y = samples(60)
    times = np.random.default_rng(0).integers(0, 4, size=60)
    weighted = PartitionedKernelRidge(0.1, n_parts=1).fit(X, y, times.astype(float))
    repeated = PartitionedKernelRidge(0.1, n_parts=1).fit(X.repeat(times, 0), y.repeat(times))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-9)
    assert (weighted.dual_coef_[times == 0] == 0).all()


def test_samples_of_weight_zero_are_not_partitioned():
    X, y = samples(60)
    far = np.vstack([X, np.full((20, 3), 100.0)])
    weights = np.r_[np.ones(60), np.zeros(20)]
    model = PartitionedKernelRidge(0.1, n_parts=3, random_state=0)
    with_them = clone(model).fit(far, np.r_[y, np.ones(20)], weights).predict(X)
    np.testing.assert_allclose(with_them, model.fit(X, y).predict(X), atol=1e-12)


def test_oracle_score_is_the_best_models_error_and_a_bound():
    X, Y = samples(n_targets=2)
    new, truth = samples(50, n_targets=2, seed=1)
    model = PartitionedKernelRidge(0.3, n_parts=4, gamma=0.7, random_state=0).fit(X, Y)
    each = oracle(X, Y, model.partition_.labels_, new, alpha=0.3, gamma=0.7)
    errors = ((each - truth) ** 2).mean(axis=2)
    score = model.oracle_score(new, truth)
    np.testing.assert_allclose(score, errors.min(axis=0).mean(), rtol=1e-8)
    for combine in ("nearest", "average"):
        prediction = model.set_params(combine=combine).predict(new)
        assert score < ((prediction - truth) ** 2).mean()
    weights = np.r_[np.ones(25), np.zeros(25)]
    weighted = model.oracle_score(new, truth, sample_weight=weights)
    np.testing.assert_allclose(weighted, model.oracle_score(new[:25], truth[:25]))


@pytest.mark.parametrize("kernel, alpha", [("linear", 0.0), ("sigmoid", 0.01)])
def test_without_a_factor_the_least_squares_solution_with_a_warning(kernel, alpha):
    """Linear: rank 3 and alpha 0. Sigmoid: indefinite. One part of two is as `KernelRidge`."""
    X, y = samples(80)
    X = np.vstack([X, X + 10])
    model = PartitionedKernelRidge(
        alpha, n_parts=2, kernel=kernel, gamma=0.5, coef0=-1, random_state=0
    )
    with pytest.warns(UserWarning, match="Singular matrix in solving dual problem"):
        model.fit(X, np.r_[y, y])
    assert not model.is_definite_.all()
    near = model.partition_.labels_ == model.partition_.labels_[0]
    theirs = KernelRidge(alpha=alpha / 2, kernel=kernel, gamma=0.5, coef0=-1)
    with pytest.warns(UserWarning, match="Singular matrix in solving dual problem"):
        theirs.fit(X[near], y)
    np.testing.assert_allclose(model.predict(X[near]), theirs.predict(X[near]), atol=1e-6)


def test_part_without_a_factor_leaves_the_others_alone():
    """Equal samples in one part of a batch, alpha 0: the other part is solved as if alone."""
    X, y = samples(40)
    far = np.vstack([X, np.repeat(X[:20], 2, axis=0) + 50])
    model = PartitionedKernelRidge(0.0, n_parts=2, gamma=5.0, random_state=0)
    with pytest.warns(UserWarning, match="Singular"):
        model.fit(far, np.r_[y, y])
    np.testing.assert_allclose(model.predict(X), y, atol=1e-6)
    assert sorted(model.is_definite_) == [False, True]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_replicas_and_one_device_give_the_same(replicas):
    X, Y = samples(200, n_targets=2)
    model = PartitionedKernelRidge(0.1, n_parts=5, partition="kmeans", random_state=0)
    here = clone(model).fit(X, Y)
    # Not clone: it copies its arguments, and a strategy is what it is where it was made.
    model.strategy = strategy_of(replicas)
    there = model.fit(X, Y)
    np.testing.assert_allclose(there.dual_coef_, here.dual_coef_, rtol=1e-8, atol=1e-9)
    one_by_one = clone(here).set_params(batch_bytes=0).fit(X, Y)
    np.testing.assert_allclose(one_by_one.dual_coef_, here.dual_coef_, rtol=1e-8, atol=1e-9)
    loaded = pickle.loads(pickle.dumps(there))
    assert loaded.strategy is None
    np.testing.assert_array_equal(loaded.predict(X), there.predict(X))


def test_precomputed_kernel_needs_random_parts_and_the_average():
    X, y = samples()
    new, _ = samples(30, seed=1)
    K, K_new = rbf(X, X, 0.5), rbf(new, X, 0.5)
    arguments = {"n_parts": 4, "partition": "random", "combine": "average", "random_state": 0}
    features = PartitionedKernelRidge(0.1, gamma=0.5, **arguments).fit(X, y)
    before = K.copy()
    values = PartitionedKernelRidge(0.1, kernel="precomputed", **arguments).fit(K, y)
    np.testing.assert_allclose(values.predict(K_new), features.predict(new), atol=1e-9)
    np.testing.assert_array_equal(K, before)
    parts = clone(values).set_params(partition=RandomPartition(4, random_state=0)).fit(K, y)
    np.testing.assert_array_equal(parts.predict(K_new), values.predict(K_new))
    for change in ({"partition": "kmeans"}, {"combine": "nearest"}):
        model = PartitionedKernelRidge(kernel="precomputed", **arguments | change)
        with pytest.raises(ValueError, match="need the samples' features"):
            model.fit(K, y)
    with pytest.raises(ValueError, match="square"):
        values.fit(K_new, y[:30])


def test_function_as_kernel_and_partitioner_as_object():
    X, y = samples()
    partitioner = KBalancePartition(3, random_state=0)
    by_function = PartitionedKernelRidge(
        0.1, kernel=lambda X, Z: rbf(X, Z, 0.5), partition=partitioner
    ).fit(X, y)
    by_name = PartitionedKernelRidge(
        0.1, n_parts=3, gamma=0.5, partition="kbalance", random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(by_function.predict(X), by_name.predict(X), atol=1e-10)
    assert not hasattr(partitioner, "labels_")


def test_lambda_and_sigma_by_validation():
    X, y = samples(240)
    search = GridSearchCV(
        PartitionedKernelRidge(n_parts=2, partition="kbalance", random_state=0),
        {"alpha": [1e-3, 100.0], "gamma": [1.0, 1000.0]},
        cv=3,
    ).fit(X, y)
    assert search.best_params_ == {"alpha": 1e-3, "gamma": 1.0}


def test_float32_stays_float32():
    X, y = samples()
    model = PartitionedKernelRidge(0.1, n_parts=3, random_state=0)
    double = clone(model).fit(X, y).predict(X)
    single = model.fit(X.astype("float32"), y).predict(X.astype("float32"))
    assert single.dtype == model.dual_coef_.dtype == np.float32
    np.testing.assert_allclose(single, double, atol=1e-3)


@pytest.mark.parametrize("combine", ["nearest", "average"])
def test_ledger_books_samples_models_and_centres(combine):
    X, Y = samples(n_targets=2)
    model = PartitionedKernelRidge(
        0.1, n_parts=4, partition="random", combine=combine, random_state=0
    ).fit(X, Y)
    moved = len(X) - model.partition_.sizes_[0]
    assert model.ledger_.bytes("distribute", "samples") == 8 * moved * (3 + 2)
    assert model.ledger_.bytes("collect", "models") == 8 * moved * 2
    routed = combine == "nearest"
    assert model.ledger_.bytes("collect", "centres") == 8 * 3 * (4 - 1) * routed
    assert model.ledger_.bytes("partition") == model.ledger_.bytes("train") == 0
    assert PartitionedKernelRidge(n_parts=1).fit(X, Y).ledger_.total_bytes == 0


def test_times_and_progress(capsys):
    X, y = samples()
    model = PartitionedKernelRidge(n_parts=4, random_state=0, verbose=1, batch_bytes=0).fit(X, y)
    assert set(model.fit_times_) == {"partition", "solve", "parts"}
    assert model.fit_times_["parts"].shape == (4,)
    assert 0 < model.fit_times_["parts"].sum() <= model.fit_times_["solve"]
    assert "[kernels] 4/4 problems solved" in capsys.readouterr().out


def test_diagonal_blocks_without_a_factor_are_told_and_not_raised():
    from tf_largebatch.kernels._cholesky import factor_diagonal

    good = np.array([[4.0, 2.0], [2.0, 5.0]])
    blocks = np.array([good, good * 1e-9, -good, [[1.0, 1.0], [1.0, 1.0]], good * np.nan])
    factors, found = factor_diagonal(blocks, np.full(5, 1e-6))
    np.testing.assert_array_equal(found, [True, False, False, False, False])
    np.testing.assert_allclose(factors[0], [[2, 0], [1, 2]])
    np.testing.assert_array_equal(factors[1:], np.broadcast_to(np.eye(2), (4, 2, 2)))


def test_memory_is_bounded_by_the_largest_part():
    """Four parts of 40 samples, padded to 64: one is 32 KiB, its factor as much; one at a time."""
    X, y = samples()
    one = 2 * 64 * 64 * 8
    model = PartitionedKernelRidge(
        n_parts=4, partition="random", random_state=0, batch_bytes=0, memory_limit_bytes=one
    ).fit(X, y)
    with pytest.raises(
        MemoryError, match=r"with its factor.* needs 65,536 bytes; the limit is 65,535"
    ):
        model.set_params(memory_limit_bytes=one - 1).fit(X, y)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"alpha": -1.0}, "'alpha' parameter"),
        ({"kernel": "nonsense"}, "'kernel' parameter"),
        ({"gamma": -0.1}, "'gamma' parameter"),
        ({"combine": "median"}, "'combine' parameter"),
        ({"partition": "nonsense"}, "'partition' parameter"),
        ({"n_parts": 161}, "n_samples=160 and n_parts=161"),
        ({"kernel": "poly", "gamma": 1e200, "degree": 9}, "must be finite"),
    ],
)
@pytest.mark.filterwarnings(SINGULAR, "ignore:overflow", "ignore:invalid value")
def test_bad_arguments(change, words):
    X, y = samples()
    model = PartitionedKernelRidge(random_state=0).set_params(**change)
    with pytest.raises(ValueError, match=words):
        model.fit(X, y)


@pytest.mark.parametrize("y", [np.r_[np.nan, np.ones(159)], np.ones(3)])
def test_bad_targets(y):
    with pytest.raises(ValueError, match=r"NaN|inconsistent"):
        PartitionedKernelRidge().fit(samples()[0], y)


def not_equivalent(estimator):
    """Weights do not enter the partition, as they don't for scikit-learn's KMeans either."""
    if estimator.n_parts == 1:
        return {}
    reason = "the partition takes a sample of weight 2 for one and not for two"
    return {
        f"check_sample_weight_equivalence_on_{kind}_data": reason for kind in ("dense", "sparse")
    }


@pytest.mark.filterwarnings("ignore:Number of distinct clusters", SINGULAR)
@parametrize_with_checks(
    [PartitionedKernelRidge(), PartitionedKernelRidge(n_parts=1)],
    expected_failed_checks=not_equivalent,
)
def test_sklearns_checks(estimator, check):
    check(estimator)
