"""Box-constrained quadratic programs by asynchronous greedy coordinate descent (thesis, chapter 4).

    minimize f(x) = x'Qx / 2 + p'x   subject to   lower <= x <= upper

The dual of a kernel SVM without bias, eq. 4.9, is one: with Q the kernel's matrix, p = -y and a box
of [0, C] where y is 1, [-C, 0] where it is -1 (the thesis's alpha is y x).
"""

import math
import numbers
import os
import time
import warnings
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state

from tf_largebatch.kernels import _async
from tf_largebatch.kernels import _async_state as state
from tf_largebatch.kernels._async_blocks import thread_blocks
from tf_largebatch.kernels._async_run import Run
from tf_largebatch.kernels._functions import gamma_value

SYNC = ("log", "atomic")
SELECTION = ("greedy", "random")
LEAD = 16  # updates: a thread so far ahead of the slowest works in vain
ROWS_A_THREAD = 1000  # with fewer, telling the other threads takes longer than the update


class KernelMatrix(NamedTuple):
    """Q_ij = k(x_i, x_j) + constant, of which columns are computed when they are needed.

    Args:
        X: (n, n_features), dense or CSR.
        kernel: `"linear"`, `"poly"`, `"rbf"` or `"sigmoid"`, as scikit-learn defines them.
        gamma: a number, `"scale"` or `"auto"`, as `sklearn.svm.SVC`.
        degree: of the polynomial.
        coef0: of the polynomial and the sigmoid.
        constant: added to every element.
    """

    X: np.ndarray
    kernel: str = "rbf"
    gamma: float | str = "scale"
    degree: float = 3
    coef0: float = 0.0
    constant: float = 0.0


class Progress(NamedTuple):
    """Where a solve stands between two rounds."""

    seconds: float
    n_updates: int
    n_looks: int  # searches of a block; with selection="random" also each coordinate drawn
    objective: float
    projected_gradient: float  # the largest |x_i - clip(x_i - g_i)|


class BoxQPResult(NamedTuple):
    """What `solve_box_qp` finds."""

    x: np.ndarray  # (n,)
    gradient: np.ndarray  # (n,): Qx + p, computed anew at the end
    objective: float
    projected_gradient: float  # the largest |x_i - clip(x_i - g_i)|, by that gradient
    converged: bool  # whether that is below tol
    gradient_error: float  # the largest difference of the gradient kept up by updates from it
    n_updates: int
    n_looks: int
    updates_by_thread: np.ndarray  # (n_threads,)
    rows_by_thread: np.ndarray  # (n_threads,)
    max_staleness: int  # updates that an update hadn't seen, at most: T of Assumption 1.1
    one_at_a_time: bool  # whether no update was staler than 0 at the end, by request or by need
    cache_hits: int
    cache_misses: int
    cache_bytes: int  # reserved by all threads' caches
    seconds: float
    history: list[Progress]


