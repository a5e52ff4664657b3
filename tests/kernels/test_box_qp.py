"""solve_box_qp against NumPy and SciPy: the same iterates, the same optimum, nothing lost."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import lsq_linear
from sklearn.exceptions import ConvergenceWarning

from tf_largebatch.kernels.box_qp import BoxQP, KernelMatrix, solve_box_qp

pytest.importorskip("numba")

THREADS = [("log", 1), ("log", 2), ("log", 3), ("atomic", 2)]


def samples(n=150, d=4, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d))
    y = np.where(X[:, 0] * X[:, 1] + 0.3 * random.normal(size=n) > 0, 1.0, -1.0)
    return X, y


def rbf(X, gamma):
    return np.exp(-gamma * ((X[:, None] - X[None]) ** 2).sum(-1))


def svm_box(y, C):
    """p, lower, upper of the SVM's dual in x = y alpha."""
    return -y, np.where(y > 0, 0, -C), np.where(y > 0, C, 0)


def projected_gradient(Q, p, lower, upper, x):
    return np.abs(x - np.clip(x - (Q @ x + p), lower, upper)).max()


def greedy_descent(Q, p, lower, upper, updates):
    """The thesis's Algorithm 13."""
    x, g = np.clip(np.zeros(len(p)), lower, upper), None
    g = Q @ x + p
    for _ in range(updates):
        i = np.abs(x - np.clip(x - g, lower, upper)).argmax()
        d = np.clip(x[i] - g[i] / Q[i, i], lower[i], upper[i]) - x[i]
        x[i] += d
        g += d * Q[:, i]
    return x


