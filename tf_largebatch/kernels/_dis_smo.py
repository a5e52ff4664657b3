"""Dis-SMO: SMO's iterates with the rows of X over P parts, and no Gram matrix anywhere.

An iteration: each part finds its extremes of f; all learn all extremes; the two owners send their
rows to all; each part computes the two rows' kernel values with its own rows and updates its f
(Cao and Keerthi 2006; thesis, section 2.3). Memory of a part: its rows and a few vectors.
"""

import functools
from typing import NamedTuple

import numpy as np

from tf_largebatch.kernels._functions import CHUNK_BYTES, gram
from tf_largebatch.kernels._smo import (
    MAX_ITER,
    MAX_RESTARTS,
    TIE,
    extremes,
    threshold,
    update_pair,
)
from tf_largebatch.kernels._workers import gather_arrays, local_replicas

# Between two looks at the clock, and at Ctrl-C.
ITERATIONS_PER_CALL = 2000
# A row's multiplier, label and bound travel with it.
EXTRA_COLUMNS = 3


class Parts(NamedTuple):
    """Tensors of the parts that one replica holds; padded rows and parts have a bound of 0."""

    number: object  # (parts,) int32, of P
    X: object  # (parts, rows, n_features)
    squares: object  # (parts, rows) |x|²
    y: object  # (parts, k, rows)
    C: object  # (parts, k, rows)


class State(NamedTuple):
    """What changes."""

    alpha: object  # (parts, k, rows)
    f: object  # (parts, k, rows)


def kernel_rows(X, squares, z, *, kernel, gamma, degree, coef0):
    """The kernel's values of rows X (parts, rows, n_features) with z (q, n_features): (.., q)."""
    import tensorflow as tf

    products = tf.einsum("prd,qd->prq", X, z)
    if kernel == "linear":
        return products
    gamma = tf.cast(gamma, X.dtype)
    if kernel == "rbf":
        distances = squares[:, :, tf.newaxis] + tf.reduce_sum(z * z, 1) - 2 * products
        return tf.exp(-gamma * tf.maximum(distances, tf.zeros([], X.dtype)))
    inner = gamma * products + tf.cast(coef0, X.dtype)
    return tf.pow(inner, tf.cast(degree, X.dtype)) if kernel == "poly" else tf.tanh(inner)


def pair_kernels(high, low, *, kernel, gamma, degree, coef0):
    """K_hh + K_ll - 2 K_hl for rows (k, n_features)."""
    import tensorflow as tf

    if kernel == "rbf":
        distances = tf.reduce_sum(tf.square(high - low), 1)
        return 2 - 2 * tf.exp(-tf.cast(gamma, high.dtype) * distances)

    def value(a, b):
        products = tf.reduce_sum(a * b, 1)
        if kernel == "linear":
            return products
        inner = tf.cast(gamma, a.dtype) * products + tf.cast(coef0, a.dtype)
        return tf.pow(inner, tf.cast(degree, a.dtype)) if kernel == "poly" else tf.tanh(inner)

    return value(high, high) + value(low, low) - 2 * value(high, low)


def local_extremes(parts, state, tie):
    """Of each part: (f_high, f_low), each (parts, k), and their rows (high, low)."""
    import tensorflow as tf

    shape = tf.shape(state.f)
    flat = [tf.reshape(a, [-1, shape[2]]) for a in (parts.y, parts.C, *state)]
    high, low, f_high, f_low = extremes(*flat, tie)
    return [tf.reshape(a, shape[:2]) for a in (f_high, f_low, high, low)]


def owners(f_high, f_low, tie):
    """The parts that own the two rows, of all parts' extremes (P, k): the first of equals.

    Parts hold consecutive rows, so this is the lowest index of all, as in serial SMO.
    """
    import tensorflow as tf

    best_high, best_low = tf.reduce_min(f_high, 0), tf.reduce_max(f_low, 0)
    count = tf.shape(f_high)[0]
    number = tf.range(count)[:, tf.newaxis]
    of_high = tf.reduce_min(tf.where(f_high <= best_high + tie, number, count), 0)
    of_low = tf.reduce_min(tf.where(f_low >= best_low - tie, number, count), 0)
    return of_high, of_low, best_high, best_low


