"""DKRR: SciPy's solution from blocks on replicas, none of which holds the matrix."""

import functools
import pathlib
import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.kernel_ridge import KernelRidge
from sklearn.utils.estimator_checks import parametrize_with_checks

import replicas as devices
import two_workers
from kernels import ridge_worker_job
from tf_largebatch.kernels._ridge import solve_in_place
from tf_largebatch.kernels.distributed_ridge import DistributedKernelRidge

pytestmark = pytest.mark.tensorflow
JOB = pathlib.Path(__file__).with_name("ridge_worker_job.py")
KERNELS = {
    "rbf": {"gamma": 0.5},
    "linear": {},
    "poly": {"degree": 2},
    "sigmoid": {"gamma": 0.01, "coef0": 0},
}

# One object a number of replicas: what is traced for it serves all systems of the same sizes.
strategy_of = functools.cache(devices.strategy_of)


def samples(n=130, n_targets=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, size=(n, 4))
    Y = np.stack([np.sin(3 * X[:, 0]) + X[:, 1], X[:, 1] * X[:, 2]], axis=1)
    return X, Y[:, 0] if n_targets == 1 else Y


def assert_same(ours, theirs, X):
    scale = np.abs(theirs.dual_coef_).max()
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=1e-8, atol=1e-8 * scale)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("replicas", [0, 2])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("kernel", KERNELS)
def test_is_sklearns_kernel_ridge(kernel, container, replicas):
    X, Y = samples(n_targets=2)
    X[np.abs(X) < 0.2] = 0.0
    weights = np.random.default_rng(1).integers(0, 3, size=len(X)).astype(float)
    theirs = KernelRidge(alpha=0.2, kernel=kernel, **KERNELS[kernel]).fit(X, Y, weights)
    ours = DistributedKernelRidge(
        0.2, kernel=kernel, strategy=strategy_of(replicas) if replicas else None, block_size=33,
        **KERNELS[kernel],
    )  # fmt: skip
    assert_same(ours.fit(container(X), Y, weights), theirs, X)


@pytest.mark.parametrize(
    "replicas, block_size, n",
    [(1, 20, 97), (2, 1000, 3), (2, 12, 97), (4, 1000, 1), (4, 20, 130)],
)
def test_whatever_the_blocks(replicas, block_size, n):
    """Fewer samples than blocks, one block a turn, many turns, padding or none; one target."""
    X, y = samples(n)
    ours = DistributedKernelRidge(
        1e-3, gamma=0.5, strategy=strategy_of(replicas), block_size=block_size
    ).fit(X, y)
    assert_same(ours, KernelRidge(alpha=1e-3, kernel="rbf", gamma=0.5).fit(X, y), X)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_no_replica_holds_the_matrix(replicas):
    """Each makes its own blocks on its own device, and the factor is no larger."""
    from tf_largebatch.kernels._cholesky_replicas import BlockRows

    n, block = 192, 24
    strategy = strategy_of(replicas)
    rng = np.random.default_rng(0)
    A = rng.normal(size=(n, n))
    A, y = A @ A.T + n * np.eye(n), rng.normal(size=(n, 1))
    asked = []

    def upper(rows, columns):
        asked.append((rows, columns))
        return A[rows, columns]

    system = BlockRows(n, 1, strategy, block_size=block)
    system.fill(upper, y)
    for value in system._blocks:
        devices = {tensor.device for tensor in strategy.experimental_local_results(value)}
        assert len(devices) == replicas
    x = system.solve()
    np.testing.assert_allclose(x, np.linalg.solve(A, y), rtol=1e-8, atol=1e-12)
    held = np.zeros(replicas, int)
    for value in system._blocks:
        for replica, tensor in enumerate(strategy.experimental_local_results(value)):
            held[replica] += tensor.shape.num_elements() * tensor.dtype.size
    np.testing.assert_array_equal(held, system.replica_bytes)
    # Half of the matrix and its diagonal blocks' lower halves, and y: no more, and evenly.
    assert held.sum() == 8 * (n * n / 2 + n * block / 2 + n)
    assert held[0] < 1.2 * 8 * n * n / (2 * replicas)
    # Each number above the diagonal is made once.
    made = sum((r.stop - r.start) * (c.stop - c.start) for r, c in asked)
    assert made == n * n / 2 + n * block / 2


