"""The shell around the layer-wise rules: slots, exclusions, clipping, averaging, rounding."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers import _arguments as arguments
from tf_largebatch.optimizers import _rounding as rounding
from tf_largebatch.optimizers._saved_state import SavedState
from tf_largebatch.optimizers.exclusions import (
    Exclusion,
    as_patterns,
    format_table,
    resolve,
    variable_path,
)
from tf_largebatch.rules import UNADAPTED, TrustRatio, global_norm, norm

if keras.backend.backend() == "tensorflow":
    from tf_largebatch.optimizers._tensorflow import TensorFlowUpdates as BackendUpdates
else:
    from tf_largebatch.optimizers._stateless import StatelessUpdates as BackendUpdates


class LayerwiseOptimizer(SavedState, BackendUpdates, keras.optimizers.Optimizer):
    """Base of LARS, LAMB, NLAMB and NNLAMB; a subclass adds its arguments and its rule.

    Args, beside Keras' own (`name`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
    `loss_scale_factor`, `gradient_accumulation_steps`):
        learning_rate: float, a Keras schedule, or a callable without arguments. Schedules are
            clocked in updates, also with `gradient_accumulation_steps`.
        weight_decay: float >= 0, or None for none. Applied within the trust ratio, by the rule.
        exclude_from_weight_decay, exclude_from_layer_adaptation: None, or a list of regexes
            (re.search against the variable's path) and Keras variables. None for the second means
            "as the first"; an empty list excludes nothing.
        weight_norm_clip: None or (low, high); phi(z) = clip(z, low, high).
        trust_ratio_clip: None or (low, high); the ratio's own bounds.
        clipvalue, clipnorm, global_clipnorm: float > 0 or None. Gradients are clipped after they
            are reduced over replicas and accumulated: first by value, then by one of the norms.
        weight_rounding: how bfloat16 and float16 variables take updates smaller than their
            rounding; others are not concerned. "compensated" keeps what rounding leaves in a
            float32 slot, `residual`: variable + residual is the weight in float32, which the rule
            and `use_ema` work on, so that training follows float32's. Where a variable has been
            assigned a value that the residual can't belong to, the residual is ignored.
            "stochastic", for bfloat16 alone, takes no state: it rounds up or down at random, right
            in the mean, and alike on all replicas and after a resumption. Defaults to
            "compensated".
    """

    slot_names = ()
    # The names of all attributes that `rule` reads, beside the clips and the weight decay.
    hyperparameters = ()
    takes_stacks = False  # whether `rule` heeds `stacked`
    # What an update is shown to while it is traced (tf_largebatch.diagnostics); no part of the
    # configuration or the state.
    observer = None

    def __init__(
        self,
        learning_rate,
        *,
        weight_decay,
        exclude_from_weight_decay,
        exclude_from_layer_adaptation,
        weight_norm_clip,
        trust_ratio_clip,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        weight_rounding="compensated",
        **base,
    ):
        if isinstance(learning_rate, numbers.Real):
            learning_rate = arguments.real("learning_rate", learning_rate, low=0.0)
        weight_decay = arguments.optional_real("weight_decay", weight_decay, low=0.0)
        steps = base.get("gradient_accumulation_steps")
        if steps is not None and (not isinstance(steps, numbers.Integral) or steps < 2):
            raise ValueError(
                "`gradient_accumulation_steps` must be None or an integer >= 2. "
                f"Received: gradient_accumulation_steps={steps!r}"
            )
        if clipnorm is not None and global_clipnorm is not None:
            raise ValueError(
                "Only one of `clipnorm` and `global_clipnorm` can be set (either may go with "
                f"`clipvalue`). Received: clipnorm={clipnorm}, global_clipnorm={global_clipnorm}"
            )
        super().__init__(learning_rate, weight_decay=weight_decay, **base)
        self.clipnorm = arguments.optional_real("clipnorm", clipnorm, low=0.0, open_low=True)
        self.clipvalue = arguments.optional_real("clipvalue", clipvalue, low=0.0, open_low=True)
        self.global_clipnorm = arguments.optional_real(
            "global_clipnorm", global_clipnorm, low=0.0, open_low=True
        )
        self.weight_norm_clip = arguments.optional_pair("weight_norm_clip", weight_norm_clip)
        self.trust_ratio_clip = arguments.optional_pair("trust_ratio_clip", trust_ratio_clip)
        self.weight_rounding = arguments.choice(
            "weight_rounding", weight_rounding, ("compensated", "stochastic")
        )
        # Not under the arguments' names: `exclude_from_weight_decay` is a method of Keras' base.
        self._decay_exclusions, silent = as_patterns(
            exclude_from_weight_decay, "exclude_from_weight_decay"
        )
        self._adaptation_exclusions, more = as_patterns(
            exclude_from_layer_adaptation, "exclude_from_layer_adaptation"
        )
        self._silent_patterns = silent | more

    def get_config(self):
        """The arguments, as plain Python values; `from_config` is the reverse."""
        config = super().get_config()
        config |= {name: getattr(self, name) for name in self.hyperparameters}
        config |= {
            "weight_norm_clip": self.weight_norm_clip,
            "trust_ratio_clip": self.trust_ratio_clip,
            "weight_rounding": self.weight_rounding,
            "exclude_from_weight_decay": _list_or_none(self._decay_exclusions),
            "exclude_from_layer_adaptation": _list_or_none(self._adaptation_exclusions),
        }
        return config

    def build(self, variables):
        """Resolves the exclusions and makes the slots, at least float32, for `variables`.

        Raises:
            ValueError: for a pattern that must be a mistake, and for float16 variables with
                stochastic rounding.
        """
        if self.built:
            return
        variables = list(variables)
        self._check_rounding(variables)
        self._exclusions = self._resolve_exclusions(variables)
        super().build(variables)
        slots = [self.add_optimizer_variables(variables, name) for name in self.slot_names]
        self._slots = dict(zip(self.slot_names, slots, strict=True))
        if self.weight_rounding == "compensated":
            self._slots["residual"] = [
                self.add_optimizer_variables([v], "residual")[0] if _is_half(v) else None
                for v in variables
            ]

    def add_variable(self, shape, initializer="zeros", dtype=None, **options):
        """As Keras', but state of half-precision variables is float32."""
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        return super().add_variable(shape, initializer, _at_least_float32(dtype), **options)

    def update_step(self, gradient, variable, learning_rate):
        """Fetches a variable's slots, and moves both by the rule."""
        self._update_alike([gradient], [variable], learning_rate)

    def _update_alike(self, gradients, variables, learning_rate):
        """Updates variables as one: they are of a shape and decayed and adapted alike."""
        indices = [self._get_variable_index(v) for v in variables]
        row = self._exclusions[indices[0]]
        slots = [[self._slots[name][i] for i in indices] for name in self.slot_names]
        variables, residuals, slots = self._beside(
            variables[0], [variables, [self._residual_at(i) for i in indices], slots]
        )
        old = []
        if self.observer is not None:
            old = [ops.copy(_joined(*each)) for each in zip(variables, residuals, strict=True)]
        ratio = self._mover(variables)(
            variables, residuals, slots, gradients, learning_rate, self._clock(),
            self._decay_of(row), adapt=row.adapted, index=indices[0],
        )  # fmt: skip
        for i, before in enumerate(old):
            own = TrustRatio(*(part[i] for part in ratio)) if row.adapted else UNADAPTED
            self.observer.updated(
                self, indices[i], learning_rate, before, ops.cast(gradients[i], before.dtype),
                _joined(variables[i], residuals[i]), own,
            )  # fmt: skip

    def _move(
        self, variables, residuals, slots, gradients, learning_rate, clock, weight_decay, *, adapt,
        index,
    ):  # fmt: skip
        """Calls the rule and assigns what it returns; returns the trust ratios, by variable."""
        stacked = len(variables) > 1
        dtype = self._state_dtype(variables[0])

        def together(parts):
            parts = [ops.cast(part, dtype) for part in parts]
            return ops.stack(parts) if stacked else parts[0]

        def apart(tensor):
            return ops.unstack(tensor) if stacked else [tensor]

        w, g, *values = map(together, (variables, gradients, *slots))
        if residuals[0] is not None:
            w = rounding.joined(w, together(residuals), _dtype_of(variables[0]))
        lr = ops.cast(learning_rate, dtype)
        how = {"adapt": adapt, "weight_decay": weight_decay}
        if stacked:
            how["stacked"] = True
        w, *values, ratio = self.rule(w, g, *values, lr, clock, **how)
        if _is_half(variables[0]) and self.weight_rounding == "stochastic":
            w = rounding.stochastic(w, self.iterations, index)
        for variable, residual, new in zip(variables, residuals, apart(w), strict=True):
            self._assign_both(variable, residual, new)
        for slot, value in zip(slots, values, strict=True):
            for variable, new in zip(slot, apart(value), strict=True):
                self.assign(variable, new)
        flat = (ops.reshape(part, (-1,)) for part in ratio)  # of a rule without ratios, one number
        return [ops.broadcast_to(part, (len(variables),)) for part in flat] if adapt else None

    def _clock(self):
        """What all variables share in the update under way, tensors: its number, from 1."""
        return (self.iterations + 1,)

    def rule(self, w, g, *slots_lr_and_clock, adapt, weight_decay, stacked=False):
        """The pure update of one variable: returns the new w, the new slots, the trust ratio.

        Args:
            w, g, *slots_lr_and_clock: tensors of the variable's shape, of one dtype; the learning
                rate, a scalar; and the tuple of `_clock`.
            adapt: bool.
            weight_decay: float or scalar tensor; 0 where the variable isn't decayed.
            stacked: whether w, g and the slots are stacks of variables, the first axis counting
                them. Passed to classes with `takes_stacks` alone.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `rule`.")

    def _state_dtype(self, variable):
        return _at_least_float32(_dtype_of(variable))

    def _weights(self, variable):
        """The variable in at least float32, with its residual if it has one that fits."""
        return _joined(variable, self._residual_of(variable))

    def _assign_weights(self, variable, w):
        """Assigns `w`, of at least float32, rounded to nearest; the rest goes to the residual."""
        self._assign_both(variable, self._residual_of(variable), w)

    def _assign_both(self, variable, residual, w):
        if residual is not None:
            w, rest = rounding.split(w, _dtype_of(variable))
            self.assign(residual, rest)
        self.assign(variable, w)

    def _residual_of(self, variable):
        return self._residual_at(self._get_variable_index(variable))

    def _residual_at(self, index):
        return self._slots["residual"][index] if "residual" in self._slots else None

    def _settings(self):
        """What `rule` reads of the optimizer, to be compared."""
        names = (*self.hyperparameters, "weight_norm_clip", "trust_ratio_clip", "weight_rounding")
        return tuple((name, repr(getattr(self, name))) for name in names)

    def _may_be_stacked(self):
        own_step = type(self).update_step is not LayerwiseOptimizer.update_step
        return self.takes_stacks and not own_step

    def _check_rounding(self, variables):
        unfit = [variable_path(v) for v in variables if _dtype_of(v) == "float16"]
        if unfit and self.weight_rounding == "stochastic":
            raise ValueError(
                "`weight_rounding='stochastic'` is for bfloat16 variables, and takes no float16 "
                f"ones. Received float16: {', '.join(unfit[:5])}{', ...' * (len(unfit) > 5)}. Use "
                "`weight_rounding='compensated'`."
            )

    def _decay_of(self, row):
        return (self.weight_decay or 0.0) if row.decayed else 0.0

    def _advance(self, is_update=None):
        """Hook: moves state that is shared by all variables on, once an update."""

    def _get_current_learning_rate(self):
        # Keras feeds a schedule micro-steps; ours are clocked in updates.
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _apply_weight_decay(self, variables):
        """Nothing: the rule decays, within the trust ratio; Keras would do it outside."""

    def _clip_gradients(self, grads):
        """Clips by value, then by each gradient's norm or by the global norm."""
        if self.clipvalue is not None:
            grads = [ops.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        if self.clipnorm is not None:
            return [g * _clip_factor(norm(g), self.clipnorm) for g in grads]
        if self.global_clipnorm is not None:
            factor = _clip_factor(global_norm(grads), self.global_clipnorm)
            return [g * ops.cast(factor, g.dtype) for g in grads]
        return grads

    def _average_of(self, variable):
        # By index, not by place: a layer frozen since `build` shortens what Keras passes.
        return self._model_variables_moving_average[self._get_variable_index(variable)]

    def _averaged(self, average, variable):
        """The moving average of the weights after this update; the first one starts it."""
        momentum = ops.where(ops.equal(self.iterations, 0), 0.0, self.ema_momentum)
        momentum = ops.cast(momentum, average.dtype)
        return momentum * average + (1 - momentum) * self._weights(variable)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Adds variables and patterns to the decay exclusions; only before `build`."""
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay()` must be called before the optimizer is built, that "
                "is before the first training step. Received the call on a built optimizer."
            )
        added, silent = as_patterns(
            [*(var_list or []), *(var_names or [])], "exclude_from_weight_decay"
        )
        self._decay_exclusions = [*(self._decay_exclusions or []), *added]
        self._silent_patterns |= silent

    def exclusion_table(self):
        """Which variables are decayed and adapted.

        Returns:
            A list of named tuples: variable (path), shape, decayed, adapted, decay_pattern,
            adaptation_pattern (the pattern that excluded it, or None).

        Raises:
            ValueError: before `build`.
        """
        self._need_build("exclusion table")
        decays = bool(self.weight_decay)
        return [row._replace(decayed=row.decayed and decays) for row in self._exclusions]

    def state_bytes(self):
        """Bytes of the optimizer's own variables on each device, the counters included.

        Raises:
            ValueError: before `build`.
        """
        self._need_build("state")
        return sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in self.variables)

    def summary(self, print_fn=print):
        """Prints the exclusion table and the size of the state."""
        table = self.exclusion_table()
        size, weights = self.state_bytes(), sum(math.prod(row.shape) for row in table)
        per_weight = size / max(weights, 1)
        print_fn(format_table(table))
        print_fn(f"State: {size} bytes for {weights} weights ({per_weight:.1f} bytes a weight)")

    def _need_build(self, what):
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} has no {what} before it is built. Call "
                "`optimizer.build(model.trainable_variables)` first."
            )

    def _resolve_exclusions(self, variables):
        paths = [variable_path(v) for v in variables]
        silent = self._silent_patterns
        decay = resolve(paths, self._decay_exclusions or [], "exclude_from_weight_decay", silent)
        adaptation = decay
        if self._adaptation_exclusions is not None:
            adaptation = resolve(
                paths, self._adaptation_exclusions, "exclude_from_layer_adaptation", silent
            )
        return tuple(
            Exclusion(path, tuple(v.shape), d is None, a is None, d, a)
            for path, v, d, a in zip(paths, variables, decay, adaptation, strict=True)
        )


def _joined(variable, residual):
    w = ops.cast(variable, _at_least_float32(_dtype_of(variable)))
    return w if residual is None else rounding.joined(w, residual, _dtype_of(variable))


def _at_least_float32(dtype):
    return "float32" if dtype in rounding.HALVES else dtype


def _dtype_of(variable):
    return keras.backend.standardize_dtype(variable.dtype)


def _is_half(variable):
    return _dtype_of(variable) in rounding.HALVES


def _list_or_none(patterns):
    return None if patterns is None else list(patterns)


def _clip_factor(size, limit):
    # A norm that isn't finite makes all NaN that it would have clipped: no half-clipped update.
    return ops.where(ops.isfinite(size), ops.where(size > limit, limit / size, 1.0), np.nan)
