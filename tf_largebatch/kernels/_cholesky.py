"""Blocked Cholesky factors in TensorFlow, of stacks of matrices and of one across replicas.

A + identity-padding = U'U is found in panels of rows, with the right-hand sides as more columns of
A: when the factor is there, so is the forward substitution. `tf.linalg.cholesky` would raise at a
matrix that isn't positive definite, on one replica while the others wait for it. So the diagonal
blocks are factored by LAPACK on the host, which tells instead.
"""

import functools

import numpy as np
from scipy.linalg import get_lapack_funcs

# Rows of a panel: large enough for matrix products, small beside what they update.
PANEL_ROWS = 128


def factor_diagonal(blocks, floor):
    """Lower factors of symmetric blocks, and which have one; the others give the identity.

    Args:
        blocks: (slots, b, b), float32 or float64; LAPACK reads the lower triangles.
        floor: (slots,): a squared pivot that isn't above it counts as zero.

    Returns:
        (slots, b, b) lower triangles, (slots,) bool.
    """
    factors, found = np.empty_like(blocks), np.empty(len(blocks), bool)
    (potrf,) = get_lapack_funcs(("potrf",), (blocks,))
    for slot, block in enumerate(blocks):
        factor, info = potrf(block, lower=True, clean=True)
        found[slot] = info == 0 and np.square(factor.diagonal()).min() > floor[slot]
        factors[slot] = factor if found[slot] else np.eye(len(block), dtype=blocks.dtype)
    return factors, found


def factor_panel(rows, floor):
    """The panel of U whose rows of A, less all earlier panels' products, are `rows`.

    Args:
        rows: (slots, b, width) tensor; its first b columns are the diagonal block.
        floor: (slots,) tensor: see `factor_diagonal`.

    Returns:
        (slots, b, width) panel, upper triangular at its left; (slots,) bool, whether there is one.
    """
    import tensorflow as tf

    b = rows.shape[1]
    lower, found = tf.numpy_function(
        factor_diagonal, [rows[:, :, :b], floor], [rows.dtype, tf.bool], stateful=False
    )
    lower.set_shape([rows.shape[0], b, b])
    found.set_shape(rows.shape[:1])
    rest = tf.linalg.triangular_solve(lower, rows[:, :, b:], lower=True)
    return tf.concat([tf.linalg.matrix_transpose(lower), rest], axis=2), found


def solve_stack(stacks):
    """Solves K x = y for each matrix of a stack: a solver for `_engine.solve_parts`.

    Args:
        stacks: "K": (slots, n, n) symmetric, zeros where padded; "y": (slots, n, n_targets);
            "valid": bool (slots, n), false where padded.

    Returns:
        "dual_coef": (slots, n, n_targets); "is_definite": bool (slots,), false where K has no
        Cholesky factor in working precision and the solution means nothing.
    """
    shapes = tuple(tuple(stacks[name].shape) for name in ("K", "y"))
    return _stack_solver(*shapes, stacks["K"].dtype)(stacks["K"], stacks["y"], stacks["valid"])


@functools.lru_cache(maxsize=64)
def _stack_solver(matrix_shape, targets_shape, dtype):
    """One graph a shape. Concrete: TensorFlow warns of a function that is traced for many."""
    import tensorflow as tf

    n = matrix_shape[1]
    eps = np.finfo(dtype.as_numpy_dtype).eps

    @tf.function(autograph=False)
    def solve(K, y, valid):
        padding = tf.cast(~valid, dtype)
        floor = n * eps * tf.reduce_max(tf.linalg.diag_part(K), axis=1)
        panels, found = [], tf.ones(matrix_shape[:1], tf.bool)
        for start in range(0, n, PANEL_ROWS):
            b = min(PANEL_ROWS, n - start)
            here = slice(start, start + b)
            # Else the slices of all steps would be taken as soon as they can be, at once.
            with tf.control_dependencies([panel for _, panel in panels[-1:]]):
                diagonal = K[:, here, here] + tf.linalg.diag(padding[:, here])
                rows = tf.concat([diagonal, K[:, here, start + b :], y[:, here]], axis=2)
                if panels:
                    # The columns from `start` on of all panels so far, one below the other.
                    above = tf.concat([p[:, :, start - s :] for s, p in panels], axis=1)
                    rows -= tf.matmul(above[:, :, :b], above, transpose_a=True)
            panel, has_factor = factor_panel(rows, floor)
            panels.append((start, panel))
            found &= has_factor
        x = y[:, n:]
        for _, panel in reversed(panels):
            with tf.control_dependencies([x]):
                x = tf.concat([back_substitute(panel, x), x], axis=1)
        return {"dual_coef": x, "is_definite": found}

    return solve.get_concrete_function(
        tf.TensorSpec(matrix_shape, dtype),
        tf.TensorSpec(targets_shape, dtype),
        tf.TensorSpec(matrix_shape[:2], tf.bool),
    )


def back_substitute(panel, below):
    """The rows of x that belong to a panel [U | z], from all rows of x below them."""
    import tensorflow as tf

    b, n_below = panel.shape[1], tf.shape(below)[1]
    right = panel[:, :, b + n_below :] - tf.matmul(panel[:, :, b : b + n_below], below)
    return tf.linalg.triangular_solve(panel[:, :, :b], right, lower=False)
