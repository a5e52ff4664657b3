"""Applying an update on TensorFlow: under tf.distribute, with accumulation and averaging.

Keras clips before the reduction over replicas, and branches around `merge_call`, which
MirroredStrategy refuses. Here gradients are reduced first, then clipped, and every branch lies
inside the per-device update.
"""

import functools

import tensorflow as tf

SMALL_UNTIL = 2**14  # elements: below, starting operations costs more than what they compute


class TensorFlowUpdates:
    """Mixin before Keras' TensorFlow optimizer."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        variables = [_native(v) for v in trainable_variables]
        # IndexedSlices become dense, duplicate rows summed; halves are reduced as float32.
        grads = [
            tf.cast(_dense(g, v.shape), self._state_dtype(v))
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
        def update(first, grads, totals, learning_rate, is_update, *, places):
            def apply():
                if len(places) == 1:
                    self.update_step(grads[0], first, learning_rate)
                else:
                    self._update_alike(grads, [variables[i] for i in places], learning_rate)
                for accumulator, total in pairs:
                    self.assign(accumulator, tf.zeros_like(total))

            def collect():
                for accumulator, total in pairs:
                    self.assign(accumulator, total)

            if totals is None:
                pairs = []
                apply()
                return
            indices = [self._get_variable_index(variables[i]) for i in places]
            pairs = list(
                zip([self._accumulated_gradients[i] for i in indices], totals, strict=True)
            )
            tf.cond(is_update, apply, collect)

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

        for places in self._places_alike(variables):
            parts = [grads[i] for i in places], totals and [totals[i] for i in places]
            strategy.extended.update(
                variables[places[0]],
                functools.partial(update, places=places),
                args=(*parts, learning_rate, is_update),
                group=False,
            )
        if self.use_ema:
            for variable in self._trainable_variables:
                if self._average_of(variable) is not None:
                    strategy.extended.update(
                        _native(variable), average, args=(is_update,), group=False
                    )

    def _places_alike(self, variables):
        """Lists of places in `variables`, which are updated as one.

        Small variables cost more to start operations on than to compute; stacked, all those of a
        shape share the operations.
        """
        groups, seen = {}, set()
        for place, variable in enumerate(variables):
            index = self._get_variable_index(variable)
            row = self._exclusions[index]
            alike = place
            if _is_small(variable) and index not in seen and self._may_be_rearranged():
                alike = (variable.shape, variable.dtype, variable.device, row.adapted, row.decayed)
            groups.setdefault(alike if self._may_be_stacked() else place, []).append(place)
            seen.add(index)
        return groups.values()

    def _may_be_rearranged(self):
        # Stochastic rounding draws by the variable's index. TPUs compile the whole step anyway.
        tpu = isinstance(self._distribution_strategy, tf.distribute.TPUStrategy)
        return not tpu and self.weight_rounding != "stochastic"

    def _mover(self, variables):
        """`_move`, as a program compiled by XLA where that is faster.

        One pass over memory where the graph's operations take a dozen. The programs work in place;
        variables of one shape share one.
        """
        first = variables[0]
        if _is_small(first) or not self._may_be_rearranged() or not _xla_works():
            return self._move
        programs = self.__dict__.setdefault("_programs", {})

        def move(variables, residuals, slots, gradients, *numbers, adapt, index):
            # One function for each: TensorFlow takes many shapes of one for a mistake, and warns.
            key = (first.shape, first.dtype, adapt, self._settings())
            if key not in programs:
                programs[key] = tf.function(
                    functools.partial(self._move, adapt=adapt, index=None), jit_compile=True
                )
            learning_rate, clock, weight_decay = numbers
            dtype = self._state_dtype(first)
            rate, decay = (tf.cast(x, dtype) for x in (learning_rate, weight_decay))
            with tf.device(first.device):
                return programs[key](variables, residuals, slots, gradients, rate, clock, decay)

        return move

    def _beside(self, first, variables):
        """`variables`, a nest of them, as their parts on the device of `first`.

        For a compiled program all mirrored variables of a shape would be one and the same.
        """
        strategy, first = self._distribution_strategy, _native(first)

        def part(variable):
            parts = strategy.experimental_local_results(_native(variable))
            beside = [part for part in parts if part is not None and part.device == first.device]
            return (beside or parts)[0]

        return tf.nest.map_structure(part, variables)

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        for variable in trainable_variables:
            average = self._average_of(variable)
            if average is not None:
                self._distribution_strategy.extended.update(
                    _native(variable), self._assign_weights, args=(_native(average),)
                )


@functools.cache
def _xla_works():
    """Whether this TensorFlow compiles for the device that it runs on."""
    with tf.init_scope():
        try:
            return bool(tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(0)) == 1)
        except tf.errors.OpError:
            return False


def _dense(gradient, shape):
    gradient = tf.convert_to_tensor(gradient)  # whose number of rows may be unknown
    return gradient if gradient.shape == shape else tf.ensure_shape(gradient, shape)


def _is_small(variable):
    return _native(variable).shape.num_elements() < SMALL_UNTIL


def _native(variable):
    """The `tf.Variable` of a Keras variable; another is returned as it is."""
    return getattr(variable, "value", variable) if hasattr(variable, "path") else variable
