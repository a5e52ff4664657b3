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
# Values of f that differ by less than this share of tol are equal.
TIE = 1e-6
# Of a problem without a limit, as LIBSVM's.
MAX_ITER = 10_000_000


def smo(stacks, *, tol, max_iter):
    """Solves a stack; a `solve` of `_engine.solve_parts`.

    Args:
        stacks: `"K"`: (slots, n, n) Gram matrices; `"y"`: (slots, n, k) of -1 and 1, one column a
            binary problem on the same rows; `"C"`: (slots, n, k); optionally `"alpha"`: (slots, n,
            k), a feasible start, from which f is computed anew; `"valid"` isn't used.
        tol: An ended problem has f_low <= f_high + 2 tol.
        max_iter: Of each problem; -1: `MAX_ITER`.

    Returns:
        `"alpha"`: (slots, n, k); `"b"`: (slots, k), the decision is sum(alpha y K) - b; `"n_iter"`:
        (slots, k); `"gap"`: (slots, k), f_low - f_high at the end; `"objective"`: (slots, k),
        (2.1).
    """
    import tensorflow as tf

    K, y, C = stacks["K"], *(tf.transpose(stacks[name], [0, 2, 1]) for name in "yC")
    run, limit = _functions(), tf.constant(MAX_ITER if max_iter < 0 else max_iter, tf.int32)
    if "alpha" in stacks:
        # f is computed anew: carried alpha with a fresh f would climb another hill.
        alpha = tf.transpose(stacks["alpha"], [0, 2, 1])
        f = tf.matmul(alpha * y, K) - y  # (2.4)
    else:
        alpha, f = tf.zeros_like(y), -y
    ends = tf.zeros_like(y[:, :, 0])
    state = (alpha, f, tf.zeros(tf.shape(ends), tf.int32), ends > -1, ends, ends)
    problem = (K, y, C, tf.constant(tol, K.dtype), limit)
    state = run["plain"](*problem, *state, tf.constant(PLAIN_TURNS))
    alpha, f, n_iter, _, f_high, f_low = tf.cond(
        tf.reduce_any(state[3]),
        lambda: run["compiled"](*problem, *state, limit + 1),
        lambda: state,
    )
    b, gap = threshold(f_high, f_low)
    return {
        "alpha": tf.transpose(alpha, [0, 2, 1]),
        "b": b,
        "n_iter": n_iter,
        "gap": gap,
        # sum(alpha) - 1/2 v'Kv with v = alpha y, and Kv = f + y.
        "objective": tf.reduce_sum(alpha - alpha * y * f, 2) / 2,
    }


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
        moved, d_high, d_low, (a_high, a_low) = update_pair(
            pick(alpha, high), pick(alpha, low), pick(y, high), pick(y, low), pick(C, high),
            pick(C, low), f_high, f_low,
            pick(diagonal, high) + pick(diagonal, low) - 2 * pick(k_high, low), going, tol,
        )  # fmt: skip
        alpha = tf.where(index == high[:, tf.newaxis], a_high[:, tf.newaxis], alpha)
        alpha = tf.where(index == low[:, tf.newaxis], a_low[:, tf.newaxis], alpha)
        f = f + d_high[:, tf.newaxis] * k_high + d_low[:, tf.newaxis] * k_low  # (2.5)
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
    """(2.6) and (2.7), clipped to the joint box: (moved, dy_high, dy_low, (a_high, a_low)).

    Along the direction alpha_high += y_high t, alpha_low -= y_low t the box is two ends for t. A
    multiplier that comes within rounding of its end is set to the end: else the same problem in
    another order of sums would have another free multiplier, and take other steps. That may move f
    by less than tol / 4 only, or float32 could go to and fro for ever.
    """
    import tensorflow as tf

    eps = np.finfo(eta.dtype.as_numpy_dtype).eps
    tiny = tf.constant(1e-12 if eta.dtype == tf.float64 else 1e-6, eta.dtype)
    # Not above 0 where two rows are equal in feature space, or the kernel is indefinite.
    t = (f_low - f_high) / tf.where(eta > tiny, eta, tiny)
    room_high = tf.where(y_high > 0, C_high - a_high, a_high)
    room_low = tf.where(y_low > 0, a_low, C_low - a_low)
    zero = tf.zeros_like(t)
    t = tf.where(going, tf.minimum(t, tf.minimum(room_high, room_low)), zero)
    rounding = tf.minimum(64 * eps * tf.maximum(C_high, C_low), tol / (4 * tf.maximum(eta, tiny)))
    end_high = tf.where(y_high > 0, C_high, zero)
    end_low = tf.where(y_low > 0, zero, C_low)
    new_high = tf.where(going & (room_high - t <= rounding), end_high, a_high + y_high * t)
    new_low = tf.where(going & (room_low - t <= rounding), end_low, a_low - y_low * t)
    moved = going & ((new_high != a_high) | (new_low != a_low))
    return (
        moved,
        tf.where(moved, (new_high - a_high) * y_high, zero),
        tf.where(moved, (new_low - a_low) * y_low, zero),
        (new_high, new_low),
    )


def threshold(f_high, f_low):
    """b = (b_high + b_low) / 2 and the gap; with one class the other side's set is empty."""
    import tensorflow as tf

    no_high, no_low = tf.math.is_inf(f_high), tf.math.is_inf(f_low)
    zero = tf.zeros_like(f_high)
    only = tf.where(no_high, tf.where(no_low, zero, f_low), f_high)
    b = tf.where(no_high | no_low, only, (f_high + f_low) / 2)
    return b, tf.where(no_high | no_low, zero, f_low - f_high)
