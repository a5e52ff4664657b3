"""What an optimizer saves: slots by variable and name, loaded whole or not at all."""

import json
import warnings

import numpy as np


class SavedState:
    """Mixin of the shell: its state under readable keys, checked before it is loaded."""

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
