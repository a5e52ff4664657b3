"""The update rules of LARS, LAMB, N-LAMB and NN-LAMB: pure functions in the papers' letters.

    w weights    g gradient    b, m momentum    v second moment    d, u direction
    r trust ratio    phi(z) = clip(z, *weight_norm_clip)    t number of this update, from 1

Tensors are of one dtype, float32 or wider. `adapt` and `weight_decay` are Python values, resolved
for each variable beforehand. Every rule returns the new weights, the new slots and the trust ratio.
With `stacked=True` the tensors hold several variables of one shape, the first axis counting them:
norms and ratios are then each variable's own.

References: You, Gitman, Ginsburg 2017 (LARS, arXiv 1708.03888); You et al. 2020 (LAMB, arXiv
1904.00962); You 2020, thesis, Algorithms 15-18; Dozat 2016 (the Nesterov forms). Where we depart:
epsilon stands outside the root; an undefined ratio (a zero norm) is 1, so that zero-initialised
variables move; Algorithm 15's factor (1 - beta_1) is left out: the ratio cancels it, but where a
variable isn't adapted, epsilon isn't 0 or something is clipped.
"""

import math
from typing import Any, NamedTuple

import keras
from keras import ops


class TrustRatio(NamedTuple):
    """A ratio kept as a fraction: w = 1e-25, g = 1e25 take a sound step, though 1e-50 is 0."""

    numerator: Any
    denominator: Any

    @property
    def value(self):
        """The ratio itself, a scalar tensor."""
        return self.numerator / self.denominator

    def step(self, lr, u):
        """The step lr * r * u."""
        return (lr * self.numerator) * (u / self.denominator)


UNADAPTED = TrustRatio(1.0, 1.0)
# XLA on CPUs adds a fused product element by element; eight sums side by side it can vectorise.
# Elsewhere the parts gain nothing, and cost traffic where JAX has cut the weights.
_IN_PARTS = keras.backend.backend() == "tensorflow"


def norm(x, norm_ord=2, stacked=False):
    """|x|: the 1-, 2- or "inf"-norm of the flattened tensor, a scalar.

    Of each row if `stacked`: the shape is then x's with ones, but for the first axis.

    >>> float(norm(ops.convert_to_tensor([[3e25, 0.0], [0.0, 4e25]])) / 1e25)
    5.0
    >>> rows = ops.convert_to_tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> ops.convert_to_numpy(norm(rows, stacked=True)).tolist()
    [[5.0], [2.0]]
    """
    over = {"axis": tuple(range(1, len(x.shape))), "keepdims": True} if stacked else {}
    if norm_ord == 1:
        return ops.sum(ops.abs(x), **over)
    if norm_ord == "inf":
        return ops.max(ops.abs(x), initial=0, **over)
    squares = ops.sum(x * x, **over) if stacked else _sum_of_squares(x)
    return _sound_root(squares, lambda: _rescaled_norm(x, **over))


def global_norm(tensors):
    """The 2-norm of all elements of these tensors together, of the widest dtype among them.

    >>> float(global_norm([ops.convert_to_tensor([3.0]), ops.convert_to_tensor([[4.0]])]))
    5.0
    """
    widest = keras.backend.result_type(*(x.dtype for x in tensors))
    squares = ops.stack([ops.cast(_sum_of_squares(x), widest) for x in tensors])

    def rescaled():
        return _rescaled_norm(ops.stack([ops.cast(_rescaled_norm(x), widest) for x in tensors]))

    return _sound_root(ops.sum(squares), rescaled)


def _sound_root(squares, rescaled):
    # One pass, but for norms whose squares leave float32's accurate range: those, zero and NaN.
    sound = ops.logical_and(squares > 1e-20, ops.isfinite(squares))
    root = ops.sqrt(squares)
    return ops.cond(ops.all(sound), lambda: root, lambda: ops.where(sound, root, rescaled()))


def _sum_of_squares(x):
    rows = math.prod(x.shape[:-1])
    if not _IN_PARTS or rows < 8 or rows * x.shape[-1] < 2**14:
        return ops.sum(x * x)
    x = ops.reshape(x, (rows, x.shape[-1]))
    height = rows // 8
    parts = [x[i * height : (i + 1) * height] for i in range(8)]
    total, rest = ops.sum(sum(part * part for part in parts)), x[8 * height :]
    return total + ops.sum(rest * rest) if rows % 8 else total


def _rescaled_norm(x, **over):
    largest = ops.max(ops.abs(x), initial=0, **over)
    unit = ops.where(ops.logical_and(largest > 0, ops.isfinite(largest)), largest, 1)
    return largest * ops.sqrt(ops.sum(ops.square(x / unit), **over))


