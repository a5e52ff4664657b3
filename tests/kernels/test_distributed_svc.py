"""Dis-SMO takes serial SMO's steps, however its rows are dealt."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from kernels.oracles_smo import rbf
from kernels.oracles_smo import smo as oracle
from replicas import strategy_of
from tf_largebatch.kernels import DistributedSVC, PartitionedSVC
from tf_largebatch.kernels._dis_smo import solve

pytestmark = pytest.mark.tensorflow
RBF = {"kernel": "rbf", "gamma": 0.5, "degree": 3, "coef0": 0.0}


@parametrize_with_checks([DistributedSVC(2)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    X = random.normal(size=(90, 3))
    y = np.where(X[:, 0] * X[:, 1] + 0.6 * random.normal(size=90) > 0, 1.0, -1.0)
    return X, y


@pytest.mark.parametrize("n_parts, replicas", [(1, 0), (2, 0), (4, 0), (7, 0), (2, 2), (5, 2)])
def test_steps_are_the_serial_ones(samples, n_parts, replicas):
    """After each number of steps the oracle's multipliers, so the same pairs."""
    X, y = samples
    K = rbf(X, X, 0.5)
    *_, pairs = oracle(K, y, 1.0)
    assert len(pairs) > 50
    strategy = strategy_of(replicas) if replicas else None
    few = [20] if replicas else range(40)
    for steps in [*few, 10**6]:
        alpha, b, _, chosen = oracle(K, y, 1.0, max_iter=steps)
        found, found_b, n_iter, gap, turns, renewals = solve(
            X, y[:, None], np.ones((90, 1)), n_parts=n_parts, kernel=RBF, tol=1e-3, max_iter=steps,
            strategy=strategy,
        )  # fmt: skip
        assert n_iter == len(chosen) and turns == len(chosen) + 1
        assert renewals == [np.count_nonzero(alpha)]
        np.testing.assert_allclose(found[:, 0], alpha, atol=1e-11, err_msg=f"step {steps}")
        assert found_b == pytest.approx(b, abs=1e-10)
    assert gap <= 2e-3


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
def test_it_is_svc(samples, kernel):
    X, y = samples
    options = {"kernel": kernel, "gamma": 0.3, "coef0": 0.4, "degree": 2, "tol": 1e-6, "C": 0.5}
    svc = SVC(**options).fit(X, y)
    for data in (X, sparse.csr_array(X)):
        found = DistributedSVC(4, **options).fit(data, y)
        np.testing.assert_allclose(
            found.decision_function(data), svc.decision_function(X), atol=1e-3
        )
        assert found.support_vectors_.shape == svc.support_vectors_.shape


@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
@pytest.mark.parametrize("replicas", [0, 2])
def test_all_classes_step_together(multi_class, replicas):
    X, y = load_iris(return_X_y=True)
    serial = PartitionedSVC(1, multi_class=multi_class, gamma=0.5).fit(X, y)
    found = DistributedSVC(
        4, multi_class=multi_class, gamma=0.5, strategy=strategy_of(2) if replicas else None
    ).fit(X, y)
    np.testing.assert_array_equal(found.n_iter_, serial.part_n_iter_[0])
    np.testing.assert_allclose(found.decision_function(X), serial.decision_function(X), atol=1e-8)
    assert found.dual_coef_.shape == (3, len(found.support_))


def test_calls_of_a_few_iterations_go_on(samples, monkeypatch, capsys):
    from tf_largebatch.kernels import _dis_smo_loop

    X, y = samples
    for strategy in (None, strategy_of(2)):
        whole = DistributedSVC(2, strategy=strategy).fit(X, y)
        with monkeypatch.context() as patch:
            patch.setattr(_dis_smo_loop, "ITERATIONS_PER_CALL", 7)
            _dis_smo_loop.one_device.cache_clear()
            cut = DistributedSVC(2, strategy=strategy, verbose=1).fit(X, y)
        _dis_smo_loop.one_device.cache_clear()
        np.testing.assert_allclose(cut.dual_coef_, whole.dual_coef_, atol=1e-11)
        assert capsys.readouterr().out.count("Dis-SMO: ") == int(whole.n_iter_[0] + 1 + 6) // 7


