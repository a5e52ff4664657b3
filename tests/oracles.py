"""Float64 NumPy forms of the four optimizers, written from the algorithm boxes.

Nothing of the package is imported here: an oracle must not share a bug with what it judges.
"""

import numpy as np


def size_of(x, order=2):
    """Norm of the flattened array; hypot-like scaling lets 1e200 and 1e-200 pass."""
    flat = np.abs(np.asarray(x, np.float64)).reshape(-1)
    top = flat.max() if flat.size else 0.0
    if order == "inf" or top == 0.0:
        return top
    if order == 1:
        return flat.sum()
    return top * np.sqrt(((flat / top) ** 2).sum())


def fraction(weight_size, direction_size, adapted, phi=None, bounds=None, factor=1.0, extra=0.0):
    """The trust ratio: factor * phi(|w|) / (|u| + extra), or 1."""
    if not adapted or weight_size == 0.0 or direction_size == 0.0:
        return 1.0
    if phi is not None:
        weight_size = min(max(weight_size, phi[0]), phi[1])
    value = factor * weight_size / (direction_size + extra)
    if bounds is not None:
        value = min(max(value, bounds[0]), bounds[1])
    return value


class Lars:
    """Thesis section 5.3 (and its variants), on a list of arrays."""

    def __init__(self, momentum=0.9, weight_decay=1e-4, nesterov=False, trust_coefficient=0.001,
                 epsilon=0.0, joint_norm=False, momentum_mode="classic", weight_norm_clip=None,
                 trust_ratio_clip=None):  # fmt: skip
        self.o = {k: v for k, v in locals().items() if k != "self"}
        self.buffers = {}

    def step(self, key, w, g, rate, decayed=True, adapted=True):
        """One update of the array named `key`; returns the new weights and the ratio."""
        o = self.o
        w, g = np.float64(w), np.float64(g)
        wd = o["weight_decay"] if decayed else 0.0
        clips = {"phi": o["weight_norm_clip"], "bounds": o["trust_ratio_clip"],
                 "factor": o["trust_coefficient"]}  # fmt: skip
        decayed_gradient = g + wd * w
        old = self.buffers.get(key, np.zeros_like(w))
        if o["momentum_mode"] == "adapted":
            new = o["momentum"] * old + decayed_gradient
            move = o["momentum"] * new + decayed_gradient if o["nesterov"] else new
            r = fraction(size_of(w), size_of(move), adapted, extra=o["epsilon"], **clips)
            self.buffers[key] = new
            return w - rate * r * move, r
        if o["joint_norm"]:
            r = fraction(
                size_of(w), size_of(decayed_gradient), adapted, extra=o["epsilon"], **clips
            )
        else:
            extra = wd * size_of(w) + o["epsilon"]
            r = fraction(size_of(w), size_of(g), adapted, extra=extra, **clips)
        fresh = decayed_gradient if o["momentum_mode"] == "outside" else rate * r * decayed_gradient
        new = o["momentum"] * old + fresh
        move = o["momentum"] * new + fresh if o["nesterov"] else new
        self.buffers[key] = new
        if o["momentum_mode"] == "outside":
            move = rate * r * move
        return w - move, r


class Lamb:
    """Algorithm 16, 17 (`nesterov="m"`) or 18 (`nesterov="mv"`), epsilon outside the root."""

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-6, weight_decay=0.01,
                 bias_correction=True, weight_norm_clip=None, trust_ratio_clip=None, norm_ord=2,
                 nesterov="", momentum_decay=None):  # fmt: skip
        self.o = {k: v for k, v in locals().items() if k != "self"}
        self.moments = {}

    def _mu(self, t):
        psi = self.o["momentum_decay"]
        return self.o["beta_1"] * (1.0 if psi is None else 1.0 - 0.5 * 0.96 ** (t * psi))

    def step(self, key, w, g, rate, decayed=True, adapted=True):
        """One update of the array named `key`; returns the new weights and the ratio."""
        o = self.o
        b1, b2 = o["beta_1"], o["beta_2"]
        w, g = np.float64(w), np.float64(g)
        m, v, t = self.moments.get(key, (np.zeros_like(w), np.zeros_like(w), 0))
        t += 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        self.moments[key] = (m, v, t)
        first, second = m, v
        if o["bias_correction"]:
            first, second = m / (1 - b1**t), v / (1 - b2**t)
        if o["nesterov"]:
            to_now = np.prod([self._mu(i) for i in range(1, t + 1)])
            to_next = to_now * self._mu(t + 1)
            first = self._mu(t + 1) * m / (1 - to_next) + (1 - self._mu(t)) * g / (1 - to_now)
        if o["nesterov"] == "mv":
            second = b2 * v / (1 - b2 ** (t + 1)) + (1 - b2) * g**2 / (1 - b2**t)
        u = first / (np.sqrt(second) + o["epsilon"])
        if decayed:
            u = u + o["weight_decay"] * w
        order = o["norm_ord"]
        r = fraction(
            size_of(w, order), size_of(u, order), adapted, o["weight_norm_clip"],
            o["trust_ratio_clip"],
        )  # fmt: skip
        return w - rate * r * u, r
