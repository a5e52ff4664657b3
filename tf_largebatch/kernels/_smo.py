"""SMO (thesis, Algorithm 1) for a stack of problems, in one `tf.while_loop`.

    maximize  sum(alpha) - 1/2 sum_ij alpha_i alpha_j y_i y_j K_ij,
    0 <= alpha_i <= C_i,  sum(alpha_i y_i) = 0                           (2.1), (2.2)

All problems of a stack step together; one that has ended stands still. Padding and samples that
take no part have C_i = 0: they are never chosen.
"""

import functools

import numpy as np

# An iteration takes TensorFlow 200 microseconds and XLA, up to some thousands of rows, 5 to 30; but
# XLA compiles for a second or more, once a shape. So it takes over where that pays.
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
    run, limit = _functions(), MAX_ITER if max_iter < 0 else min(max_iter, MAX_ITER)
    if "alpha" in stacks:
        # f is computed anew: carried alpha with a fresh f would climb another hill.
        alpha = tf.transpose(stacks["alpha"], [0, 2, 1])
        f = tf.cast(f_of(K, y, alpha), K.dtype)
    else:
        alpha, f = tf.zeros_like(y), -y
    ends, is_first = tf.zeros_like(y[:, :, 0]), "_going" not in stacks
    before = tf.zeros(tf.shape(ends), tf.int32) if is_first else stacks["n_iter"]
    restarts = tf.zeros_like(before) if is_first else stacks["_restarts"]
    going = ends > -1 if is_first else stacks["_going"]
    state = (alpha, f, before, going, ends, ends)
    problem = (K, y, C, tf.constant(tol, K.dtype), tf.constant(limit, tf.int32))

    def plain():
        return run["plain"](*problem, *state, tf.constant(PLAIN_TURNS))

    def compiled():
        return run["compiled"](*problem, *state, tf.constant(TURNS_PER_CALL))

    if is_first:
        alpha, _, n_iter, moved, *_ = plain()
    else:
        alpha, _, n_iter, moved, *_ = tf.cond(tf.reduce_max(before) < PLAIN_TURNS, plain, compiled)
    f = f_of(K, y, alpha)
    rows = (tf.reshape(a, [-1, tf.shape(y)[2]]) for a in (y, C, alpha, f))
    f_high, f_low = (tf.reshape(a, tf.shape(ends)) for a in extremes(*rows, TIE * tol)[2:])
    b, gap = (tf.cast(a, K.dtype) for a in threshold(f_high, f_low))
    unsolved = (f_low > f_high + 2 * tol) & (n_iter < limit)
    signed = tf.cast(alpha * y, f.dtype)
    again = unsolved & going & ~moved & (n_iter > before) & (restarts < MAX_RESTARTS)
    return {
        "alpha": tf.transpose(alpha, [0, 2, 1]),
        "b": b,
        "n_iter": n_iter,
        "gap": gap,
        # sum(alpha) - 1/2 v'Kv with v = alpha y, and Kv = f + y.
        "objective": tf.reduce_sum(signed * (tf.cast(y, f.dtype) - f), 2) / 2,
        "_going": unsolved & (moved | again),
        "_restarts": restarts + tf.cast(again, tf.int32),
    }


