"""How well the blocks of a partition stand for the whole kernel matrix: thesis, section 2.5.

A partition D_1 ... D_p replaces K by its diagonal blocks K_1 ... K_p. These are the measures and
bounds by which the thesis argues for K-means, and its Equation 2.14.

Blocks are some of the whole's entries, so that their F-norm is never above the whole's. The
thesis's Table 2.19 prints it above, in all six rows (gamma 20: 154.279709 against 154.239899), and
beside it an error of 0.0 %. That can't be one matrix in two partitions: whatever these norms are
of, they are no measurement of Equation 2.14, and none is reproduced here.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse
from sklearn.utils.validation import check_consistent_length, column_or_1d

# Table 2.19 as printed: gamma, F-norm of the whole, of random blocks, of K-means' blocks.
TABLE_2_19 = (
    (20, 154.239899, 98.661888, 154.279709),
    (30, 117.745422, 85.005592, 117.765900),
    (40, 100.739906, 79.307716, 100.755119),
    (50, 91.576241, 76.469208, 91.585464),
    (60, 86.123299, 74.869514, 86.129494),
    (70, 82.630066, 73.882416, 82.635559),
)


class BlockNorm(NamedTuple):
    """F-norms of a kernel matrix and of its diagonal blocks."""

    whole: float
    blocks: float

    @property
    def error(self):
        """|whole - blocks| / whole: Equation 2.14."""
        return abs(self.whole - self.blocks) / self.whole

    @property
    def distance(self):
        """F-norm of what the blocks leave out, over the whole's.

        The norms' difference hides much of it: where the error is 0.01 this is 0.14.
        """
        return math.sqrt(max(0.0, 1 - (self.blocks / self.whole) ** 2))


def block_norm(K, labels):
    """F-norms of K and of the diagonal blocks that a partition keeps.

    Args:
        K: (n_samples, n_samples), dense.
        labels: (n_samples,) the part of each sample.

    Returns:
        A `BlockNorm`.

    >>> K = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> round(block_norm(K, [0, 1]).error, 3), round(block_norm(K, [0, 1]).distance, 3)
    (0.106, 0.447)
    """
    kept = sum(np.square(block, dtype=np.float64).sum() for block in _blocks(K, labels))
    # One row at a time: a square of K would double the memory.
    whole = sum(float(np.square(row, dtype=np.float64).sum()) for row in np.asarray(K))
    return BlockNorm(math.sqrt(whole), math.sqrt(kept))


def k_means_objective(X, labels):
    """J_kmeans, the squared distances of all samples from their part's mean, summed.

    Args:
        X: (n_samples, n_features), dense or CSR.
        labels: (n_samples,) the part of each sample.

    >>> k_means_objective(np.array([[0.0], [2.0], [9.0]]), [0, 0, 1])
    2.0
    """
    labels = _codes(labels)
    check_consistent_length(X, labels)
    total = 0.0
    for part in range(labels.max() + 1):
        rows = X[labels == part]
        if scipy.sparse.issparse(rows):
            mean = np.asarray(rows.mean(axis=0)).ravel()
            total += rows.multiply(rows).sum() - rows.shape[0] * (mean @ mean)
        else:
            rows = np.asarray(rows, dtype=np.float64)
            total += np.square(rows - rows.mean(axis=0)).sum()
    return float(total)


def j_1(K, labels):
    """J_1, the sum over parts of the block's sum over the part's size; for a linear kernel.

    Then |X|_F² - J_1 = J_kmeans: K-means' clusters are the parts with the largest J_1.

    Args:
        K: (n_samples, n_samples), the values x_i'x_j.
        labels: (n_samples,) the part of each sample.

    >>> X = np.array([[0.0], [2.0], [9.0]])
    >>> float((X**2).sum() - j_1(X @ X.T, [0, 0, 1]))
    2.0
    """
    return float(sum(block.sum(dtype=np.float64) / len(block) for block in _blocks(K, labels)))


def j_2(K, labels):
    """J_2, the sum over parts of the block's squared F-norm over the part's size.

    Args:
        K: (n_samples, n_samples), the values of a Gaussian kernel.
        labels: (n_samples,) the part of each sample.

    >>> j_2(np.array([[1.0, 0.5], [0.5, 1.0]]), [0, 0])
    1.25
    """
    return float(
        sum(np.square(block, dtype=np.float64).sum() / len(block) for block in _blocks(K, labels))
    )


def j_2_lower_bound(n_samples, gamma, k_means):
    """What J_2 isn't below, for exp(-gamma |x - x'|²): m/2 - 2 R² J_kmeans, R² = 2 gamma / e.

    R bounds the slope of exp(-gamma d²) in the distance d, which is steepest at 1 / sqrt(2 gamma).

    Args:
        n_samples: m.
        gamma: Of the Gaussian kernel.
        k_means: J_kmeans of the same parts, from `k_means_objective`.

    >>> round(j_2_lower_bound(100, 0.5, 20.0), 3)
    35.285
    """
    return n_samples / 2 - 2 * (2 * gamma / math.e) * k_means


def _codes(labels):
    return np.unique(column_or_1d(labels), return_inverse=True)[1]


def _blocks(K, labels):
    """The diagonal blocks of K, one a part."""
    K, labels = np.asarray(K), _codes(labels)
    check_consistent_length(K, labels)
    for part in range(labels.max() + 1):
        rows = np.flatnonzero(labels == part)
        yield K[np.ix_(rows, rows)]
