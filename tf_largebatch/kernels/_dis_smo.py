"""Dis-SMO: SMO's iterates with the rows of X over P parts, and no Gram matrix anywhere.

An iteration: each part finds its extremes of f; all learn all extremes; the two owners send their
rows to all; each part computes the two rows' kernel values with its own rows and updates its f
(Cao and Keerthi 2006; thesis, section 2.3). Memory of a part: its rows and a few vectors.
"""

import functools

import numpy as np

from tf_largebatch.kernels._dis_smo_loop import Parts, State, one_device, over_replicas
from tf_largebatch.kernels._functions import CHUNK_BYTES, gram
from tf_largebatch.kernels._smo import MAX_ITER, MAX_RESTARTS, threshold
from tf_largebatch.kernels._workers import gather_arrays, local_replicas


def solve(X, y, C, *, n_parts, kernel, tol, max_iter, strategy=None, ledger=None, progress=None):
    """SMO over parts of consecutive rows, on one device or over the replicas of a strategy.

    Args:
        X: (m, n_features) dense or CSR; a replica takes its own rows only.
        y, C: (m, k): signs, and bounds, 0 where a sample takes no part.
        n_parts: P; dealt evenly to the replicas.
        kernel: {"kernel", "gamma", "degree", "coef0"}.
        tol, max_iter: As of `smo`.
        ledger: Books the multipliers that workers send each other at the end.
        progress: None or a function of (n_iter (k,), gap (k,)), called now and then.

    As in `smo`, f is computed anew when all have ended, from the support vectors: b and the gap are
    those of that f, and what hasn't ended by it goes on.

    Returns:
        alpha (m, k), b (k,), n_iter (k,), gap (k,), turns of the loop, and of each time that f was
        computed anew the number of support vectors.
    """
    import tensorflow as tf

    (m, k), dtype = y.shape, np.float32 if X.dtype == np.float32 else np.float64
    replicas = 1 if strategy is None else strategy.num_replicas_in_sync
    per_replica, rows = -(-n_parts // replicas), -(-m // n_parts)
    limit = MAX_ITER if max_iter < 0 else min(max_iter, MAX_ITER)

    def block_of(replica):
        ends = replica * per_replica * rows, (replica + 1) * per_replica * rows
        return slice(*(min(m, end) for end in ends))

    def placed(block, fill=0.0):
        full = np.full((per_replica * rows, block.shape[1]), fill, dtype)
        full[: block.shape[0]] = block
        return full.reshape(per_replica, rows, -1)

    def columns(block, fill=0.0):
        return placed(block, fill).transpose(0, 2, 1).copy()

    def parts_of(replica):
        block = block_of(replica)
        dense = placed(X[block].toarray() if hasattr(X, "toarray") else X[block])
        return Parts(
            np.arange(replica * per_replica, (replica + 1) * per_replica, dtype=np.int32),
            dense,
            np.einsum("prd,prd->pr", dense, dense),
            columns(y[block], 1.0),
            columns(C[block]),
        )

    names = tuple(sorted(kernel.items()))
    if strategy is None:
        parts = Parts(*map(tf.constant, parts_of(0)))
        state = State(tf.zeros_like(parts.y), -parts.y)

        def renewed(state, f):
            return state._replace(f=tf.constant(f[0]))

        # As in _smo: XLA takes over where a second of compiling pays.
        first, then = (functools.partial(_call, step, parts) for step in one_device(names))
    else:
        made = {replica: parts_of(replica) for replica in local_replicas(strategy)}
        parts = Parts(*(
            strategy.experimental_distribute_values_from_function(
                lambda context, name=name: tf.constant(
                    getattr(made[context.replica_id_in_sync_group], name)
                )
            )
            for name in Parts._fields
        ))  # fmt: skip
        state, first, renewed = over_replicas(strategy, parts, dict(names), replicas * per_replica)
        then = first
        state = renewed(state, {replica: -part.y for replica, part in made.items()})
    n_iter = tf.zeros([k], tf.int32)
    going = n_iter < 1
    best, turns, step, tol = tf.zeros([k, 2], dtype), 0, first, tf.constant(tol, dtype)
    limit, renewals = tf.constant(limit, tf.int32), []
    while True:
        before = n_iter
        while bool(tf.reduce_any(going)):
            state, n_iter, going, best, done = step(state, n_iter, going, best, tol, limit)
            turns, step = turns + int(done), then
            if progress is not None:
                progress(n_iter.numpy(), threshold(best)[1].numpy())
        alpha = np.abs(_beta(state, strategy, ledger)[:m])
        f = {r: f_of(X, y, alpha, block_of(r), kernel) for r in local_replicas(strategy)}
        state = renewed(state, {r: columns(values, -1.0) for r, values in f.items()})
        renewals.append(int((alpha != 0).any(1).sum()))
        # A turn that finds nothing to do, or may do nothing, has the extremes of this f.
        may_go_on = len(renewals) <= MAX_RESTARTS and bool(tf.reduce_any(n_iter > before))
        last = n_iter
        state, n_iter, going, best, done = first(
            state, n_iter, n_iter >= 0, best, tol, limit if may_go_on else tf.zeros_like(limit)
        )
        if not bool(tf.reduce_any(n_iter > last)):
            break
        turns += int(done)
    b, gap = threshold(best)
    return alpha, b.numpy(), n_iter.numpy(), gap.numpy(), turns, renewals


def _call(function, *arguments):
    """Concrete: TensorFlow would warn of a function that is traced for many shapes."""
    return function.get_concrete_function(*arguments)(*arguments)


def f_of(X, y, alpha, block, kernel):
    """(2.4) of the rows in a slice, (rows, k), in float64 whatever X is; some MiB at a time."""
    support = np.flatnonzero((alpha != 0).any(1))
    f = -np.asarray(y[block], np.float64)
    step = max(1, int((CHUNK_BYTES // 8) ** 0.5))
    for start in range(0, len(support), step):
        some = support[start : start + step]
        vectors, coef = X[some].astype(np.float64), alpha[some].astype(np.float64) * y[some]
        for first in range(block.start, block.stop, step):
            rows = slice(first, min(first + step, block.stop))
            values = gram(X[rows].astype(np.float64), vectors, **kernel)
            f[rows.start - block.start : rows.stop - block.start] += values @ coef
    return f


def _beta(state, strategy, ledger):
    """(rows of all parts, k) on every worker."""
    if strategy is None:
        found = [state.beta.numpy()]
    else:
        local = strategy.experimental_local_results(state.beta)
        arrays = {
            f"{replica}": value.numpy()
            for replica, value in zip(local_replicas(strategy), local, strict=True)
        }
        gathered = gather_arrays(arrays, strategy, ledger=ledger)
        found = [gathered[f"{replica}"] for replica in range(strategy.num_replicas_in_sync)]
    return np.concatenate([a.transpose(0, 2, 1).reshape(-1, a.shape[1]) for a in found])
