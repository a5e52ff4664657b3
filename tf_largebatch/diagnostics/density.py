"""How dense gradient, noise and curvature are over the layers: LARS against SGD by their bounds."""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_largebatch.diagnostics.batch_loss import BatchLoss
from tf_largebatch.diagnostics.curvature import check_method, hessian_along, norm
from tf_largebatch.scaling import check_count


class Density(NamedTuple):
    """What `density` finds: the printed figures, and what they are made of, a layer an entry."""

    psi_g: float
    psi_sigma: float
    psi_L: float
    layers: list[str]
    gradient_norms: list[float]
    sigmas: list[float]
    lipschitz: list[float]

    @property
    def curvature_quotient(self):
        """psi_L / psi_g^2, which the thesis wants far below 1."""
        return _ratio(self.psi_L, self.psi_g**2)

    @property
    def noise_quotient(self):
        """psi_sigma / psi_g^2, which the thesis wants far below 1."""
        return _ratio(self.psi_sigma, self.psi_g**2)

    @property
    def lars_bound_is_better(self):
        """Whether both quotients are below 1: the printed condition, "<<" read as "<"."""
        return self.curvature_quotient < 1 and self.noise_quotient < 1

    @property
    def bound_factors(self):
        """(sqrt(psi_L) / psi_g, psi_sigma / psi_g), in which d and h cancel.

        By these LARS' bound has SGD's two terms, curvature and noise, multiplied, if the printed
        definitions are put into Theorem 6.2.
        """
        return _ratio(math.sqrt(self.psi_L), self.psi_g), _ratio(self.psi_sigma, self.psi_g)


def density(
    model, inputs, labels, sample_weight=None, *, micro_batch_size, method="difference",
    training=False,
):  # fmt: skip
    """psi_g, psi_sigma and psi_L of the thesis, section 6.6, "Comparison of Convergence Rates".

    With d weights in h layers, g_i the gradient of layer i, sigma_i its noise, L_i its Lipschitz
    constant, the definitions as printed are

        psi_g     = h (sum |g_i|)^2  / (d |g|^2)
        psi_sigma = h (sum sigma_i)^2 / (d sum sigma_i^2)
        psi_L     = h^2 (sum L_i)^2  / (d^2 max(L_i)^2)

    The printed psi_g is the least of the first along the run, the printed psi_L the least that
    bounds the third; here are the values at one point. "If psi_L << psi_g^2 and psi_sigma <<
    psi_g^2 we gain over SGD. Otherwise, SGD's upper bound on convergence rate is better."

    How to read them. A density in the sense of Bernstein et al. (2018) would be
    (sum |g_i|)^2 / (h |g|^2), from 1/h for one layer alone to 1 for equal ones. The printed d / h
    in place of h puts psi_g and psi_sigma between h/d and h^2/d, and psi_L between (h/d)^2 and
    (h^2/d)^2: all far below 1 for a network, and the noise quotient psi_sigma / psi_g^2 carries a
    factor of about d / h^2. Thus the printed condition on the noise fails for nearly any network
    by the choice of units, though with the definitions put into the theorems d and h cancel: the
    factors are sqrt(psi_L) / psi_g and psi_sigma / psi_g (`bound_factors`), where the thesis
    prints psi_L / psi_g^2 and psi_sigma^2 / psi_g^2. Either way upper bounds are compared, with
    estimates from one batch: a hint, and no proof that one optimizer is the faster.

    Args:
        model, inputs, labels, sample_weight, training: as `BatchLoss` takes them. A layer is a
            trainable variable, as LARS and LAMB see it, and counts unless the loss doesn't reach
            it.
        micro_batch_size: examples whose gradients are averaged before they are compared: m, at
            most half the batch, which it must divide. sigma_i^2 = E|g_i(example) - g_i|^2 is
            estimated without bias as m times the variance of those averages, if the examples are
            independent.
        method: of the products with the Hessian, as `local_lipschitz` takes it.

    L_i is estimated by |H_ii g_i| / |g_i|, with H_ii the layer's own block of the Hessian: the
    change of its gradient along itself, and so a lower bound of its Lipschitz constant (eq. 6.2)
    at this point, 0 where g_i is 0. The cost is 1 gradient of the batch for g and sigma, and 2 to 6
    for each layer.

    Returns:
        `Density`. A figure is NaN where all that it compares is 0.

    Raises:
        ValueError: if the batch can't be cut so, or as `local_lipschitz`.

    Two layers of one weight, and gradients 3 and 1 in one example, 1 and 3 in the other:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss=lambda y, output: output * y)
    >>> x, y = np.array([[3], [1 / 3]]), np.array([[1], [3]])
    >>> found = density(model, x, y, micro_batch_size=1)
    >>> found.gradient_norms, found.psi_g, found.sigmas
    ([2.0, 2.0], 2.0, [1.4142, 1.4142])
    """
    micro_batch_size = check_count("micro_batch_size", micro_batch_size)
    batch_loss = BatchLoss(
        model, inputs, labels, sample_weight,
        micro_batch_size=micro_batch_size, training=training,
    )  # fmt: skip
    check_method(model, method)
    parts, rest = divmod(batch_loss.num_examples, micro_batch_size)
    if rest or parts < 2:
        raise ValueError(
            "micro_batch_size must divide the batch into at least 2 parts, whose gradients differ "
            f"by the noise. Received: micro_batch_size={micro_batch_size} for "
            f"{batch_loss.num_examples} examples."
        )
    weights = batch_loss.read_weights()
    gradient, variances = _mean_and_variances(batch_loss.micro_batch_gradients(weights))
    kept = [i for i, reached in enumerate(batch_loss.reached) if reached]
    norms = [norm([gradient[i]]) for i in kept]
    sigmas = [math.sqrt(micro_batch_size * variances[i]) for i in kept]
    lipschitz = [
        _layer_lipschitz(batch_loss, weights, gradient, i, method) if size > 0 else 0.0
        for i, size in zip(kept, norms, strict=True)
    ]
    h = len(kept)
    d = sum(math.prod(weights[i].shape) for i in kept)
    return Density(
        psi_g=_psi(norms, h, d),
        psi_sigma=_psi(sigmas, h, d),
        psi_L=_ratio(h * sum(lipschitz), d * max(lipschitz, default=0)) ** 2,
        layers=[model.trainable_variables[i].path for i in kept],
        gradient_norms=norms,
        sigmas=sigmas,
        lipschitz=lipschitz,
    )


def _psi(values, h, d):
    return _ratio(h * sum(values) ** 2, d * sum(v**2 for v in values))


def _ratio(a, b):
    return a / b if b else math.nan


def _mean_and_variances(gradients):
    """The mean gradient, and for each layer the unbiased variance |g_k - g|^2 over the parts."""
    mean, squares, count = None, None, 0
    for gradient in gradients:  # Welford's way: one part at a time, nothing is lost by cancelling
        count += 1
        if mean is None:
            mean, squares = gradient, [0.0] * len(gradient)
            continue
        for i, g in enumerate(gradient):
            change = g - mean[i]
            mean[i] += change / count
            squares[i] += norm([change]) ** 2 * (count - 1) / count
    return mean, [s / (count - 1) for s in squares]


def _layer_lipschitz(batch_loss, weights, gradient, layer, method):
    alone = [g if i == layer else tf.zeros_like(g) for i, g in enumerate(gradient)]
    product, _ = hessian_along(batch_loss, weights, gradient, alone, method)
    return norm([product[layer]])
