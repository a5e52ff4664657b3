"""LARS: layer-wise adaptive rate scaling, for momentum SGD."""

import keras

from tf_largebatch import rules
from tf_largebatch.optimizers import _arguments as arguments
from tf_largebatch.optimizers._layerwise import LayerwiseOptimizer


@keras.saving.register_keras_serializable(package="tf_largebatch")
class LARS(LayerwiseOptimizer):
    """LARS, for very large batches with momentum SGD.

    With d = g + wd*w and r = tc * phi(|w|) / (|g| + wd*|w| + epsilon) for each variable:

        b = momentum*b + learning_rate * r * d
        w = w - b                                       (nesterov: momentum*b + learning_rate*r*d)

    r is 1 where the variable isn't adapted, or |w| or |g| is zero.

    Args:
        learning_rate: float, Keras schedule or callable. Defaults to 1.0; LARS's rates are of
            another size than SGD's, since r is about `trust_coefficient` * |w|/|g|.
        momentum: float in [0, 1). Defaults to 0.9.
        weight_decay: float >= 0 or None. Defaults to 1e-4.
        exclude_from_weight_decay: list of regexes and variables, or None. See `BIAS_AND_NORM`.
        exclude_from_layer_adaptation: the same; None follows `exclude_from_weight_decay`, an empty
            list excludes nothing.
        nesterov: bool. Defaults to False.
        trust_coefficient: float > 0, tc above. Defaults to 0.001.
        epsilon: float >= 0. Defaults to 0.
        joint_norm: bool; the denominator is |g + wd*w| + epsilon. Defaults to False.
        momentum_mode: "classic", as above; "outside": b = momentum*b + d, w = w - learning_rate*r*b
            (nesterov: momentum*b + d for b), so that a falling rate acts at once; "adapted"
            (Algorithm 15): the same b, and r = tc * phi(|w|) / (|b| + epsilon).
        weight_norm_clip: None or (low, high): phi(z) = clip(z, low, high).
        trust_ratio_clip: None or (low, high): bounds of r.
        **base: Keras' own arguments: `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`, ...

    Raises:
        ValueError: for an argument out of its range, or `joint_norm` with "adapted".

    References: You, Gitman and Ginsburg 2017, arXiv 1708.03888; thesis 5.3 and Algorithm 15.

    >>> import numpy as np
    >>> w = keras.Variable(np.float32([3.0, 4.0]))
    >>> optimizer = LARS(1.0, momentum=0.0, weight_decay=0.0)
    >>> optimizer.apply([np.float32([0.6, 0.8])], [w])  # |w| = 5, |g| = 1: r = 0.005
    >>> print(np.round(w.numpy(), 4))
    [2.997 3.996]
    """

    slot_names = ("momentum",)
    takes_stacks = True
    hyperparameters = (
        "momentum", "nesterov", "trust_coefficient", "epsilon", "joint_norm", "momentum_mode",
    )  # fmt: skip

    def __init__(
        self,
        learning_rate=1.0,
        momentum=0.9,
        weight_decay=1e-4,
        exclude_from_weight_decay=None,
        exclude_from_layer_adaptation=None,
        *,
        nesterov=False,
        trust_coefficient=0.001,
        epsilon=0.0,
        joint_norm=False,
        momentum_mode="classic",
        weight_norm_clip=None,
        trust_ratio_clip=None,
        **base,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            exclude_from_weight_decay=exclude_from_weight_decay,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            weight_norm_clip=weight_norm_clip,
            trust_ratio_clip=trust_ratio_clip,
            **base,
        )
        self.momentum = arguments.real("momentum", momentum, low=0.0, below=1.0)
        self.nesterov = arguments.flag("nesterov", nesterov)
        self.trust_coefficient = arguments.real(
            "trust_coefficient", trust_coefficient, low=0.0, open_low=True
        )
        self.epsilon = arguments.real("epsilon", epsilon, low=0.0)
        self.joint_norm = arguments.flag("joint_norm", joint_norm)
        self.momentum_mode = arguments.choice(
            "momentum_mode", momentum_mode, ("classic", "outside", "adapted")
        )
        if joint_norm and momentum_mode == "adapted":
            raise ValueError(
                "`joint_norm=True` has no meaning with `momentum_mode='adapted'`, whose ratio is "
                "of the momentum's norm. Leave one of them out."
            )

    def rule(self, w, g, b, lr, clock, **how):
        return rules.lars_update(
            w,
            g,
            b,
            lr,
            momentum=self.momentum,
            trust_coefficient=self.trust_coefficient,
            epsilon=self.epsilon,
            nesterov=self.nesterov,
            joint_norm=self.joint_norm,
            momentum_mode=self.momentum_mode,
            weight_norm_clip=self.weight_norm_clip,
            trust_ratio_clip=self.trust_ratio_clip,
            **how,
        )
