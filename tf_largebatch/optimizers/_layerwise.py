"""The shell around the layer-wise rules: slots, exclusions, clipping, averaging, saved state."""

import json
import numbers
import warnings

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers import _arguments as arguments
from tf_largebatch.optimizers.exclusions import (
    Exclusion,
    as_patterns,
    format_table,
    resolve,
    variable_path,
)
from tf_largebatch.rules import norm

if keras.backend.backend() == "tensorflow":
    from tf_largebatch.optimizers._tensorflow import TensorFlowUpdates as BackendUpdates
else:
    from tf_largebatch.optimizers._stateless import StatelessUpdates as BackendUpdates


class LayerwiseOptimizer(BackendUpdates, keras.optimizers.Optimizer):
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
    """

    slot_names = ()
    hyperparameters = ()

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
            "exclude_from_weight_decay": _list_or_none(self._decay_exclusions),
            "exclude_from_layer_adaptation": _list_or_none(self._adaptation_exclusions),
        }
        return config

    def build(self, variables):
        """Resolves the exclusions and makes the slots, at least float32, for `variables`."""
        if self.built:
            return
        variables = list(variables)
        self._exclusions = self._resolve_exclusions(variables)
        super().build(variables)
        slots = [self.add_optimizer_variables(variables, name) for name in self.slot_names]
        self._slots = dict(zip(self.slot_names, slots, strict=True))

    def add_variable(self, shape, initializer="zeros", dtype=None, **options):
        """As Keras', but state of half-precision variables is float32."""
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        return super().add_variable(shape, initializer, _at_least_float32(dtype), **options)

    def update_step(self, gradient, variable, learning_rate):
        """Fetches a variable's slots, calls the rule, assigns what it returns."""
        index = self._get_variable_index(variable)
        slots = [self._slots[name][index] for name in self.slot_names]
        dtype = self._state_dtype(variable)
        row = self._exclusions[index]
        w, g, lr, *values = (
            ops.cast(x, dtype) for x in (variable, gradient, learning_rate, *slots)
        )
        w, *values, _ = self.rule(
            w, g, *values, lr, adapt=row.adapted, weight_decay=self._decay_of(row)
        )
        self.assign(variable, w)
        for slot, value in zip(slots, values, strict=True):
            self.assign(slot, value)

    def rule(self, w, g, *slots_and_lr, adapt, weight_decay):
        """The pure update of one variable: returns the new w, the new slots, the trust ratio."""
        raise NotImplementedError(f"{type(self).__name__} must define `rule`.")

    def _state_dtype(self, variable):
        return _at_least_float32(keras.backend.standardize_dtype(variable.dtype))

    def _decay_of(self, row):
        return (self.weight_decay or 0.0) if row.decayed else 0.0

    def _advance(self, is_update=None):
        """Hook: moves state that is shared by all variables on, once an update."""

    def _updates(self, dtype):
        """t, the number of the update under way, from 1."""
        return ops.cast(self.iterations + 1, dtype)

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
            widest = keras.backend.result_type(*(g.dtype for g in grads))
            norms = ops.stack([ops.cast(norm(g), widest) for g in grads])
            factor = _clip_factor(norm(norms), self.global_clipnorm)
            return [g * ops.cast(factor, g.dtype) for g in grads]
        return grads

    def _average_of(self, variable):
        # By index, not by place: a layer frozen since `build` shortens what Keras passes.
        return self._model_variables_moving_average[self._get_variable_index(variable)]

    def _averaged(self, average, variable):
        """The moving average of the weights after this update; the first one starts it."""
        momentum = ops.where(ops.equal(self.iterations, 0), 0.0, self.ema_momentum)
        momentum = ops.cast(momentum, average.dtype)
        return momentum * average + (1 - momentum) * ops.cast(variable, average.dtype)

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
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} has no exclusion table before it is built. Call "
                "`optimizer.build(model.trainable_variables)` first."
            )
        decays = bool(self.weight_decay)
        return [row._replace(decayed=row.decayed and decays) for row in self._exclusions]

    def summary(self, print_fn=print):
        """Prints the exclusion table."""
        print_fn(format_table(self.exclusion_table()))

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

    def _named_state(self):
        """Every variable of the optimizer by its key in a saved file."""
        slots = dict(self._slots) if self.built else {}
        if self.built and self.use_ema:
            slots["average"] = self._model_variables_moving_average
        if self.built and self.gradient_accumulation_steps:
            slots["gradient_accumulator"] = self._accumulated_gradients
        state = {
            f"{index}.{slot}": variable
            for slot, variables in slots.items()
            for index, variable in enumerate(variables)
            if variable is not None
        }
        known = {id(variable) for variable in state.values()}
        return {v.name: v for v in self.variables if id(v) not in known} | state

    def save_own_variables(self, store):
        """Saves the state under `index.slot` keys and, as information, the exclusion table."""
        for key, variable in self._named_state().items():
            store[key] = variable.numpy()
        if self.built:
            store["exclusions"] = np.frombuffer(self._treatments().encode(), np.uint8)

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved: all of it or, if anything differs, nothing.

        Variables are told apart by their order, so that a second instance of a model loads,
        whatever its layers are called. Warns if the saved exclusions were others, and if there is
        nothing of this package's to load.

        Raises:
            ValueError: if variables, slots or shapes differ from this optimizer's.
        """
        saved = {key: np.array(store[key]) for key in store.keys()}  # noqa: SIM118 (no mapping)
        treatments = saved.pop("exclusions", None)
        state = self._named_state()
        # A rate that has become a schedule since, or was one, is no difference of the state.
        for rate in {"learning_rate"} & (saved.keys() ^ state.keys()):
            saved.pop(rate, None), state.pop(rate, None)
        reason = None
        if not self.built:
            reason = "it is not built yet"
        elif not saved.keys() - {"iteration", "learning_rate"}:
            reason = "the file holds none"
        elif treatments is None:
            # Keras' own optimizers, and its LossScaleOptimizer, which load_model may leave out.
            reason = "the file holds that of another kind of optimizer"
        if reason is not None:
            warnings.warn(
                f"The state of optimizer '{self.name}' was not loaded: {reason}. To load it, save "
                "a model after a training step, and call "
                "`optimizer.build(model.trainable_variables)` before loading.",
                stacklevel=2,
            )
            return
        treatments = json.loads(bytes(treatments).decode())
        wrong = [f"{key} is missing" for key in state.keys() - saved.keys()]
        wrong += [f"{key} is not expected" for key in saved.keys() - state.keys()]
        wrong += [
            f"{key} has shape {saved[key].shape}, not {tuple(state[key].shape)}"
            for key in state.keys() & saved.keys()
            if saved[key].shape != tuple(state[key].shape)
        ]
        if wrong:
            more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            paths = ", ".join(path for path, *_ in treatments)[:300]
            raise ValueError(
                f"The saved state doesn't fit optimizer '{self.name}' ({type(self).__name__}, "
                f"{len(self._exclusions)} variables): {'; '.join(sorted(wrong)[:5])}{more}. "
                f"Nothing of it was loaded. It was saved for the variables {paths}. Load it into "
                "the same model with the same optimizer settings, or do without it: "
                "`load_weights(..., skip_mismatch=True)` loads the model's weights alone."
            )
        for key, variable in state.items():
            variable.assign(saved[key])
        self._warn_of_other_exclusions(treatments)

    def _treatments(self):
        return json.dumps(
            [(row.variable, row.decayed, row.adapted) for row in self.exclusion_table()]
        )

    def _warn_of_other_exclusions(self, saved):
        changed = [
            row.variable
            for row, (_, *saved_as) in zip(self.exclusion_table(), saved, strict=False)
            if saved_as != [row.decayed, row.adapted]
        ]
        if changed:
            warnings.warn(
                f"Optimizer '{self.name}' now decays or adapts these variables otherwise than when "
                f"its state was saved: {changed[:5]}. If that isn't meant, compare `summary()`.",
                stacklevel=3,
            )


def _at_least_float32(dtype):
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _list_or_none(patterns):
    return None if patterns is None else list(patterns)


def _clip_factor(size, limit):
    # A norm that isn't finite makes all NaN that it would have clipped: no half-clipped update.
    return ops.where(ops.isfinite(size), ops.where(size > limit, limit / size, 1.0), np.nan)
