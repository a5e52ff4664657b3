"""SMO in plain float64 NumPy, from the thesis's Algorithm 1: an oracle that shares nothing."""

import numpy as np


def rbf(X, Z, gamma):
    return np.exp(-gamma * ((X[:, None, :] - Z[None, :, :]) ** 2).sum(2))


def smo(K, y, C, *, tol=1e-3, max_iter=10**6, alpha=None):
    """alpha, b, f, and the pairs (high, low) in the order in which they were chosen."""
    m = len(y)
    C = np.broadcast_to(np.asarray(C, float), m)
    alpha = np.zeros(m) if alpha is None else alpha.astype(float)
    f = np.array([sum(alpha * y * K[i]) - y[i] for i in range(m)])
    pairs = []
    while True:
        free = (alpha > 0) & (alpha < C)
        up = (free | ((y > 0) & (alpha == 0)) | ((y < 0) & (alpha == C))) & (C > 0)
        down = (free | ((y > 0) & (alpha == C)) | ((y < 0) & (alpha == 0))) & (C > 0)
        # A step makes two values of f equal up to rounding: ties are usual.
        high = int(np.flatnonzero(up & (f <= f[up].min() + 1e-6 * tol))[0])
        low = int(np.flatnonzero(down & (f >= f[down].max() - 1e-6 * tol))[0])
        if f[low] <= f[high] + 2 * tol or len(pairs) == max_iter:
            return alpha, (f[high] + f[low]) / 2, f, pairs
        pairs.append((high, low))
        eta = K[high, high] + K[low, low] - 2 * K[high, low]
        old_high, old_low, same = alpha[high], alpha[low], y[high] * y[low]
        if same > 0:
            ends = max(0, old_low + old_high - C[high]), min(C[low], old_low + old_high)
        else:
            ends = max(0, old_low - old_high), min(C[low], C[high] + old_low - old_high)
        new_low = np.clip(old_low + y[low] * (f[high] - f[low]) / max(eta, 1e-12), *ends)
        new_high = old_high - same * (new_low - old_low)
        # Sums of bounds are exact only up to rounding.
        alpha[high], alpha[low] = (
            end if abs(a - end) < 1e-13 * C[i] else a
            for i, a in ((high, new_high), (low, new_low))
            for end in [0.0 if a < C[i] / 2 else C[i]]
        )
        f += (alpha[high] - old_high) * y[high] * K[high]
        f += (alpha[low] - old_low) * y[low] * K[low]


def objective(K, y, alpha):
    v = alpha * y
    return alpha.sum() - v @ K @ v / 2