def owned_rows(parts, state, chosen, owner):
    """(k, n_features + 3): the chosen row, alpha, y, C where a part here owns it, else zeros."""
    import tensorflow as tf

    values = [tf.gather(a, chosen, batch_dims=2) for a in (state.alpha, parts.y, parts.C)]
    rows = tf.gather(parts.X, chosen, batch_dims=1)  # (parts, k, n_features)
    rows = tf.concat([rows, tf.stack(values, axis=2)], axis=2)
    is_mine = parts.number[:, tf.newaxis] == owner
    return tf.reduce_sum(tf.where(is_mine[:, :, tf.newaxis], rows, tf.zeros_like(rows)), 0)


def update(parts, state, chosen, owner, rows, best, going, tol, kernel):
    """The parts' new state, and for each problem whether it moved.

    Args:
        chosen, owner, rows, best: For high and low: rows in the parts (parts, k), owning parts
            (k,), what the owners sent (k, n_features + 3), f_high and f_low (k,).
        going: (k,). tol: As of `smo`.
    """
    import tensorflow as tf

    (z_high, (a_high, y_high, C_high)), (z_low, (a_low, y_low, C_low)) = (
        (r[:, :-EXTRA_COLUMNS], tf.unstack(r[:, -EXTRA_COLUMNS:], EXTRA_COLUMNS, axis=1))
        for r in rows
    )
    moved, t, (a_high, a_low) = update_pair(
        a_high, a_low, y_high, y_low, C_high, C_low, *best,
        pair_kernels(z_high, z_low, **kernel), going, tol,
    )  # fmt: skip
    values = kernel_rows(parts.X, parts.squares, tf.concat([z_high, z_low], 0), **kernel)
    k_high, k_low = tf.split(tf.transpose(values, [0, 2, 1]), 2, axis=1)  # (parts, k, rows)
    f = state.f + t[:, tf.newaxis] * (k_high - k_low)
    alpha, index = state.alpha, tf.range(tf.shape(f)[2])
    for new, place, whose in ((a_high, chosen[0], owner[0]), (a_low, chosen[1], owner[1])):
        is_mine = (parts.number[:, tf.newaxis] == whose) & going
        here = (index == place[:, :, tf.newaxis]) & is_mine[:, :, tf.newaxis]
        alpha = tf.where(here, new[:, tf.newaxis], alpha)
    return State(alpha, f), moved


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
        first, then = (functools.partial(step, parts) for step in _one_device(names))
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
        state, first, renewed = _over_replicas(strategy, parts, dict(names), replicas * per_replica)
        then = first
        state = renewed(state, {replica: -part.y for replica, part in made.items()})
    n_iter = tf.zeros([k], tf.int32)
    going = n_iter < 1
    zero = tf.zeros([k], dtype)
    best, turns, step, tol = (zero, zero), 0, first, tf.constant(tol, dtype)
    limit, renewals = tf.constant(limit, tf.int32), []
    while True:
        before = n_iter
        while bool(tf.reduce_any(going)):
            state, n_iter, going, best, done = step(state, n_iter, going, best, tol, limit)
            turns, step = turns + int(done), then
            if progress is not None:
                progress(n_iter.numpy(), threshold(*best)[1].numpy())
        alpha = _alpha(state, strategy, ledger)[:m]
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
    b, gap = threshold(*best)
    return alpha, b.numpy(), n_iter.numpy(), gap.numpy(), turns, renewals


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


def _alpha(state, strategy, ledger):
    """(rows of all parts, k) on every worker."""
    if strategy is None:
        found = [state.alpha.numpy()]
    else:
        local = strategy.experimental_local_results(state.alpha)
        arrays = {
            f"{replica}": value.numpy()
            for replica, value in zip(local_replicas(strategy), local, strict=True)
        }
        gathered = gather_arrays(arrays, strategy, ledger=ledger)
        found = [gathered[f"{replica}"] for replica in range(strategy.num_replicas_in_sync)]
    return np.concatenate([a.transpose(0, 2, 1).reshape(-1, a.shape[1]) for a in found])


