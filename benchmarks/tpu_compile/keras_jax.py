"""`model.fit`'s own train step on Keras' JAX backend, lowered for a whole slice.

The batch is cut over all cores, weights and optimizer are on each: the partitioner puts in the
collectives, as under `keras.distribution.DataParallel`.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import models
from benchmarks.tpu_compile.cases import data_of, map_shapes, recipe_of
from tf_largebatch.training import from_recipe, tasks


def model_of(recipe, data):
    """The compiled model of a recipe, with its optimizer, built; the rate is the recipe's peak."""
    keras.config.set_dtype_policy(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    model = models.build(recipe.model, task=data.task, **data.model_arguments)
    optimizer = from_recipe.optimizer(recipe, recipe.learning_rate, model.trainable_variables)
    outputs = list(model.output) if isinstance(model.output, dict) else ["logits"]
    objective = tasks.objective(data.task, outputs, label_smoothing=recipe.label_smoothing)
    model.compile(optimizer=optimizer, jit_compile=True, **objective)
    return model


def lower(case, devices):
    """The lowered step of a `Case` on these cores, a share of the batch each."""
    recipe = recipe_of(case, len(devices))
    data = data_of(recipe, *recipe.sequence_lengths[:1])
    model = model_of(recipe, data)
    mesh = Mesh(np.array(devices), ("batch",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    cut = NamedSharding(mesh, PartitionSpec("batch"))

    def two(shape, dtype):
        return np.zeros((2, *shape), dtype)

    def whole(shape, dtype):
        shape = (recipe.global_batch_size, *shape)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=cut)

    # Metrics make their variables when they first see data.
    model._symbolic_build(data_batch=tuple(map_shapes(two, part) for part in data[2:]))
    # What `fit` hands to its step, and has back from it.
    state = model._get_jax_state(
        trainable_variables=True, non_trainable_variables=True, optimizer_variables=True,
        metrics_variables=True,
    )  # fmt: skip
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
    )
    step = jax.jit(model.train_step, donate_argnums=0, out_shardings=everywhere)
    return step.lower(state, tuple(map_shapes(whole, part) for part in data[2:]))