def test_ledger_counts_panels_and_blocks_of_the_solution():
    n, P, b = 128, 2, 32
    X, y = samples(n)
    model = DistributedKernelRidge(0.1, strategy=strategy_of(P), block_size=b).fit(X, y)
    panels = sum(b * (n - k * b + 1) for k in range(n // b))
    assert model.ledger_.bytes("train", "panel") == 8 * (P - 1) * panels
    assert model.ledger_.bytes("train", "block of the solution") == 8 * (P - 1) * n
    assert model.ledger_.bytes("distribute") == (P - 1) * (X.nbytes + y.nbytes)
    assert {entry.source for entry in model.ledger_.select("train")} == {0, 1}
    assert DistributedKernelRidge(0.1).fit(X, y).ledger_.total_bytes == 0


def test_refuses_what_does_not_fit_and_says_the_bytes():
    X, y = samples(128)
    with pytest.raises(MemoryError, match=r"Gram matrix of 128 samples needs 131,072 bytes; .* 9"):
        DistributedKernelRidge(memory_limit_bytes=9).fit(X, y)
    DistributedKernelRidge(memory_limit_bytes=131_072).fit(X, y)
    with pytest.raises(MemoryError, match="This worker's share .* on 2 replicas"):
        DistributedKernelRidge(memory_limit_bytes=9, strategy=strategy_of(2)).fit(X, y)


@pytest.mark.parametrize("kernel", ["linear", "sigmoid"])
def test_without_a_factor(kernel):
    """Here as `KernelRidge`; on replicas an error on all, not a wait."""
    X, y = samples()
    arguments = {"kernel": kernel, "gamma": 0.5, "coef0": -1}
    model = DistributedKernelRidge(0.0, **arguments)
    with pytest.warns(UserWarning, match="Singular matrix in solving dual problem"):
        model.fit(X, y)
    with pytest.warns(UserWarning, match="Singular matrix in solving dual problem"):
        theirs = KernelRidge(alpha=0.0, **arguments).fit(X, y)
    np.testing.assert_allclose(model.predict(X), theirs.predict(X), atol=1e-6)
    model.set_params(block_size=33).strategy = strategy_of(2)
    with pytest.raises(np.linalg.LinAlgError, match=rf"alpha=0.0, kernel='{kernel}'. Raise alpha"):
        model.fit(X, y)


def test_solve_in_place_copies_nothing_and_restores_for_least_squares():
    rng = np.random.default_rng(0)
    B = rng.normal(size=(30, 10))
    good, y = B @ B.T + np.eye(30), rng.normal(size=(30, 2))
    A = good.copy()
    np.testing.assert_allclose(solve_in_place(A, y), np.linalg.solve(good, y), atol=1e-10)
    factor = np.linalg.cholesky(good)
    np.testing.assert_allclose(np.triu(A), factor.T, atol=1e-10)  # written over it
    bad = B @ B.T
    with pytest.warns(UserWarning, match="Singular"):
        found = solve_in_place(bad.copy(), y)
    np.testing.assert_allclose(found, np.linalg.pinv(bad, rcond=1e-10) @ y, atol=1e-8)


@pytest.mark.parametrize("replicas", [0, 2])
def test_overflowing_kernel(replicas):
    X, y = samples()
    model = DistributedKernelRidge(kernel="poly", gamma=1e200, degree=9)
    model.strategy = strategy_of(2) if replicas else None
    with (
        np.errstate(all="ignore"),
        pytest.raises((ValueError, np.linalg.LinAlgError), match="must be finite"),
    ):
        model.fit(X, y)


def test_precomputed_kernel():
    X, y = samples()
    new, _ = samples(30, seed=1)
    theirs = KernelRidge(alpha=0.1, kernel="linear").fit(X, y)
    K = X @ X.T
    before = K.copy()
    for strategy in (None, strategy_of(2)):
        model = DistributedKernelRidge(0.1, kernel="precomputed", block_size=33)
        model.strategy = strategy
        np.testing.assert_allclose(
            model.fit(K, y).predict(new @ X.T), theirs.predict(new), atol=1e-9
        )
        np.testing.assert_array_equal(K, before)


def test_float32_progress_and_pickle(capsys):
    X, y = samples()
    model = DistributedKernelRidge(0.1, strategy=strategy_of(2), block_size=33, verbose=1)
    single = model.fit(X.astype("float32"), y)
    assert single.dual_coef_.dtype == np.float32
    assert "[kernels] 8/8 steps of the solve done" in capsys.readouterr().out
    theirs = KernelRidge(alpha=0.1, kernel="rbf").fit(X, y)
    np.testing.assert_allclose(single.predict(X.astype("float32")), theirs.predict(X), atol=1e-3)
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.strategy is None
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.slow
@pytest.mark.multi_worker
def test_two_workers_give_the_same(tmp_path):
    """Parts and the whole; each worker keeps half; neither waits where there is no factor."""
    two_workers.run(JOB, tmp_path)
    chief, other = (dict(np.load(tmp_path / f"worker-{i}.npz")) for i in (0, 1))
    X, Y = ridge_worker_job.data()
    for name, model in ridge_worker_job.models(None):
        model.fit(X, Y)
        for key, expected in (("dual_coef", model.dual_coef_), ("prediction", model.predict(X))):
            np.testing.assert_array_equal(chief[f"{name}, {key}"], other[f"{name}, {key}"])
            found = chief[f"{name}, {key}"]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8, err_msg=name)
    assert chief["parts, bytes"] == 0 < chief["whole, bytes"]
    assert chief["held"] == other["held"] < 0.6 * 150 * 150 * 8
    assert "alpha=0.0, kernel='linear'" in str(chief["refused"]) == str(other["refused"])


@pytest.mark.filterwarnings("ignore:Singular matrix")
@parametrize_with_checks([DistributedKernelRidge()])
def test_sklearns_checks(estimator, check):
    check(estimator)
