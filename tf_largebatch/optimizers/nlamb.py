"""N-LAMB and NN-LAMB: LAMB with Nesterov's form of the first moment, and of both."""

import keras
from keras import ops

from tf_largebatch import rules
from tf_largebatch.optimizers import _arguments as arguments
from tf_largebatch.optimizers.lamb import AdaptiveMoments


@keras.saving.register_keras_serializable(package="tf_largebatch")
class NLAMB(AdaptiveMoments):
    """N-LAMB: LAMB whose first moment looks one step ahead, as Nadam does to Adam.

    With mu_t = beta_1, or Dozat's rising beta_1 * (1 - 0.5 * 0.96^(t * momentum_decay)), and P_t
    the product of mu_1 to mu_t:

        m^ = mu_(t+1) * m / (1 - P_t * mu_(t+1)) + (1 - mu_t) * g / (1 - P_t)
        v^ = v / (1 - beta_2^t)

    and the rest as in LAMB.

    Args:
        learning_rate: float, Keras schedule or callable. Defaults to 0.001.
        beta_1, beta_2: floats in [0, 1). Default to 0.975 and 0.999.
        epsilon: float >= 0. Defaults to 1e-8.
        weight_decay, exclude_from_weight_decay, exclude_from_layer_adaptation, weight_norm_clip,
            trust_ratio_clip, norm_ord, **base: as in LAMB.
        momentum_decay: float >= 0, Dozat's psi (he takes 0.004), or None for a constant mu.

    Raises:
        ValueError: for an argument out of its range.

    References: thesis Algorithm 17, with Adam's v^ (the printed form drops a term); Dozat 2016.

    >>> import numpy as np
    >>> w = keras.Variable(np.float32([3.0, 4.0]))
    >>> optimizer = NLAMB(0.1, weight_decay=0.0)
    >>> optimizer.apply([np.float32([1.0, -1.0])], [w])
    >>> print(np.round(w.numpy(), 4))
    [2.6464 4.3536]
    """

    hyperparameters = (*AdaptiveMoments.hyperparameters, "momentum_decay")
    pure_rule = staticmethod(rules.nlamb_update)

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.975,
        beta_2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
        exclude_from_weight_decay=None,
        exclude_from_layer_adaptation=None,
        *,
        momentum_decay=None,
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
        self.momentum_decay = arguments.optional_real("momentum_decay", momentum_decay, low=0.0)

    def build(self, variables):
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        dtypes = {self._state_dtype(v) for v in variables}
        self._momentum_product = self.add_variable(
            shape=(),
            initializer="ones",
            dtype="float64" if "float64" in dtypes else "float32",
            aggregation="only_first_replica",
            name="momentum_product",
        )

    def _advance(self, is_update=None):
        product = ops.convert_to_tensor(self._momentum_product)
        next_product = product * self._mu(self.iterations + 1, product.dtype)
        if is_update is not None:
            next_product = ops.where(is_update, next_product, product)
        self._momentum_product.assign(next_product)

    def _clock(self):
        product = self._momentum_product
        return (*super()._clock(), ops.cast(product, product.dtype))

    def _mu(self, t, dtype):
        return rules.nesterov_momentum(ops.cast(t, dtype), self.beta_1, self.momentum_decay)

    def rule(self, w, g, m, v, lr, clock, **how):
        t, product = (ops.cast(x, w.dtype) for x in clock)
        mu, mu_next = self._mu(t, w.dtype), self._mu(t + 1, w.dtype)
        options = self._layerwise_options() | how
        return self.pure_rule(w, g, m, v, t, lr, mu, mu_next, product, **options)


@keras.saving.register_keras_serializable(package="tf_largebatch")
class NNLAMB(NLAMB):
    """NN-LAMB: N-LAMB with Nesterov's form of the second moment as well.

        v^ = beta_2 * v / (1 - beta_2^(t+1)) + (1 - beta_2) * g^2 / (1 - beta_2^t)

    Arguments and errors are NLAMB's.

    References: thesis Algorithm 18 (its beta_1^t is an index, not a power).

    >>> import numpy as np
    >>> w = keras.Variable(np.float32([3.0, 4.0]))
    >>> optimizer = NNLAMB(0.1, weight_decay=0.0, momentum_decay=0.004)
    >>> optimizer.apply([np.float32([1.0, -1.0])], [w])
    >>> print(np.round(w.numpy(), 4))
    [2.6464 4.3536]
    """

    pure_rule = staticmethod(rules.nnlamb_update)