def f_of(K, y, alpha):
    """(2.4), sum_j alpha_j y_j K_ji - y_i, (slots, k, n), in float64 whatever K is.

    Where values of K are large, as of features far from 0, sums of float32 have no digit right.
    """
    import tensorflow as tf

    v, wide, n = alpha * y, tf.float64, tf.shape(K)[1]
    if K.dtype == wide:
        return tf.matmul(v, K) - y

    def body(first, sums):
        block = slice(first, first + WIDE_ROWS)
        return first + WIDE_ROWS, sums + tf.matmul(
            tf.cast(v[:, :, block], wide), tf.cast(K[:, block], wide)
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


def _advance(K, y, C, tol, limit, alpha, f, n_iter, going, f_high, f_low, turns):
    """At most so many turns of Algorithm 1 from its step 6 on; alpha = 0 gives its first steps.

    y, C, alpha and f are (slots, k, n), the others of the state (slots, k).
    """
    import tensorflow as tf

    shape = tf.shape(y)
    slots, k, n = tf.unstack(shape)
    # One row a problem: (slots * k, n). Problem g's matrix is that of slot g // k.
    y, C, alpha, f = (tf.reshape(a, [slots * k, n]) for a in (y, C, alpha, f))
    n_iter, going, f_high, f_low = (tf.reshape(a, [-1]) for a in (n_iter, going, f_high, f_low))
    all_rows = tf.reshape(K, [slots * n, n])
    first_row = (tf.range(slots * k) // k) * n
    diagonal = tf.gather(tf.linalg.diag_part(K), tf.range(slots * k) // k)
    index = tf.range(n)[tf.newaxis]

    def pick(a, i):
        return tf.gather(a, i, batch_dims=1)

    def body(turn, alpha, f, n_iter, going, f_high, f_low):
        # One search a turn, and the last turn finds nothing to do: half the graph to compile.
        high, low, f_high, f_low = extremes(y, C, alpha, f, TIE * tol)
        going = going & (f_low > f_high + 2 * tol) & (n_iter < limit)
        k_high = tf.gather(all_rows, first_row + high)
        k_low = tf.gather(all_rows, first_row + low)
        moved, t, (a_high, a_low) = update_pair(
            pick(alpha, high), pick(alpha, low), pick(y, high), pick(y, low), pick(C, high),
            pick(C, low), f_high, f_low,
            pick(diagonal, high) + pick(diagonal, low) - 2 * pick(k_high, low), going, tol,
        )  # fmt: skip
        alpha = tf.where(index == high[:, tf.newaxis], a_high[:, tf.newaxis], alpha)
        alpha = tf.where(index == low[:, tf.newaxis], a_low[:, tf.newaxis], alpha)
        # (2.5). The rows' difference first: both may be large, and nearly equal.
        f = f + t[:, tf.newaxis] * (k_high - k_low)
        # A step too small for the number format would be taken for ever: that one ends.
        return turn + 1, alpha, f, n_iter + tf.cast(moved, tf.int32), moved, f_high, f_low

    _, alpha, f, *rest = tf.while_loop(
        lambda turn, alpha, f, n_iter, going, f_high, f_low: tf.reduce_any(going) & (turn < turns),
        body,
        (tf.zeros([], tf.int32), alpha, f, n_iter, going, f_high, f_low),
    )
    rest = [tf.reshape(a, [slots, k]) for a in rest]
    return tf.reshape(alpha, shape), tf.reshape(f, shape), *rest


def extremes(y, C, alpha, f, tie):
    """high = argmin f over I_high and low = argmax f over I_low; the lowest index wins ties.

    I_high: alpha_i y_i can grow; I_low: it can shrink. With 0 < C_i these are Algorithm 1's sets.
    A step makes f_high and f_low equal, so ties are usual, and exact only up to rounding: values
    within `tie` count as equal, lest the steps depend on the order of sums.
    An empty set has f_high = inf or f_low = -inf, and index 0.
    """
    import tensorflow as tf

    positive, above_0, below_C = y > 0, alpha > 0, alpha < C
    infinity = tf.constant(np.inf, f.dtype)
    f_up = tf.where((positive & below_C) | (~positive & above_0), f, infinity)
    f_down = tf.where((positive & above_0) | (~positive & below_C), f, -infinity)
    f_high, f_low = tf.reduce_min(f_up, 1), tf.reduce_max(f_down, 1)
    index, n = tf.range(tf.shape(f)[1])[tf.newaxis], tf.shape(f)[1]
    high = tf.reduce_min(tf.where(f_up <= (f_high + tie)[:, tf.newaxis], index, n), 1)
    low = tf.reduce_min(tf.where(f_down >= (f_low - tie)[:, tf.newaxis], index, n), 1)
    return tf.minimum(high, n - 1), tf.minimum(low, n - 1), f_high, f_low


def update_pair(a_high, a_low, y_high, y_low, C_high, C_low, f_high, f_low, eta, going, tol):
    """(2.6) and (2.7), clipped to the joint box: (moved, t, (a_high, a_low)).

    Along the direction alpha_high += y_high t, alpha_low -= y_low t the box is two ends for t. A t
    that comes within rounding of the nearer end is set to it: else the same problem in another
    order of sums would have another free multiplier, and take other steps. That may move f by less
    than tol / 4 only, or float32 could go to and fro for ever.
    """
    import tensorflow as tf

    eps = np.finfo(eta.dtype.as_numpy_dtype).eps
    tiny = tf.constant(1e-12 if eta.dtype == tf.float64 else 1e-6, eta.dtype)
    # Not above 0 where two rows are equal in feature space, or the kernel is indefinite.
    t = (f_low - f_high) / tf.where(eta > tiny, eta, tiny)
    room_high = tf.where(y_high > 0, C_high - a_high, a_high)
    room_low = tf.where(y_low > 0, a_low, C_low - a_low)
    room, zero = tf.minimum(room_high, room_low), tf.zeros_like(t)
    rounding = tf.minimum(64 * eps * tf.maximum(C_high, C_low), tol / (4 * tf.maximum(eta, tiny)))
    t = tf.where(going, tf.where(room - t <= rounding, room, t), zero)
    # The other one is at its end, too, where what is left is the rounding of its sums.
    last = tf.minimum(rounding, ROUNDING * eps * tf.maximum(C_high, C_low))
    end_high = tf.where(y_high > 0, C_high, zero)
    end_low = tf.where(y_low > 0, zero, C_low)
    new_high = tf.where(going & (room_high - t <= last), end_high, a_high + y_high * t)
    t = (new_high - a_high) * y_high  # as it was rounded: alpha_low moves as much
    new_low = tf.where(going & (room_low - t <= last), end_low, a_low - y_low * t)
    # Of a step that is too small for one of the two, sum(alpha y) = 0 would lose the other's part.
    moved = going & (new_high != a_high) & (new_low != a_low)
    new_high, new_low = tf.where(moved, new_high, a_high), tf.where(moved, new_low, a_low)
    return moved, tf.where(moved, t, zero), (new_high, new_low)


def threshold(f_high, f_low):
    """b = (b_high + b_low) / 2 and the gap; with one class the other side's set is empty."""
    import tensorflow as tf

    no_high, no_low = tf.math.is_inf(f_high), tf.math.is_inf(f_low)
    zero = tf.zeros_like(f_high)
    only = tf.where(no_high, tf.where(no_low, zero, f_low), f_high)
    b = tf.where(no_high | no_low, only, (f_high + f_low) / 2)
    return b, tf.where(no_high | no_low, zero, f_low - f_high)
