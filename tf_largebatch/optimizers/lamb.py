"""LAMB: layer-wise adaptive moments, for large batches with Adam."""

import keras
from keras import ops

from tf_largebatch import rules
from tf_largebatch.optimizers import _arguments as arguments
from tf_largebatch.optimizers._layerwise import LayerwiseOptimizer


class AdaptiveMoments(LayerwiseOptimizer):
    """What LAMB, NLAMB and NNLAMB share: two moments, betas, epsilon, the order of the norm."""

    slot_names = ("momentum", "velocity")
    takes_stacks = True
    hyperparameters = ("beta_1", "beta_2", "epsilon", "norm_ord")

    def __init__(self, learning_rate, beta_1, beta_2, epsilon, *, norm_ord, **layerwise):
        super().__init__(learning_rate, **layerwise)
        self.beta_1 = arguments.real("beta_1", beta_1, low=0.0, below=1.0)
        self.beta_2 = arguments.real("beta_2", beta_2, low=0.0, below=1.0)
        self.epsilon = arguments.real("epsilon", epsilon, low=0.0)
        self.norm_ord = arguments.choice("norm_ord", norm_ord, (1, 2, "inf"))

    def _layerwise_options(self):
        return {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "norm_ord": self.norm_ord,
            "weight_norm_clip": self.weight_norm_clip,
            "trust_ratio_clip": self.trust_ratio_clip,
        }


@keras.saving.register_keras_serializable(package="tf_largebatch")
class LAMB(AdaptiveMoments):
    """LAMB, for very large batches where Adam is at home.

    With m, v the moving averages of g and g^2, corrected for their start at zero (m^, v^), for each
    variable:

        u = m^ / (sqrt(v^) + epsilon) + weight_decay * w
        w = w - learning_rate * phi(|w|)/|u| * u

    The ratio phi(|w|)/|u| is 1 where the variable isn't adapted, or either norm is zero.

    Args:
        learning_rate: float, Keras schedule or callable. Defaults to 0.001.
        beta_1, beta_2: floats in [0, 1), decay of m and v. Default to 0.9 and 0.999.
        epsilon: float >= 0. Defaults to 1e-6.
        weight_decay: float >= 0 or None. Defaults to 0.01.
        exclude_from_weight_decay: list of regexes and variables, or None. See `BIAS_AND_NORM`.
        exclude_from_layer_adaptation: the same; None follows `exclude_from_weight_decay`, an empty
            list excludes nothing.
        bias_correction: bool; False leaves m and v uncorrected, as ALBERT does. Defaults to True.
        weight_norm_clip: None or (low, high): phi(z) = clip(z, low, high).
        trust_ratio_clip: None or (low, high): bounds of the ratio.
        norm_ord: 2, 1 or "inf": the norm in the ratio. Defaults to 2.
        **base: Keras' own arguments: `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`, ...

    Raises:
        ValueError: for an argument out of its range.

    References: You et al. 2020, arXiv 1904.00962; thesis Algorithm 16.

    >>> import numpy as np
    >>> w = keras.Variable(np.float32([3.0, 4.0]))
    >>> optimizer = LAMB(0.1, weight_decay=0.0)
    >>> optimizer.apply([np.float32([1.0, -1.0])], [w])  # u = (1, -1), |w|/|u| = 5/sqrt(2)
    >>> print(np.round(w.numpy(), 4))
    [2.6464 4.3536]
    """

    hyperparameters = (*AdaptiveMoments.hyperparameters, "bias_correction")

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        weight_decay=0.01,
        exclude_from_weight_decay=None,
        exclude_from_layer_adaptation=None,
        *,
        bias_correction=True,
        weight_norm_clip=None,
        trust_ratio_clip=None,
        norm_ord=2,
        **base,
    ):
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            weight_norm_clip=weight_norm_clip,
            trust_ratio_clip=trust_ratio_clip,
            norm_ord=norm_ord,
            **base,
        )
        self.bias_correction = arguments.flag("bias_correction", bias_correction)

    def rule(self, w, g, m, v, lr, clock, **how):
        t = ops.cast(clock[0], w.dtype)
        options = self._layerwise_options() | how
        return rules.lamb_update(w, g, m, v, t, lr, bias_correction=self.bias_correction, **options)
