"""SMO (thesis, Algorithm 1) for a stack of problems, in one `tf.while_loop`.

    maximize  sum(alpha) - 1/2 sum_ij alpha_i alpha_j y_i y_j K_ij,
    0 <= alpha_i <= C_i,  sum(alpha_i y_i) = 0                           (2.1), (2.2)

All problems of a stack step together; one that has ended stands still. Padding and samples that
take no part have C_i = 0: they are never chosen.
"""

import functools

import numpy as np

# An iteration takes TensorFlow 50 to 100 microseconds and XLA, up to some thousands of rows, 4 to
# 20; but XLA compiles for a quarter of a second, once a shape. Problems of so many rows, which
# users fit again and again, are compiled at once, and others where it pays.
COMPILED_ROWS = 512
PLAIN_TURNS = 5000
# Between two looks at Ctrl-C; f is computed anew then.
TURNS_PER_CALL = 10_000
# How often a problem goes on whose f, computed anew, shows that it hadn't ended.
MAX_RESTARTS = 10
# Rows of K that are float64 at a time where it is float32.
WIDE_ROWS = 256
# Values of f that differ by less than this share of tol are equal.
TIE = 1e-6
# A multiplier so many units of rounding of C from its end is at its end.
ROUNDING = 8
# Of a problem without a limit, as LIBSVM's.
MAX_ITER = 10_000_000


def smo(stacks, *, tol, max_iter):
    """Some turns for a stack; a `solve` of `_engine.solve_parts`, which calls until all have ended.

    A step changes f by increments, whose rounding adds up. So f is computed anew from alpha at each
    call's end, b and the gap are those of that f, and a problem that hasn't ended by it goes on.

    Args:
        stacks: `"K"`: (slots, n, n) Gram matrices; `"y"`: (slots, n, k) of -1 and 1, one column a
            binary problem on the same rows; `"C"`: (slots, n, k); optionally `"alpha"`: (slots, n,
            k), a feasible start, from which f is computed anew; `"valid"` isn't used. From the
            second call on also what the one before returned.
        tol: An ended problem has f_low <= f_high + 2 tol.
        max_iter: Of each problem, at most `MAX_ITER`; -1: `MAX_ITER`.

    Returns:
        `"alpha"`: (slots, n, k); `"b"`: (slots, k), the decision is sum(alpha y K) - b; `"n_iter"`:
        (slots, k); `"gap"`: (slots, k), f_low - f_high at the end; `"objective"`: (slots, k),
        (2.1). For the next call `"_going"`: (slots, k) bool, and `"_restarts"`.
    """
    import tensorflow as tf

    K, y, C = stacks["K"], *(tf.transpose(stacks[name], [0, 2, 1]) for name in "yC")
    limit = MAX_ITER if max_iter < 0 else min(max_iter, MAX_ITER)
    ends = ends_of(y, C)
    if "alpha" in stacks:
        # f is computed anew: carried alpha with a fresh f would climb another hill.
        beta = tf.transpose(stacks["alpha"], [0, 2, 1]) * y
        f = tf.cast(f_of(K, y, beta), K.dtype)
    else:
        beta, f = tf.zeros_like(y), -y
    is_first, none = "_going" not in stacks, tf.zeros(tf.shape(y)[:2], tf.int32)
    before, restarts = (none, none) if is_first else (stacks["n_iter"], stacks["_restarts"])
    going = none < 1 if is_first else stacks["_going"]
    problem = (K, C, ends, tf.constant(tol, K.dtype), tf.constant(limit, tf.int32))

    def run(how, turns):
        arguments = (*problem, beta, f, before, going, tf.constant(turns))
        # Concrete: TensorFlow would warn of a function that is traced for many shapes.
        return _functions()[how].get_concrete_function(*arguments)(*arguments)

    def plain():
        return run("plain", PLAIN_TURNS)

    def compiled():
        return run("compiled", TURNS_PER_CALL)

    is_large = tf.shape(K)[1] >= COMPILED_ROWS
    beta, n_iter, moved = tf.cond(
        is_large | (tf.reduce_max(before) >= PLAIN_TURNS), compiled, plain
    )
    f = f_of(K, y, beta)
    best = extremes(*(tf.cast(a, f.dtype) for a in (beta, ends)), f, TIE * tol)[1]
    b, gap = (tf.cast(a, K.dtype) for a in threshold(best))
    unsolved = (-tf.reduce_sum(best, -1) > 2 * tol) & (n_iter < limit)
    again = unsolved & going & ~moved & (n_iter > before) & (restarts < MAX_RESTARTS)
    return {
        "alpha": tf.transpose(tf.abs(beta), [0, 2, 1]),
        "b": b,
        "n_iter": n_iter,
        "gap": gap,
        # sum(alpha) - 1/2 beta'K beta, and K beta = f + y.
        "objective": tf.reduce_sum(tf.cast(beta, f.dtype) * (tf.cast(y, f.dtype) - f), 2) / 2,
        "_going": unsolved & (moved | again),
        "_restarts": restarts + tf.cast(again, tf.int32),
    }


