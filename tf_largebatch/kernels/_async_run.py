"""Runs Asy-GCD's threads in rounds, between which nothing moves: progress, checks, the end."""

import concurrent.futures

import numpy as np

from tf_largebatch.kernels import _async
from tf_largebatch.kernels._async_state import Cache, Iterate, Shared, Source, cache_nbytes
from tf_largebatch.kernels._async_state import make_shared as new_counters

POLL_SECONDS = 0.1  # how often the caller's thread, which sees Ctrl-C, looks at the others
FRESH_GRADIENTS = 20  # how often the end may be found too early, by rounding, before we give up
IDLE_ROUNDS = 3  # rounds in a row without descent, after which there will be none


class Run:
    """One solve, in rounds of updates, until the largest |projected gradient| is below tol.

    Args:
        source: `Source` of the columns, its rows in the order of the blocks.
        caches: one `Cache` a thread.
        edges: (n_threads + 1,) integers: S_t is the rows [edges[t], edges[t + 1]).
        p, lower, upper, x: (n,), in that order, too.
        steps: (n,), see `Iterate`.
        sync, greedy, staleness, lead, hold_back: the program, and its arguments; staleness -1 for
            no bound.
        random: a RandomState.
    """

    source: Source
    caches: list[Cache]
    shared: Shared
    iterate: Iterate

    def __init__(
        self,
        source,
        caches,
        edges,
        p,
        lower,
        upper,
        x,
        steps,
        *,
        sync,
        greedy,
        staleness,
        lead,
        hold_back,
        random,
    ):
        self.source, self.caches, self.p = source, caches, p
        self.edges = [int(edge) for edge in edges]
        self.n_threads = len(caches)
        self.programs = _async.compiled()
        self.program = "serial" if self.n_threads == 1 else sync
        self.greedy, self.staleness = greedy, staleness
        self.lead, self.hold_back = lead, hold_back
        self.shared = new_counters(self.n_threads, random)
        self.iterate = Iterate(x, np.zeros_like(x), lower, upper, steps)
        self.converged, self.gradient_error = False, 0.0

    @property
    def n_updates(self):
        return int(self.shared.tail[0])

    @property
    def n_looks(self):
        return int(self.shared.tallies[:, _async.LOOKS].sum())

    @property
    def objective(self):
        return float(0.5 * self.iterate.x @ (self.iterate.g + self.p))

    @property
    def projected_gradient(self):
        """The largest |x_i - clip(x_i - g_i)|."""
        x, g, lower, upper, _ = self.iterate
        return float(np.abs(x - np.clip(x - g, lower, upper)).max(initial=0.0))

    @property
    def cache_bytes(self):
        return sum(map(cache_nbytes, self.caches))

    def solve(self, *, tol, max_updates, updates_per_round, report):
        """Runs until converged, stuck or at `max_updates`; `report()` is called after each round.

        At the end, and wherever the threads find nothing left to do, the gradient is computed anew
        from x: what counts is that one, and its distance from the one kept up by the updates.
        """
        with concurrent.futures.ThreadPoolExecutor(self.n_threads) as pool:
            if self.iterate.x.any():
                self.iterate.g[:] = self._fresh_gradient(pool)
            else:
                self.iterate.g[:] = self.p
            report()
            last, idle, refreshed = self.objective, 0, 0
            while True:
                before = self.n_updates
                limit = min(before + updates_per_round, max_updates)
                self._round(pool, limit, tol)
                self._refuse_what_is_not_finite()
                settled = self._is_settled(limit)
                if settled or limit == max_updates:
                    fresh = self._fresh_gradient(pool)
                    self.gradient_error = float(np.abs(fresh - self.iterate.g).max(initial=0.0))
                    self.iterate.g[:] = fresh
                    refreshed += settled
                    self.converged = self.projected_gradient < tol
                report()
                if self.converged or limit == max_updates or refreshed > FRESH_GRADIENTS:
                    return
                # Steps from stale gradients may climb where the columns are much alike: then
                # one update at a time, each from all before it, of which none can climb.
                idle = 0 if self.objective < last else idle + 1
                if idle and self.staleness != 0:
                    self.staleness, idle = 0, 0
                if idle == IDLE_ROUNDS:
                    return
                last = self.objective

    def _refuse_what_is_not_finite(self):
        # Threads pass over coordinates whose gradient is NaN, as if there were nothing to do.
        if not (np.isfinite(self.iterate.g).all() and np.isfinite(self.iterate.x).all()):
            raise ValueError(
                "The gradient is no longer finite: columns of Q aren't (scale the samples; a "
                "fractional degree needs gamma x'y + coef0 above 0), or f has no minimum."
            )

    def _round(self, pool, limit, tol):
        shared, program = self.shared, getattr(self.programs, self.program)
        shared.quiet[:] = 0
        shared.wants[:] = np.inf  # nobody runs ahead before all have begun
        shared.tallies[:, _async.STUCK] = 0
        self._call(
            pool,
            [
                (
                    program, self.source, cache, self.iterate, shared, t, self.edges[t],
                    self.edges[t + 1], limit, tol, self.greedy, self.staleness,
                    self.lead, self.hold_back,
                )
                for t, cache in enumerate(self.caches)
            ],
        )  # fmt: skip
        # Threads that came to the limit may have asked for slots beyond it.
        shared.tail[0] = min(shared.tail[0], limit)

    def _is_settled(self, limit):
        """Whether the threads stopped by themselves; ValueError if f has no minimum."""
        stuck = self.shared.tallies[:, _async.STUCK].max()
        if stuck and self.iterate.steps[stuck - 1] == 0:
            i = stuck - 1
            if np.isinf([self.iterate.lower[i], self.iterate.upper[i]]).any():
                raise ValueError(
                    "The problem is unbounded below: Q_ii <= 0 along a coordinate whose bounds "
                    "aren't finite. Give it finite bounds."
                )
        quiet = self.shared.quiet[:: _async.PAD] == self.n_updates + 1
        return bool(stuck or self.n_updates < limit or quiet.all())

    def _fresh_gradient(self, pool):
        """Q x + p from the columns, those in the caches first of all."""
        n, x = self.p.size, self.iterate.x
        # A thread has rows of every column or, with "atomic", whole columns of its rows.
        whole = self.program == "atomic"
        blocks = list(zip(self.edges, self.edges[1:], strict=False))
        parts = [np.zeros(n if whole else last - first) for first, last in blocks]
        calls = []
        for (first, last), cache, part in zip(blocks, self.caches, parts, strict=True):
            ranges = (first, last, 0, n) if whole else (0, n, first, last)
            calls.append(
                (self.programs.gradient, self.source, cache, x, *ranges, part, self.shared.stop)
            )
        self._call(pool, calls)
        return self.p + (np.sum(parts, axis=0) if whole else np.concatenate(parts))

    def _call(self, pool, calls):
        """One call a thread. If one fails, or the caller is interrupted, all others stop, too."""
        futures = pending = [pool.submit(*call) for call in calls]
        try:
            while pending:
                done, pending = concurrent.futures.wait(
                    pending,
                    timeout=POLL_SECONDS,
                    return_when=concurrent.futures.FIRST_EXCEPTION,
                )
                if any(future.exception() for future in done):
                    break
        finally:
            if pending:
                self.shared.stop[0] = 1
                concurrent.futures.wait(pending)
        for future in futures:
            future.result()
