"""Applying an update on TensorFlow: under tf.distribute, with accumulation and averaging.

Keras clips before the reduction over replicas, and branches around `merge_call`, which
MirroredStrategy refuses. Here gradients are reduced first, then clipped, and every branch lies
inside the per-device update.
"""

import tensorflow as tf


class TensorFlowUpdates:
    """Mixin before Keras' TensorFlow optimizer."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        variables = [_native(v) for v in trainable_variables]
        # IndexedSlices become dense, duplicate rows summed; halves are reduced as float32.
        grads = [
            tf.cast(tf.convert_to_tensor(g), self._state_dtype(v))
            for g, v in zip(grads, variables, strict=True)
        ]
        own = grads
        grads = [g for g, _ in self._all_reduce_sum_gradients(zip(own, variables, strict=True))]
        if self.observer is not None:
            self.observer.reduced(self, own, grads)
        learning_rate = tf.convert_to_tensor(self.learning_rate)
        totals, is_update = None, None
        if self.gradient_accumulation_steps:
            steps = self.gradient_accumulation_steps
            is_update = tf.equal((_native(self._iterations) + 1) % steps, 0)
            totals = [
                tf.add(_native(self._accumulated_gradients[self._get_variable_index(v)]), g)
                for g, v in zip(grads, variables, strict=True)
            ]
            grads = [total / steps for total in totals]
        grads = self._clip_gradients(grads)
        self._advance(is_update)
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._update_on_devices,
            self._distribution_strategy,
            variables,
            grads,
            totals,
            learning_rate,
            is_update,
        )

    def _update_on_devices(self, strategy, variables, grads, totals, learning_rate, is_update):
        def update(variable, grad, total, learning_rate, is_update):
            def apply():
                self.update_step(grad, variable, learning_rate)
                if total is not None:
                    self.assign(accumulator, tf.zeros_like(total))

            if total is None:
                apply()
                return
            accumulator = self._accumulated_gradients[self._get_variable_index(variable)]
            tf.cond(is_update, apply, lambda: self.assign(accumulator, total))

        def average(variable, is_update):
            mean = _native(self._average_of(variable))

            def apply():
                mean.assign(self._averaged(mean, variable))
                if self.ema_overwrite_frequency:
                    due = tf.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0)
                    tf.cond(due, lambda: self._assign_weights(variable, mean), lambda: None)

            if is_update is None:
                apply()
            else:
                tf.cond(is_update, apply, lambda: None)

        totals = totals or [None] * len(grads)
        for variable, grad, total in zip(variables, grads, totals, strict=True):
            args = (grad, total, learning_rate, is_update)
            strategy.extended.update(variable, update, args=args, group=False)
        if self.use_ema:
            for variable in self._trainable_variables:
                if self._average_of(variable) is not None:
                    strategy.extended.update(
                        _native(variable), average, args=(is_update,), group=False
                    )

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        for variable in trainable_variables:
            average = self._average_of(variable)
            if average is not None:
                self._distribution_strategy.extended.update(
                    _native(variable), self._assign_weights, args=(_native(average),)
                )


def _native(variable):
    """The `tf.Variable` of a Keras variable; another is returned as it is."""
    return getattr(variable, "value", variable) if hasattr(variable, "path") else variable