@pytest.mark.parametrize("updates", [1, 2, 7, 60])
def test_one_thread_makes_the_iterates_of_algorithm_13(updates):
    X, y = samples()
    p, lower, upper = svm_box(y, 2.0)
    expected = greedy_descent(rbf(X, 0.5), p, lower, upper, updates)
    with pytest.warns(ConvergenceWarning, match=f"ended after {updates} updates"):
        result = solve_box_qp(
            KernelMatrix(X, gamma=0.5), p, lower, upper, tol=1e-9, max_updates=updates, n_threads=1
        )
    assert result.n_updates == updates
    np.testing.assert_allclose(result.x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("selection", ["greedy", "random"])
@pytest.mark.parametrize("max_staleness", [None, 0])
@pytest.mark.parametrize(("sync", "n_threads"), THREADS)
def test_every_way_ends_in_the_optimum_with_nothing_lost(sync, n_threads, max_staleness, selection):
    X, y = samples()
    Q, (p, lower, upper) = rbf(X, 0.5), svm_box(y, 2.0)
    result = solve_box_qp(
        KernelMatrix(X, gamma=0.5), p, lower, upper, tol=1e-6, n_threads=n_threads, sync=sync,
        selection=selection, max_staleness=max_staleness, random_state=0,
    )  # fmt: skip
    assert result.converged
    assert projected_gradient(Q, p, lower, upper, result.x) < 1.1e-6
    assert result.projected_gradient < 1e-6
    assert result.gradient_error < 1e-10
    np.testing.assert_allclose(result.gradient, Q @ result.x + p, rtol=0, atol=1e-10)
    assert result.objective == pytest.approx(result.x @ (Q @ result.x / 2 + p), rel=1e-12)
    assert result.updates_by_thread.sum() == result.n_updates
    assert result.rows_by_thread.sum() == len(y)
    if max_staleness == 0:
        assert result.max_staleness == 0


@pytest.mark.parametrize(("sync", "n_threads"), THREADS)
def test_bounded_least_squares_agree_with_scipy(sync, n_threads):
    random = np.random.default_rng(0)
    A, b = random.normal(size=(60, 25)), random.normal(size=60)
    lower, upper = random.uniform(-0.2, 0, 25), random.uniform(0, 0.1, 25)
    upper[:5], lower[5:9] = np.inf, -np.inf
    expected = lsq_linear(A, b, (lower, upper), tol=1e-14)
    result = solve_box_qp(A.T @ A, -A.T @ b, lower, upper, tol=1e-9, n_threads=n_threads, sync=sync)
    np.testing.assert_allclose(result.x, expected.x, atol=1e-7)
    assert result.objective == pytest.approx(expected.cost - b @ b / 2, rel=1e-9)


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
@pytest.mark.parametrize(("sync", "n_threads"), [("log", 1), ("log", 2), ("atomic", 2)])
def test_columns_of_every_kernel(kernel, store, sync, n_threads):
    X, y = samples(60)
    X[np.abs(X) < 0.4] = 0
    gamma, degree, coef0, constant = 0.3, 3, 0.5, 0.25
    Q = {
        "linear": X @ X.T,
        "poly": (gamma * X @ X.T + coef0) ** degree,
        "rbf": rbf(X, gamma),
        "sigmoid": np.tanh(gamma * X @ X.T + coef0),
    }[kernel] + constant
    p, lower, upper = svm_box(y, 0.5)
    result = solve_box_qp(
        KernelMatrix(store(X), kernel, gamma, degree, coef0, constant), p, lower, upper,
        tol=1e-5, n_threads=n_threads, sync=sync, random_state=0,
    )  # fmt: skip
    assert projected_gradient(Q, p, lower, upper, result.x) < 1.1e-5
    np.testing.assert_allclose(result.gradient, Q @ result.x + p, rtol=1e-11, atol=1e-11)


def test_a_fractional_degree():
    X, y = samples(40)
    X = np.abs(X)
    p, lower, upper = svm_box(y, 0.5)
    result = solve_box_qp(KernelMatrix(X, "poly", 1.0, 1.5, 1.0), p, lower, upper, n_threads=1)
    np.testing.assert_allclose(result.gradient, (X @ X.T + 1) ** 1.5 @ result.x + p, atol=1e-11)


@pytest.mark.parametrize("sync", ["log", "atomic"])
def test_blocks_in_any_order_give_the_rows_back_in_theirs(sync):
    X, y = samples()
    Q, (p, lower, upper) = rbf(X, 0.5), svm_box(y, 2.0)
    labels = np.random.default_rng(0).integers(0, 3, len(y))
    for matrix in (Q, KernelMatrix(X, gamma=0.5), KernelMatrix(sparse.csr_array(X), gamma=0.5)):
        result = solve_box_qp(
            matrix, p, lower, upper, tol=1e-5, n_threads=3, blocks=labels, sync=sync
        )
        assert projected_gradient(Q, p, lower, upper, result.x) < 1.1e-5
        assert result.rows_by_thread.tolist() == np.bincount(labels).tolist()


def test_blocks_by_a_partition_and_more_threads_than_rows():
    X, y = samples(31)
    p, lower, upper = svm_box(y, 2.0)
    matrix = KernelMatrix(X, gamma=0.5)
    even = solve_box_qp(matrix, p, lower, upper, n_threads=2, blocks="kbalance", random_state=0)
    assert sorted(even.rows_by_thread) == [15, 16]
    few = solve_box_qp(np.eye(2), [-1.0, -3.0], upper=2.0, n_threads=5)
    assert few.x.tolist() == [1, 2]


def test_random_selection_needs_more_updates_and_repeats_with_its_seed():
    X, y = samples(300)
    p, lower, upper = svm_box(y, 10.0)

    def solve(selection, seed):
        return solve_box_qp(
            KernelMatrix(X, gamma=0.5), p, lower, upper, tol=1e-4, n_threads=1,
            selection=selection, random_state=seed,
        )  # fmt: skip

    greedy, random = solve("greedy", 0), solve("random", 0)
    assert random.n_updates > 2 * greedy.n_updates
    assert random.n_looks > 4 * greedy.n_looks
    assert (solve("random", 0).x == random.x).all()
    assert (solve("random", 1).x != random.x).any()


@pytest.mark.parametrize(("sync", "n_threads"), THREADS)
def test_the_cache_keeps_to_its_bytes(sync, n_threads):
    X, y = samples(300)
    p, lower, upper = svm_box(y, 10.0)

    def solve(cache_bytes):
        return solve_box_qp(
            KernelMatrix(X, gamma=0.5), p, lower, upper, tol=1e-5, n_threads=n_threads, sync=sync,
            cache_bytes=cache_bytes, random_state=0,
        )  # fmt: skip

    small, large = solve(60_000), solve(10**7)
    assert 30_000 < small.cache_bytes <= 60_000
    assert small.cache_misses > 2 * large.cache_misses
    assert large.cache_misses <= 300 * n_threads
    assert small.objective == pytest.approx(large.objective, abs=1e-6)


def test_a_cache_without_room_for_a_column_is_refused():
    X, y = samples(300)
    with pytest.raises(ValueError, match="room for a column in each thread. Received: cache_bytes"):
        solve_box_qp(KernelMatrix(X), *svm_box(y, 1.0), cache_bytes=3000, n_threads=2)
    solve_box_qp(rbf(X, 0.5), *svm_box(y, 1.0), cache_bytes=1)  # an array needs none


def test_a_problem_keeps_its_columns_from_one_solve_to_the_next():
    X, y = samples()
    problem = BoxQP(KernelMatrix(X, gamma=0.5), n_threads=1)
    first = problem.solve(*svm_box(y, 2.0))
    second = problem.solve(*svm_box(y, 2.0))
    assert first.cache_misses > 50
    assert second.cache_misses == 0
    assert (first.x == second.x).all()


@pytest.mark.parametrize(("sync", "n_threads"), THREADS)
def test_from_the_solution_there_is_nothing_to_do(sync, n_threads):
    X, y = samples()
    Q, box = rbf(X, 0.5), svm_box(y, 2.0)
    x = solve_box_qp(Q, *box, tol=1e-8, n_threads=1).x
    again = solve_box_qp(Q, *box, tol=1e-6, x0=x, n_threads=n_threads, sync=sync, max_updates=0)
    assert again.converged and again.n_updates == 0
    np.testing.assert_array_equal(again.x, x)


def test_the_step_of_theorem_4_1_converges_too():
    X, y = samples(60)
    Q, box = rbf(X, 0.5), svm_box(y, 2.0)
    exact = solve_box_qp(Q, *box, tol=1e-7, n_threads=1)
    careful = solve_box_qp(Q, *box, tol=1e-7, step_size=1 / 3, n_threads=2)
    assert careful.objective == pytest.approx(exact.objective, abs=1e-9)
    assert careful.n_updates > exact.n_updates


@pytest.mark.parametrize("sync", ["log", "atomic"])
def test_columns_that_are_all_alike_cannot_make_threads_swing_forever(sync):
    """Each thread alone would go the whole way: two stale steps go twice as far, and back."""
    n = 40
    Q = np.ones((n, n)) + 1e-6 * np.eye(n)
    for _ in range(3):
        result = solve_box_qp(
            Q, -np.ones(n), -10.0, 10.0, n_threads=4, sync=sync, max_staleness=None, hold_back=0,
            updates_per_round=200,
        )  # fmt: skip
        assert result.converged
        assert result.x.sum() == pytest.approx(1, abs=2e-3)


def test_directions_without_curvature():
    # Linear along the first two, concave along the last.
    Q = np.diag([0.0, 0.0, 1.0, -1.0])
    result = solve_box_qp(Q, [1.0, -1.0, -1.0, 0.1], -2.0, 3.0, n_threads=1, x0=np.full(4, 0.5))
    assert result.x.tolist() == [-2, 3, 1, 3]
    one_sided = solve_box_qp(np.zeros((1, 1)), [1.0], 0.0, np.inf, x0=[5.0])
    assert one_sided.x.tolist() == [0]


@pytest.mark.parametrize("curvature", [0.0, -1.0])
def test_what_has_no_minimum_is_refused(curvature):
    with pytest.raises(ValueError, match="unbounded below"):
        solve_box_qp(np.diag([1.0, curvature]), [-1.0, -1.0])


def test_progress_falls_and_is_reported(capsys):
    X, y = samples()
    seen = []
    result = solve_box_qp(
        rbf(X, 0.5), *svm_box(y, 2.0), n_threads=1, updates_per_round=20, callback=seen.append,
        verbose=1,
    )  # fmt: skip
    assert seen == result.history and len(seen) > 5
    objectives = [progress.objective for progress in seen]
    assert objectives == sorted(objectives, reverse=True)
    assert [progress.n_updates for progress in seen[:4]] == [0, 20, 40, 60]
    assert seen[-1].projected_gradient == result.projected_gradient < 1e-3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(seen) and "20 updates, objective" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"Q": np.ones((2, 3))}, "Q must be square"),
        ({"Q": np.array([[1.0, 2.0], [0.0, 1.0]])}, "Q must be symmetric"),
        ({"Q": np.array([[1.0, np.nan], [np.nan, 1.0]])}, "Q contains NaN"),
        ({"Q": KernelMatrix(np.ones((2, 1)), "rbg")}, "kernel must be one of"),
        ({"Q": KernelMatrix(np.ones((2, 1)), gamma=-1)}, "gamma must be"),
        ({"Q": KernelMatrix(np.ones((2, 1)), gamma=np.inf)}, "gamma must be .*finite.*gamma=inf"),
        ({"Q": KernelMatrix(np.ones((2, 1)), coef0=np.inf)}, "coef0 must be a finite"),
        ({"Q": KernelMatrix(np.array([[1e160], [0]]))}, "squared norms must be finite"),
        ({"p": [1.0]}, r"p must be a number or have shape \(2,\)"),
        ({"p": [1.0, np.nan]}, "p must be finite"),
        ({"lower": 1.0, "upper": 0.0}, "lower must be at most upper"),
        ({"lower": np.nan}, "lower must be at most upper"),
        ({"x0": [0.0, 9.0]}, "x0 must lie in the box"),
        ({"tol": 0}, "tol must be"),
        ({"max_updates": -1}, "max_updates must be a whole number of at least 0"),
        ({"updates_per_round": 0}, "updates_per_round must be"),
        ({"step_size": 0}, "step_size must be"),
        ({"n_threads": 0}, "n_threads must be a whole number of at least 1"),
        ({"n_threads": 1.5}, "n_threads must be"),
        ({"sync": "racy"}, "sync must be one of"),
        ({"selection": "cyclic"}, "selection must be one of"),
        ({"max_staleness": -1}, "max_staleness must be"),
        ({"hold_back": 2}, "hold_back must be a number from 0 to 1"),
        ({"cache_bytes": 0}, "cache_bytes must be"),
        ({"blocks": [0, 2], "n_threads": 2}, "blocks must be 2 integers from 0"),
        ({"blocks": [0.0, 1.0], "n_threads": 2}, "Received: float64"),
        ({"blocks": "kmeans", "n_threads": 2}, "where Q is a KernelMatrix"),
    ],
)
def test_errors_say_what_was_wrong(arguments, words):
    given = {"Q": np.eye(2), "p": -1.0, "upper": 2.0, **arguments}
    with pytest.raises(ValueError, match=words):
        solve_box_qp(**given)