def trust_ratio(
    w_norm, u_norm, *, coefficient=1.0, offset=0.0, weight_norm_clip=None, trust_ratio_clip=None
):
    """r = coefficient * phi(|w|) / (|u| + offset), clipped; 1 if |w| or |u| is zero.

    The clips are pairs (low, high) or None. A NaN norm gives a NaN ratio: it must not pass for 1.

    >>> r = trust_ratio(ops.convert_to_tensor(5.0), ops.convert_to_tensor(0.5))
    >>> float(r.value)
    10.0
    """
    numerator = coefficient * (ops.clip(w_norm, *weight_norm_clip) if weight_norm_clip else w_norm)
    denominator = u_norm + offset
    if trust_ratio_clip:
        low, high = trust_ratio_clip
        numerator = ops.clip(numerator, low * denominator, high * denominator)
    undefined = ops.logical_or(ops.equal(w_norm, 0), ops.equal(u_norm, 0))
    return TrustRatio(ops.where(undefined, 1, numerator), ops.where(undefined, 1, denominator))


def lars_update(
    w, g, b, lr, *, momentum, weight_decay, trust_coefficient, epsilon, nesterov=False,
    joint_norm=False, momentum_mode="classic", adapt=True, stacked=False, **clips,
):  # fmt: skip
    """LARS: thesis 5.3 ("classic", "outside") or Algorithm 15 ("adapted"). Returns w, b, r."""
    mu, wd = momentum, weight_decay
    d = g + wd * w

    def ratio(u, decay=0.0):
        if not adapt:
            return UNADAPTED
        w_norm = norm(w, stacked=stacked)
        offset = decay * w_norm + epsilon
        u_norm = norm(u, stacked=stacked)
        return trust_ratio(w_norm, u_norm, coefficient=trust_coefficient, offset=offset, **clips)

    if momentum_mode == "adapted":
        b = mu * b + d
        u = mu * b + d if nesterov else b
        r = ratio(u)
        return w - r.step(lr, u), b, r
    # The text prints beta*|grad w| as the second term; beta*|w| is meant (and implemented).
    r = ratio(d) if joint_norm else ratio(g, decay=wd)
    if momentum_mode == "outside":
        b = mu * b + d
        return w - r.step(lr, mu * b + d if nesterov else b), b, r
    step = r.step(lr, d)
    b = mu * b + step
    return w - (mu * b + step if nesterov else b), b, r


def lamb_update(w, g, m, v, t, lr, *, beta_1, beta_2, bias_correction=True, **layerwise):
    """LAMB: thesis Algorithm 16. Returns w, m, v, r. `layerwise`: see _layerwise_step."""
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g * g
    m_hat, v_hat = m, v
    if bias_correction:
        m_hat, v_hat = m / _one_minus_power(beta_1, t, m), v / _one_minus_power(beta_2, t, v)
    w, r = _layerwise_step(w, m_hat, v_hat, lr, **layerwise)
    return w, m, v, r


def nesterov_momentum(t, beta_1, momentum_decay):
    """mu_t: beta_1, or Dozat's beta_1 * (1 - 0.5 * 0.96^(t * psi)) with psi = momentum_decay."""
    if momentum_decay is None:
        return beta_1 * ops.ones_like(t)
    return beta_1 * (1 - 0.5 * ops.exp(math.log(0.96) * momentum_decay * t))


def nlamb_update(
    w, g, m, v, t, lr, mu, mu_next, mu_product, *, beta_1, beta_2, nesterov_v=False, **layerwise
):
    """N-LAMB: thesis Algorithm 17; NN-LAMB, Algorithm 18, with `nesterov_v`. Returns w, m, v, r.

    mu, mu_next: mu_t and mu_(t+1) of nesterov_momentum; mu_product: mu_1 * ... * mu_t.
    """
    m = beta_1 * m + (1 - beta_1) * g
    v = beta_2 * v + (1 - beta_2) * g * g
    m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu) * g / (1 - mu_product)
    if nesterov_v:
        v_hat = beta_2 * v / _one_minus_power(beta_2, t + 1, v)
        v_hat = v_hat + (1 - beta_2) * g * g / _one_minus_power(beta_2, t, v)
    else:
        # Adam's, as the text intends; Algorithm 17's printed form drops a term.
        v_hat = v / _one_minus_power(beta_2, t, v)
    w, r = _layerwise_step(w, m_hat, v_hat, lr, **layerwise)
    return w, m, v, r


def nnlamb_update(*args, **options):
    """NN-LAMB: thesis Algorithm 18, nlamb_update with Nesterov's form of v as well."""
    return nlamb_update(*args, nesterov_v=True, **options)


def _layerwise_step(
    w, m_hat, v_hat, lr, *, epsilon, weight_decay, adapt=True, norm_ord=2, stacked=False, **clips
):
    """w - lr * phi(|w|)/|u| * u with u = m^/(sqrt(v^) + epsilon) + weight_decay * w; and r."""
    u = m_hat / (ops.sqrt(v_hat) + epsilon) + weight_decay * w
    r = UNADAPTED
    if adapt:
        w_norm, u_norm = (norm(x, norm_ord, stacked) for x in (w, u))
        r = trust_ratio(w_norm, u_norm, **clips)
    return w - r.step(lr, u), r


def _one_minus_power(beta, t, like):
    """1 - beta^t without the cancellation that costs 1 - 0.999^1 its last three digits."""
    return -ops.expm1((math.log(beta) if beta else -math.inf) * ops.cast(t, like.dtype))