def test_bytes_are_counted_by_hand(samples):
    X, y = samples
    found = DistributedSVC(3).fit(X, y)
    ledger, turns = found.ledger_, int(found.n_iter_[0]) + 1
    assert ledger.bytes("distribute") == 60 * 4 * 8  # two parts' rows and labels
    assert ledger.bytes("train", "extremes") == turns * 3 * 2 * (2 * 8)
    assert ledger.bytes("train", "rows of the pair") == turns * 2 * 2 * (3 + 3) * 8
    # At the end each support vector, a row and a multiplier, to two others; and the extremes.
    vectors = 2 * len(found.support_) * (3 + 1) * 8
    assert ledger.bytes("train", "f anew") == vectors + 3 * 2 * (2 * 8)
    assert DistributedSVC(1).fit(X, y).ledger_.total_bytes == 0


def test_larger_than_its_gram_matrix(samples):
    """The limit is a fifth of the Gram matrix; beyond it, the bytes of the rows are named."""
    X, y = make_moons(1000, noise=0.2, random_state=0)
    found = DistributedSVC(4, memory_limit_bytes=1_600_000).fit(X, y)
    assert found.score(X, y) > 0.95
    wide = sparse.csr_array((1000, 10**6))
    with pytest.raises(MemoryError, match=r"sparse rows, made dense.* needs 16,000,096,000 bytes"):
        DistributedSVC(4, gamma=1.0, memory_limit_bytes=10**9).fit(wide, y)


@pytest.mark.parametrize("replicas", [0, 2])
def test_float32s_gap_is_the_true_one(samples, replicas):
    """Values of the kernel of 3e4; the warning goes by the gap of all digits."""
    X, y = samples
    X = (X + 100).astype(np.float32)
    alpha, _, n_iter, gap, _, renewals = solve(
        X, y[:, None], np.ones((90, 1)), n_parts=3, tol=1e-3, max_iter=3000,
        kernel=RBF | {"kernel": "linear"}, strategy=strategy_of(2) if replicas else None,
    )  # fmt: skip
    alpha, wide = alpha[:, 0].astype(float), X.astype(float)
    f = wide @ (wide.T @ (alpha * y)) - y
    up = np.where(y > 0, alpha < 1, alpha > 0)
    down = np.where(y > 0, alpha > 0, alpha < 1)
    assert gap[0] == pytest.approx(f[down].max() - f[up].min(), rel=0.01, abs=2e-4)
    assert n_iter[0] > 100 and 1 <= len(renewals) <= 12


def test_an_f_that_drifted_goes_on(samples, monkeypatch):
    """Increments of which each loses a little: without the fresh f it would end elsewhere."""
    from tf_largebatch.kernels import _dis_smo_loop

    X, y = samples
    exact = DistributedSVC(2).fit(X, y)
    right = _dis_smo_loop.kernel_rows

    def wrong(*arguments, **kernel):
        return right(*arguments, **kernel) * 0.999

    monkeypatch.setattr(_dis_smo_loop, "kernel_rows", wrong)
    _dis_smo_loop.one_device.cache_clear()
    found = DistributedSVC(2).fit(X, y)
    _dis_smo_loop.one_device.cache_clear()
    assert found.ledger_.bytes("train", "f anew") > 1.5 * exact.ledger_.bytes("train", "f anew")
    np.testing.assert_allclose(found.decision_function(X), exact.decision_function(X), atol=1e-2)


def test_refusals(samples):
    X, y = samples
    for kernel in ("linear", "poly", "sigmoid", "rbf"):
        with pytest.raises(ValueError, match="The kernel's values must be finite"):
            DistributedSVC(2, kernel=kernel, gamma=1.0).fit(X * 1e200, y)
    assert DistributedSVC(2, max_iter=2**31).fit(X, y).n_iter_ > 0
    for kernel in ("precomputed", "cosine", lambda a, b: a @ b.T):
        with pytest.raises(ValueError, match="computes kernel values from rows"):
            DistributedSVC(2, kernel=kernel).fit(X, y)
    with pytest.raises(ValueError, match="n_parts must be at most n_samples"):
        DistributedSVC(91).fit(X, y)
    with pytest.raises(ValueError, match="'n_parts' parameter"):
        DistributedSVC(0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="SMO ended after 5 iterations"):
        DistributedSVC(2, max_iter=5).fit(X, y)