def test_a_sparse_matrix_is_no_q():
    with pytest.raises(TypeError, match="dense array or a KernelMatrix"):
        solve_box_qp(sparse.eye_array(3, format="csr"), -1.0)


def test_what_a_callback_raises_ends_the_threads():
    X, y = samples()

    def stop(progress):
        if progress.n_updates:
            raise InterruptedError("enough")

    before = threading.active_count()
    with pytest.raises(InterruptedError, match="enough"):
        solve_box_qp(rbf(X, 0.5), *svm_box(y, 2.0), n_threads=3, updates_per_round=5, callback=stop)
    assert threading.active_count() == before


INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from tf_largebatch.kernels.box_qp import BoxQP, KernelMatrix

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
random = np.random.default_rng(0)
X, y = random.normal(size=(3000, 5)), random.choice([-1.0, 1.0], 3000)
# Nothing separates these labels: multipliers go to 1e9 by steps of about 1, which takes days.
box = -y, np.where(y > 0, 0, -1e9), np.where(y > 0, 1e9, 0)
problem = BoxQP(KernelMatrix(X, "linear"), n_threads=2, sync="SYNC")
problem.solve(*box, tol=1e9)  # compiled
sent = []

def interrupt():
    # Each thread has looked for 100 columns: it is amid its updates, in a round without an end.
    while min(cache.counts.sum() for cache in problem.caches) < 100:
        time.sleep(0.01)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

other = threading.Thread(target=interrupt, daemon=True)
other.start()
try:
    problem.solve(*box, updates_per_round=10**12)
except KeyboardInterrupt:
    taken = time.perf_counter() - sent[0]
    other.join()
    print("interrupted, threads:", threading.active_count(), taken < 10)
"""


@pytest.mark.parametrize("sync", ["log", pytest.param("atomic", marks=pytest.mark.slow)])
def test_ctrl_c_ends_all_threads_at_once(sync):
    script = textwrap.dedent(INTERRUPTED).replace("SYNC", sync)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert "interrupted, threads: 1 True" in done.stdout, done.stdout + done.stderr