class BoxQP:
    """A matrix Q and the threads' blocks and caches, for one or several p and boxes.

    Args: as `solve_box_qp`.
    """

    def __init__(
        self, Q, *, n_threads=None, sync="log", selection="greedy", blocks=None,
        max_staleness=16, hold_back=None, step_size=None, cache_bytes=2**28, random_state=None,
    ):  # fmt: skip
        if sync not in SYNC:
            raise ValueError(f"sync must be one of {SYNC}. Received: sync={sync!r}.")
        if selection not in SELECTION:
            raise ValueError(
                f"selection must be one of {SELECTION}. Received: selection={selection!r}."
            )
        self.staleness, self.lead = -1, _async.RING
        if max_staleness is not None:
            self.staleness = _count("max_staleness", max_staleness, least=0)
            self.lead = min(max(LEAD, self.staleness), _async.RING)
        if hold_back is None:
            hold_back = 0.5 if selection == "greedy" else 0.0
        if not (_is_number(hold_back) and 0 <= hold_back <= 1):
            raise ValueError(
                f"hold_back must be a number from 0 to 1. Received: hold_back={hold_back!r}."
            )
        self.hold_back = float(hold_back)
        if step_size is not None and not (_is_number(step_size) and 0 < step_size < math.inf):
            raise ValueError(
                "step_size must be a finite number above 0, or None for 1 / Q_ii. "
                f"Received: step_size={step_size!r}."
            )
        self.random = check_random_state(random_state)
        self.sync, self.selection = sync, selection
        Q, self.size = _checked(Q)
        if n_threads is None:
            n_threads = max(1, min(_cores(), self.size // ROWS_A_THREAD))
        self.n_threads = _count("n_threads", n_threads, least=1)
        labels = thread_blocks(
            blocks, X=Q.X if isinstance(Q, KernelMatrix) else None, n=self.size,
            n_threads=self.n_threads, random=self.random,
        )  # fmt: skip
        self._lay_out(Q, labels)
        diagonal = self.source.diagonal
        if not np.isfinite(diagonal).all():
            raise ValueError(state.NOT_FINITE.format("The kernel's values k(x_i, x_i)"))
        if step_size is None:
            curved = diagonal > 0
            self.steps = np.divide(1.0, diagonal, out=np.zeros(self.size), where=curved)
        else:
            self.steps = np.full(self.size, float(step_size))
        self._make_caches(_count("cache_bytes", cache_bytes, least=1))

    def _lay_out(self, Q, labels):
        """Rows in the order of the blocks, so that each thread's lie side by side."""
        self.edges = np.searchsorted(np.sort(labels), np.arange(self.n_threads + 1))
        in_order = bool((labels[1:] >= labels[:-1]).all())
        self.order = np.arange(self.size) if in_order else np.argsort(labels, kind="stable")
        if isinstance(Q, KernelMatrix):
            X = Q.X if in_order else Q.X[self.order]
            self.source = state.kernel_source(
                X, kernel=Q.kernel, gamma=Q.gamma, degree=Q.degree, coef0=Q.coef0,
                constant=Q.constant,
            )  # fmt: skip
            self.n_features = Q.X.shape[1]
        else:
            self.source = state.matrix_source(
                Q if in_order else np.ascontiguousarray(Q[np.ix_(self.order, self.order)])
            )
            self.n_features = 0

    def _make_caches(self, cache_bytes):
        """An equal share of the memory for each thread; each in one piece (section 4.4)."""
        share = cache_bytes // self.n_threads
        self.caches = []
        for rows in np.diff(self.edges):
            rows = self.size if self.sync == "atomic" else int(rows)
            cache = state.make_cache(self.source, self.size, rows, self.n_features, share)
            if cache is None:
                least = self.n_threads * (4 * self.size + 8 * self.size + 12)
                raise ValueError(
                    "cache_bytes must have room for a column in each thread. Received: "
                    f"cache_bytes={cache_bytes} for {self.n_threads} threads. "
                    f"Enough for any blocks: {least}."
                )
            self.caches.append(cache)

    def solve(
        self, p, lower=0.0, upper=math.inf, *, x0=None, tol=1e-3, max_updates=None,
        updates_per_round=None, callback=None, verbose=0,
    ):  # fmt: skip
        """Minimizes x'Qx / 2 + p'x in the box; arguments and result as `solve_box_qp`."""
        n = self.size
        p = _vector("p", p, n)
        lower, upper = (
            _vector("lower", lower, n, finite=False),
            _vector("upper", upper, n, finite=False),
        )
        if not (lower <= upper).all():  # and so none is NaN
            raise ValueError("lower must be at most upper in each coordinate.")
        if x0 is None:
            x = np.clip(np.zeros(n), lower, upper)
        else:
            x = _vector("x0", x0, n)
            if not ((lower <= x) & (x <= upper)).all():
                raise ValueError("x0 must lie in the box, from lower to upper. Clip it to that.")
        if not (_is_number(tol) and 0 < tol < math.inf):
            raise ValueError(f"tol must be a finite number above 0. Received: tol={tol!r}.")
        most = 2**62 if max_updates is None else _count("max_updates", max_updates, least=0)
        each = max(n, 10_000) if updates_per_round is None else updates_per_round
        each = _count("updates_per_round", each, least=1)
        order = self.order
        run = Run(
            self.source, self.caches, self.edges, p[order], lower[order], upper[order], x[order],
            self.steps, sync=self.sync, greedy=self.selection == "greedy",
            staleness=self.staleness, lead=self.lead, hold_back=self.hold_back, random=self.random,
        )  # fmt: skip
        counts = [cache.counts.copy() for cache in self.caches]
        history, began = [], time.perf_counter()

        def report():
            history.append(
                Progress(
                    time.perf_counter() - began, run.n_updates, run.n_looks, run.objective,
                    run.projected_gradient,
                )
            )  # fmt: skip
            if verbose:
                print(_line(history[-1]), flush=True)
            if callback is not None:
                callback(history[-1])

        run.solve(tol=tol, max_updates=most, updates_per_round=each, report=report)
        seconds = time.perf_counter() - began
        x, gradient = np.empty(n), np.empty(n)
        x[order], gradient[order] = run.iterate.x, run.iterate.g
        hits, misses = sum(
            cache.counts - before for cache, before in zip(self.caches, counts, strict=True)
        )
        tallies = run.shared.tallies
        result = BoxQPResult(
            x=x, gradient=gradient, objective=run.objective,
            projected_gradient=run.projected_gradient, converged=run.converged,
            gradient_error=run.gradient_error, n_updates=run.n_updates, n_looks=run.n_looks,
            updates_by_thread=tallies[:, _async.UPDATES].copy(), rows_by_thread=np.diff(self.edges),
            max_staleness=int(tallies[:, _async.STALEST].max()), one_at_a_time=run.staleness == 0,
            cache_hits=int(hits), cache_misses=int(misses), cache_bytes=run.cache_bytes,
            seconds=seconds, history=history,
        )  # fmt: skip
        if not result.converged:
            warnings.warn(
                f"Coordinate descent ended after {result.n_updates} updates with a largest "
                f"projected gradient of {result.projected_gradient:.3g}, and not below tol={tol}. "
                "Raise max_updates or tol, or scale the data.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return result


def solve_box_qp(
    Q, p, lower=0.0, upper=math.inf, *, x0=None, tol=1e-3, max_updates=None, step_size=None,
    n_threads=None, sync="log", selection="greedy", blocks=None, max_staleness=16, hold_back=None,
    cache_bytes=2**28, updates_per_round=None, callback=None, verbose=0, random_state=None,
):  # fmt: skip
    """Minimizes x'Qx / 2 + p'x in the box by threads, each of which owns a block of coordinates.

    Asy-GCD (You et al. 2016; thesis, Algorithms 12 and 14): thread t picks in its block S_t the
    i of the largest projected gradient |x_i - clip(x_i - g_i)|, moves x_i to clip(x_i - g_i / Q_ii)
    and has the step d reach the gradient, g += d q_i, without waiting for the others. One thread
    is Algorithm 13, GCD. The threads hold no lock of Python's; Ctrl-C ends them.

    Args:
        Q: (n, n) symmetric array; or a `KernelMatrix`, whose columns the threads compute when they
            need them and keep as far as `cache_bytes` goes. All is computed in float64. Where Q
            isn't positive semidefinite, the end is a stationary point of one-coordinate moves.
        p: (n,), or a number.
        lower, upper: (n,), or numbers; may be infinite.
        x0: (n,) where to begin; None: the box's point nearest to 0.
        tol: The end: every projected gradient is below it, with all updates applied. In x's units;
            it can't exceed upper - lower, so that a narrow box needs a smaller tol.
        max_updates: Most updates of all threads together; None: no bound.
        step_size: The gamma of Algorithm 12, x_i - gamma g_i; None: 1 / Q_ii, the exact minimizer
            (eq. 4.10). Where Q_ii <= 0, None goes to the better end of the interval.
        n_threads: None: as many as there are cores, but no more than one for 1,000 coordinates.
        sync: How steps reach the gradient. `"log"`: (i, d) is published in a log, and each thread
            adds d q_i to the gradient of its own block, so that it needs only these rows of the
            columns. `"atomic"`: as printed, each element of g is added to in one atomic step. Both
            give every thread all updates; reads may be of any mixture of them, which is the
            thesis's inconsistent read.
        selection: `"greedy"`; or `"random"` draws i from the block (PSCD, Liu et al. 2014),
            passing over what violates by less than tol.
        blocks: Which thread owns what. None or `"contiguous"`: runs of as many rows each. (n,)
            labels below n_threads. Or, with a KernelMatrix, the name of a partition or a
            partitioner: the thesis has `"kmeans"` (section 4.4, centres from at most 20,000
            samples), which saves updates where nobody holds back, and otherwise costs more than it
            saves. Blocks of an array that aren't contiguous cost a copy of it.
        max_staleness: An update is made only if it was chosen with at most so many updates unseen:
            the T of Assumption 1.1. With `"log"` no thread gets more than 16, or so many if that
            is more, ahead of the slowest, either. 0: no update is made from a stale gradient, so
            that each of them descends. None: no bound but the log's length of 1,024, as the thesis
            has it. 0 takes its place after a round of updates that doesn't lower f.
        hold_back: Where the thesis has all threads update at their own pace: one whose largest
            violation is below `hold_back` times that of another block waits until it isn't. None:
            0.5, or 0 for `selection="random"`; 0: as the thesis. An update costs the same
            however small the violation; without this up to three times as many were needed where
            threads shared cores.
        cache_bytes: Of all threads' columns together. With `"log"` a thread keeps its own rows of
            any column, with `"atomic"` whole columns of its own coordinates.
        updates_per_round: Updates after which the threads pause, for progress and checks; None:
            n, but at least 10,000.
        callback: Function of a `Progress`, called at the start and after each round, in the
            caller's thread. What it raises ends the solve.
        verbose: If true, prints a line each round.
        random_state: int, RandomState or None; for K-means and `selection="random"`. With one
            thread the same state gives the same bits; with more, the same solution within tol.

    Returns:
        `BoxQPResult`.

    Raises:
        ValueError: If an argument is none of the above, columns of Q overflow, or f is found to
            be unbounded below.
        ImportError: If numba, the extra [async], isn't installed.

    Warns:
        ConvergenceWarning: If the end is at max_updates, or updates that descend no longer come.

    >>> result = solve_box_qp(np.array([[2.0, 1.0], [1.0, 2.0]]), [-1.0, -3.0], upper=1.2)
    >>> result.x.round(3), round(result.objective, 3)
    (array([0. , 1.2]), -2.16)
    """
    problem = BoxQP(
        Q, n_threads=n_threads, sync=sync, selection=selection, blocks=blocks,
        max_staleness=max_staleness, hold_back=hold_back, step_size=step_size,
        cache_bytes=cache_bytes, random_state=random_state,
    )  # fmt: skip
    return problem.solve(
        p, lower, upper, x0=x0, tol=tol, max_updates=max_updates,
        updates_per_round=updates_per_round, callback=callback, verbose=verbose,
    )  # fmt: skip


def _checked(Q):
    """(Q, n), once it is a float64 array or a KernelMatrix with numbers."""
    if isinstance(Q, KernelMatrix):
        if Q.kernel not in state.KINDS:
            raise ValueError(
                f"kernel must be one of {sorted(state.KINDS)}. Received: kernel={Q.kernel!r}. Of "
                "another one give the matrix itself."
            )
        X = check_array(Q.X, accept_sparse="csr", dtype=np.float64)
        numbers_of = {name: getattr(Q, name) for name in ("degree", "coef0", "constant")}
        for name, value in numbers_of.items():
            if not (_is_number(value) and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number. Received: {name}={value!r}.")
        state.refuse_large_samples(X)
        with np.errstate(over="ignore"):
            gamma = gamma_value(Q.gamma, X)
        if Q.kernel != "linear" and not math.isfinite(gamma):
            raise ValueError(
                f"gamma must be finite. Received: {Q.gamma!r}. Of samples whose variance is "
                "near 0, scale them."
            )
        return Q._replace(X=X, gamma=gamma), X.shape[0]
    if sparse.issparse(Q):
        raise TypeError("Q must be a dense array or a KernelMatrix. Received: a sparse matrix.")
    Q = check_array(Q, dtype=np.float64, order="C", input_name="Q")
    n = Q.shape[0]
    if Q.shape != (n, n):
        raise ValueError(f"Q must be square. Received: shape={Q.shape}.")
    scale, rows = np.abs(Q).max(), max(1, 2**22 // n)
    for start in range(0, n, rows):
        chunk = slice(start, start + rows)
        if np.abs(Q[chunk] - Q[:, chunk].T).max() > 1e-8 * scale:
            raise ValueError("Q must be symmetric. For x'Ax / 2 give (A + A.T) / 2.")
    return Q, n


def _vector(name, value, n, finite=True):
    """(n,) float64 of an array or a number."""
    value = np.asarray(value, np.float64)
    if value.shape not in ((), (n,)):
        raise ValueError(f"{name} must be a number or have shape ({n},). Received: {value.shape}.")
    if finite and not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite. Received: NaN or infinity.")
    return np.ascontiguousarray(np.broadcast_to(value, (n,)))


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _count(name, value, *, least):
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise ValueError(
        f"{name} must be a whole number of at least {least}. Received: {name}={value!r}."
    )


def _cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _line(progress):
    return (
        f"Asy-GCD: {progress.seconds:.1f} s, {progress.n_updates:,} updates, objective "
        f"{progress.objective:.6g}, largest projected gradient {progress.projected_gradient:.2g}"
    )