def f_of(K, y, beta):
    """(2.4), sum_j beta_j K_ji - y_i, (slots, k, n), in float64 whatever K is.

    Where values of K are large, as of features far from 0, sums of float32 have no digit right.
    """
    import tensorflow as tf

    wide, n = tf.float64, tf.shape(K)[1]
    if K.dtype == wide:
        return tf.matmul(beta, K) - y

    def body(first, sums):
        block = slice(first, first + WIDE_ROWS)
        return first + WIDE_ROWS, sums + tf.matmul(
            tf.cast(beta[:, :, block], wide), tf.cast(K[:, block], wide)
        )

    start = (tf.zeros([], tf.int32), -tf.cast(y, wide))
    # A stack of some MiB at a time, whatever the size of K.
    return tf.while_loop(lambda first, sums: first < n, body, start, parallel_iterations=1)[1]


@functools.cache
def _functions():
    """The loop as TensorFlow functions, made when first used."""
    import tensorflow as tf

    options = {"autograph": False, "reduce_retracing": True}
    return {
        "plain": tf.function(_advance, **options),
        "compiled": tf.function(_advance, jit_compile=True, **options),
    }


def _advance(K, C, ends, tol, limit, beta, f, n_iter, going, turns):
    """At most so many turns of Algorithm 1 from its step 6 on; beta = 0 gives its first steps.

    C, beta and f are (slots, k, n), the others of the state (slots, k). Returns all but f.
    """
    import tensorflow as tf

    slots, k, n = tf.unstack(tf.shape(beta))
    # One row a problem: (slots * k, n). Problem g's matrix is that of slot g // k.
    problem = tf.range(slots * k)
    C, beta, f = (tf.reshape(a, [slots * k, n]) for a in (C, beta, f))
    ends = tf.reshape(ends, [slots * k, 2, n])
    n_iter, going = (tf.reshape(a, [-1]) for a in (n_iter, going))
    all_rows, first_row = tf.reshape(K, [slots * n, n]), (problem // k * n)[:, tf.newaxis]
    places = tf.stack([problem, problem], 1)
    sides = tf.constant([1, -1], K.dtype)

    def body(turn, beta, f, n_iter, going):
        # One search a turn, and the last turn finds nothing to do: half the graph to compile.
        chosen, best = extremes(beta, ends, f, TIE * tol)
        going = going & (-tf.reduce_sum(best, 1) > 2 * tol) & (n_iter < limit)
        k_high, k_low = tf.unstack(tf.gather(all_rows, first_row + chosen), axis=1)
        # The rows' difference first: both may be large, and nearly equal.
        difference = k_high - k_low
        eta = tf.reduce_sum(sides * tf.gather(difference, chosen, batch_dims=1), 1)
        at = sides * tf.gather(beta, chosen, batch_dims=1)
        end = tf.gather(ends, chosen, batch_dims=2)
        bound = tf.reduce_max(tf.gather(C, chosen, batch_dims=1), 1)
        moved, t, at = update_pair(at, end, bound, best, eta, going, tol)
        beta = tf.tensor_scatter_nd_update(beta, tf.stack([places, chosen], 2), sides * at)
        f = f + t[:, tf.newaxis] * difference  # (2.5)
        # A step too small for the number format would be taken for ever: that one ends.
        return turn + 1, beta, f, n_iter + tf.cast(moved, tf.int32), moved

    _, beta, _, *counts = tf.while_loop(
        lambda turn, beta, f, n_iter, going: tf.reduce_any(going) & (turn < turns),
        body,
        (tf.zeros([], tf.int32), beta, f, n_iter, going),
    )
    return tf.reshape(beta, [slots, k, n]), *(tf.reshape(a, [slots, k]) for a in counts)


# A search for high and low is two for high: low's is that of the mirrored problem, of -beta and -f.
# So pairs below are (high, low), low's numbers mirrored: beta grows towards its end on both sides.


def ends_of(y, C):
    """The ends of beta = alpha y on both sides, (..., 2, n): max(0, yC), and max(0, -yC)."""
    import tensorflow as tf

    zero = tf.zeros_like(C)
    return tf.stack([tf.where(y > 0, C, zero), tf.where(y > 0, zero, C)], -2)


def extremes(beta, ends, f, tie):
    """high = argmin f over I_high and low = argmax f over I_low; the lowest index wins ties.

    I_high: beta_i can grow; I_low: it can shrink. With 0 < C_i these are Algorithm 1's sets.
    A step makes f_high and f_low equal, so ties are usual, and exact only up to rounding: values
    within `tie` count as equal, lest the steps depend on the order of sums.

    Args:
        beta, f: (..., n). ends: (..., 2, n), as `ends_of`.

    Returns:
        (..., 2) int32: high and low; and (..., 2): f_high and -f_low. Of an empty set inf, index 0.
    """
    import tensorflow as tf

    sides = tf.constant([[1], [-1]], f.dtype)
    beta, f = beta[..., tf.newaxis, :] * sides, f[..., tf.newaxis, :] * sides
    free = tf.where(beta < ends, f, tf.constant(np.inf, f.dtype))
    best, n = tf.reduce_min(free, -1, keepdims=True), tf.shape(f)[-1]
    chosen = tf.reduce_min(tf.where(free <= best + tie, tf.range(n), n), -1)
    return tf.minimum(chosen, n - 1), tf.squeeze(best, -1)


def update_pair(at, end, bound, best, eta, going, tol):
    """(2.6) and (2.7), clipped to the joint box.

    Both grow by t. A t that comes within rounding of the nearer end is set to it: else the same
    problem in another order of sums would have another free multiplier, and take other steps. That
    may move f by less than tol / 4 only, or float32 could go to and fro for ever.

    A step so small that one of the two can't hold it is none: sum(beta) = 0 would lose the other's
    part. But where it takes the other to its end, that one goes there alone. Else the problem would
    end on a pair that no step can part, while others can still go on.

    Args:
        at, end, best: (..., 2): the two multipliers, their ends, f_high and -f_low.
        bound: (...): the larger C of the two. eta: (...), K_hh + K_ll - 2 K_hl. going: (...).

    Returns:
        moved (...) bool; t (...), 0 where not moved; the new multipliers (..., 2).
    """
    import tensorflow as tf

    eps = np.finfo(eta.dtype.as_numpy_dtype).eps
    # Not above 0 where two rows are equal in feature space, or the kernel is indefinite.
    eta = tf.maximum(eta, tf.constant(1e-12 if eta.dtype == tf.float64 else 1e-6, eta.dtype))
    t, rooms = -tf.reduce_sum(best, -1) / eta, end - at
    room = tf.reduce_min(rooms, -1)
    rounding = tf.minimum(64 * eps * bound, tol / 4 / eta)
    t = tf.where(room - t <= rounding, room, t)
    # The other one is at its end, too, where what is left is the rounding of its sums.
    last = tf.minimum(rounding, ROUNDING * eps * bound)

    def grown(at, end, t):
        return tf.where(end - at - t <= last, end, at + t)

    high = grown(at[..., 0], end[..., 0], t)
    alone = rooms <= t[..., tf.newaxis]
    t = high - at[..., 0]  # as it was rounded: low moves as much
    new = tf.stack([high, grown(at[..., 1], end[..., 1], t)], -1)
    both = tf.reduce_all(new != at, -1)
    new = tf.where(alone & ~both[..., tf.newaxis], end, new)
    moved = going & (both | tf.reduce_any(alone, -1))
    return (
        moved, tf.where(moved, t, tf.zeros_like(t)), tf.where(moved[..., tf.newaxis], new, at)
    )  # fmt: skip


def threshold(best):
    """b = (f_high + f_low) / 2 and the gap f_low - f_high, of (..., 2) (f_high, -f_low).

    With one class one of the sets is empty: b is the other's, and the gap 0.
    """
    import tensorflow as tf

    f_high, f_low = best[..., 0], -best[..., 1]
    no_high, no_low = tf.math.is_inf(f_high), tf.math.is_inf(f_low)
    zero = tf.zeros_like(f_high)
    only = tf.where(no_high, tf.where(no_low, zero, f_low), f_high)
    b = tf.where(no_high | no_low, only, (f_high + f_low) / 2)
    return b, tf.where(no_high | no_low, zero, f_low - f_high)
