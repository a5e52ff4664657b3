"""Dis-SMO's iterations on tensors: what a part does, and the loops over parts and replicas."""

import functools
from typing import NamedTuple

import numpy as np

from tf_largebatch.kernels._smo import TIE, ends_of, extremes, update_pair

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

    beta: object  # (parts, k, rows), alpha y
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
    """Of each part the rows high and low, and f_high and -f_low; both (parts, k, 2)."""
    return extremes(state.beta, ends_of(parts.y, parts.C), state.f, tie)


def owners(best, tie):
    """The parts that own the two rows, of all parts' extremes (P, k, 2): the first of equals.

    Parts hold consecutive rows, so this is the lowest index of all, as in serial SMO.

    Returns:
        (k, 2) int32, and (k, 2): f_high and -f_low of all.
    """
    import tensorflow as tf

    of_all, count = tf.reduce_min(best, 0), tf.shape(best)[0]
    number = tf.range(count)[:, tf.newaxis, tf.newaxis]
    return tf.reduce_min(tf.where(best <= of_all + tie, number, count), 0), of_all


def owned_rows(parts, state, chosen, owner):
    """(k, 2, n_features + 3): a chosen row, beta, y, C where a part here owns it, else zeros."""
    import tensorflow as tf

    values = [tf.gather(a, chosen, batch_dims=2) for a in (state.beta, parts.y, parts.C)]
    rows = tf.gather(parts.X, chosen, batch_dims=1)  # (parts, k, 2, n_features)
    rows = tf.concat([rows, tf.stack(values, axis=3)], axis=3)
    is_mine = parts.number[:, tf.newaxis, tf.newaxis] == owner
    return tf.reduce_sum(tf.where(is_mine[..., tf.newaxis], rows, tf.zeros_like(rows)), 0)


def update(parts, state, chosen, owner, rows, best, going, tol, kernel):
    """The parts' new state, and for each problem whether it moved.

    Args:
        chosen, owner, rows, best: Of high and low: rows in the parts (parts, k, 2), owning parts
            (k, 2), what the owners sent (k, 2, n_features + 3), f_high and -f_low (k, 2).
        going: (k,). tol: As of `smo`.
    """
    import tensorflow as tf

    z_high, z_low = tf.unstack(rows[..., :-EXTRA_COLUMNS], axis=1)  # (k, n_features)
    beta, y, C = tf.unstack(rows[..., -EXTRA_COLUMNS:], EXTRA_COLUMNS, axis=2)  # (k, 2)
    sides = tf.constant([1, -1], beta.dtype)
    end = tf.linalg.diag_part(ends_of(y, C))
    moved, t, new = update_pair(
        sides * beta, end, tf.reduce_max(C, 1), best, pair_kernels(z_high, z_low, **kernel), going,
        tol,
    )  # fmt: skip
    values = kernel_rows(parts.X, parts.squares, tf.concat([z_high, z_low], 0), **kernel)
    k_high, k_low = tf.split(tf.transpose(values, [0, 2, 1]), 2, axis=1)  # (parts, k, rows)
    f = state.f + t[:, tf.newaxis] * (k_high - k_low)
    is_mine = (parts.number[:, tf.newaxis, tf.newaxis] == owner) & going[:, tf.newaxis]
    beta, index = state.beta, tf.range(tf.shape(f)[2])
    for side in range(2):
        here = (index == chosen[..., side, tf.newaxis]) & is_mine[..., side, tf.newaxis]
        beta = tf.where(here, (sides * new)[:, side, tf.newaxis], beta)
    return State(beta, f), moved


@functools.lru_cache(maxsize=16)
def one_device(kernel_items):
    """The loop over parts of one device, plain and compiled, for each kernel's numbers."""
    import tensorflow as tf

    kernel = dict(kernel_items)

    def body(parts, state, n_iter, going, best, tol, limit):
        chosen, best = local_extremes(parts, state, TIE * tol)
        owner, best = owners(best, TIE * tol)
        going = going & (-tf.reduce_sum(best, 1) > 2 * tol) & (n_iter < limit)
        rows = owned_rows(parts, state, chosen, owner)
        state, moved = update(parts, state, chosen, owner, rows, best, going, tol, kernel)
        return state, n_iter + tf.cast(moved, tf.int32), moved, best

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


def over_replicas(strategy, parts, kernel, n_parts):
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
        chosen, best = local_extremes(parts, State(*map(tf.identity, variables)), tie)
        # Infinite where a set is empty, and 0 * inf is none: numbers travel, and a count of them.
        finite = tf.math.is_finite(best)
        numbers = tf.where(finite, best, tf.zeros_like(best))
        packed = tf.stack([numbers, tf.cast(finite, numbers.dtype)])
        slots = tf.one_hot(parts.number, n_parts, dtype=best.dtype)
        return tf.einsum("apks,pP->aPks", packed, slots), chosen

    def send(parts, chosen, owner):
        return owned_rows(parts, State(*map(tf.identity, variables)), chosen, owner)

    def move(parts, chosen, owner, rows, best, going, tol):
        state = State(*map(tf.identity, variables))
        state, moved = update(parts, state, chosen, owner, rows, best, going, tol, kernel)
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)
        return moved

    def body(n_iter, going, best, done, tol, limit):
        packed, chosen = everywhere(find, parts, TIE * tol)
        best, is_any = tf.unstack(total(packed))
        best = tf.where(is_any > 0, best, tf.constant(np.inf, best.dtype))
        owner, best = owners(best, TIE * tol)
        going = going & (-tf.reduce_sum(best, 1) > 2 * tol) & (n_iter < limit)
        rows = total(everywhere(send, parts, chosen, owner))
        moved = everywhere(move, parts, chosen, owner, rows, best, going, tol)
        moved = strategy.experimental_local_results(moved)[0]
        return n_iter + tf.cast(moved, tf.int32), moved, best, done + 1

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
