"""Drives an optimizer through given gradients, in each way that the backend offers."""

import keras
import numpy as np

# Eager JAX takes a while to dispatch, and is no other path than the compiled one.
MODES = {"tensorflow": ("graph", "eager", "xla"), "jax": ("jit",)}[keras.backend.backend()]
# Where the mode doesn't matter, the one that is ready first.
QUICK = "eager" if "eager" in MODES else MODES[0]


def run(optimizer, variables, gradients, mode, rates=None):
    """Applies `gradients` (one list an update); returns the weights after each update.

    rates: one learning rate an update, assigned to the optimizer's variable; None leaves it.
    """
    if not optimizer.built:
        optimizer.build(variables)
    apply = applier(optimizer, variables, mode)
    history = []
    for i, grads in enumerate(gradients):
        if rates is not None:
            optimizer.learning_rate = rates[i]
        apply(grads)
        history.append([v.numpy() for v in variables])
    return history


def applier(optimizer, variables, mode):
    """A function that applies one list of gradients; it is traced or compiled only once."""
    if mode == "eager":
        return lambda grads: optimizer.apply(_tensors(grads, variables), variables)
    if mode == "jit":
        import jax

        compiled = jax.jit(optimizer.stateless_apply)

        def apply(grads):
            state = [v.value for v in optimizer.variables]
            weights = [v.value for v in variables]
            weights, state = compiled(state, _tensors(grads, variables), weights)
            for variable, value in zip(variables, weights, strict=True):
                variable.assign(value)
            for variable, value in zip(optimizer.variables, state, strict=True):
                variable.assign(value)

        return apply
    import tensorflow as tf

    @tf.function(jit_compile=mode == "xla")
    def step(grads):
        optimizer.apply(grads, variables)

    return lambda grads: step(_tensors(grads, variables))


def _tensors(grads, variables):
    return [
        g if g is None or not isinstance(g, (np.ndarray, float, int))
        else keras.ops.convert_to_tensor(np.asarray(g), dtype=v.dtype)
        for g, v in zip(grads, variables, strict=True)
    ]  # fmt: skip
