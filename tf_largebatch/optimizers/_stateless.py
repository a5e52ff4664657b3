"""Applying an update on backends without graph-level state (JAX): select instead of branching."""

from keras import ops


class StatelessUpdates:
    """Mixin before Keras' JAX optimizer: accumulation and averaging, clocked on updates."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = [
            ops.cast(ops.convert_to_tensor(g, sparse=False), self._state_dtype(v))
            for g, v in zip(grads, trainable_variables, strict=True)
        ]
        steps = self.gradient_accumulation_steps
        if not steps:
            self._update(grads, trainable_variables)
            return
        is_update = ops.equal((self._iterations + 1) % steps, 0)
        accumulators = [
            self._accumulated_gradients[self._get_variable_index(v)] for v in trainable_variables
        ]
        totals = [a + g for a, g in zip(accumulators, grads, strict=True)]
        held = {id(v) for v in [*self._accumulated_gradients, self._iterations]}
        changing = [v for v in [*self._trainable_variables, *self.variables] if id(v) not in held]
        before = [ops.convert_to_tensor(v) for v in changing]
        self._update([total / steps for total in totals], trainable_variables)
        for variable, old in zip(changing, before, strict=True):
            variable.assign(ops.where(is_update, ops.convert_to_tensor(variable), old))
        for accumulator, total in zip(accumulators, totals, strict=True):
            accumulator.assign(ops.where(is_update, ops.zeros_like(total), total))

    def _update(self, grads, variables):
        grads = self._clip_gradients(grads)
        learning_rate = self.learning_rate
        self._advance()
        for grad, variable in zip(grads, variables, strict=True):
            self.update_step(grad, variable, learning_rate)
        if self.use_ema:
            self._average_weights()

    def _mover(self, variables):
        return self._move

    def _beside(self, first, variables):
        return variables

    def _average_weights(self):
        overwrite = None
        if self.ema_overwrite_frequency:
            overwrite = ops.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0)
        for variable in self._trainable_variables:
            average = self._average_of(variable)
            if average is None:
                continue
            average.assign(self._averaged(average, variable))
            if overwrite is not None:
                kept, new = self._weights(variable), ops.convert_to_tensor(average)
                self._assign_weights(variable, ops.where(overwrite, new, kept))

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        # A copy: were the two to share a buffer, the next `fit` would donate it twice, and fail.
        for variable in trainable_variables:
            average = self._average_of(variable)
            if average is not None:
                self._assign_weights(variable, ops.copy(average))