@functools.lru_cache(maxsize=16)
def _one_device(kernel_items):
    """The loop over parts of one device, plain and compiled, for each kernel's numbers."""
    import tensorflow as tf

    kernel = dict(kernel_items)

    def body(parts, state, n_iter, going, best, tol, limit):
        f_high, f_low, high, low = local_extremes(parts, state, TIE * tol)
        of_high, of_low, *best = owners(f_high, f_low, TIE * tol)
        going = going & (best[1] > best[0] + 2 * tol) & (n_iter < limit)
        rows = [owned_rows(parts, state, high, of_high), owned_rows(parts, state, low, of_low)]
        state, moved = update(
            parts, state, (high, low), (of_high, of_low), rows, best, going, tol, kernel
        )
        return state, n_iter + tf.cast(moved, tf.int32), moved, tuple(best)

    def step(parts, state, n_iter, going, best, tol, limit):
        return tf.while_loop(
            lambda state, n_iter, going, best, done: tf.reduce_any(going),
            lambda state, n_iter, going, best, done: (
                *body(parts, state, n_iter, going, best, tol, limit), done + 1
            ),
            (state, n_iter, going, best, tf.zeros([], tf.int32)),
            maximum_iterations=ITERATIONS_PER_CALL,
        )  # fmt: skip

    options = {"autograph": False, "reduce_retracing": True}
    return tf.function(step, **options), tf.function(step, jit_compile=True, **options)


def _over_replicas(strategy, parts, kernel, n_parts):
    """The variables; the same loop in cross-replica context, with two sums over the replicas an
    iteration; and a function that sets f."""
    import tensorflow as tf

    def create():
        y = strategy.experimental_local_results(parts.y)[0]
        return [
            tf.Variable(
                tf.zeros_like(y), trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.NONE,
            )
            for _ in State._fields
        ]  # fmt: skip

    with strategy.scope():
        variables = State(*create())

    def everywhere(function, *arguments):
        return strategy.run(function, args=arguments)

    def total(values):
        return strategy.reduce("SUM", values, axis=None)

    def find(parts, tie):
        f_high, f_low, high, low = local_extremes(parts, State(*map(tf.identity, variables)), tie)
        slots = tf.transpose(tf.one_hot(parts.number, n_parts, dtype=f_high.dtype))
        # Infinite where a set is empty, and 0 * inf is none: numbers travel, and a count of them.
        packed = []
        for f in (f_high, f_low):
            finite = tf.math.is_finite(f)
            packed += [
                slots @ tf.where(finite, f, tf.zeros_like(f)),
                slots @ tf.cast(finite, f.dtype),
            ]
        return tf.stack(packed), high, low

    def send(parts, high, low, of_high, of_low):
        state = State(*map(tf.identity, variables))
        return tf.stack(
            [owned_rows(parts, state, high, of_high), owned_rows(parts, state, low, of_low)]
        )

    def move(parts, high, low, of_high, of_low, rows, best, going, tol):
        state, moved = update(
            parts, State(*map(tf.identity, variables)), (high, low), (of_high, of_low),
            tf.unstack(rows, 2), best, going, tol, kernel,
        )  # fmt: skip
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
        return moved

    def body(n_iter, going, best, done, tol, limit):
        packed, high, low = everywhere(find, parts, TIE * tol)
        f_high, has_high, f_low, has_low = tf.unstack(total(packed), 4)
        infinity = tf.constant(np.inf, f_high.dtype)
        f_high = tf.where(has_high > 0, f_high, infinity)
        f_low = tf.where(has_low > 0, f_low, -infinity)
        of_high, of_low, *best = owners(f_high, f_low, TIE * tol)
        going = going & (best[1] > best[0] + 2 * tol) & (n_iter < limit)
        rows = total(everywhere(send, parts, high, low, of_high, of_low))
        moved = everywhere(move, parts, high, low, of_high, of_low, rows, tuple(best), going, tol)
        moved = strategy.experimental_local_results(moved)[0]
        return n_iter + tf.cast(moved, tf.int32), moved, tuple(best), done + 1

    def set_f(f):
        variables.f.assign(f)

    @tf.function(autograph=False)
    def renew(f):
        everywhere(set_f, f)

    @tf.function(autograph=False)
    def step(n_iter, going, best, tol, limit):
        return tf.while_loop(
            lambda n_iter, going, best, done: tf.reduce_any(going),
            lambda n_iter, going, best, done: body(n_iter, going, best, done, tol, limit),
            (n_iter, going, best, tf.zeros([], tf.int32)),
            maximum_iterations=ITERATIONS_PER_CALL,
        )

    # Concrete: TensorFlow would warn of functions made again for each fit.
    def step_of(state, *arguments):
        return state, *step.get_concrete_function(*arguments)(*arguments)

    def renewed(state, f):
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(f[context.replica_id_in_sync_group])
        )
        renew.get_concrete_function(values)(values)
        return state

    return variables, step_of, renewed
