"""L2 regularisation of a recipe: which variables it pulls, and how strongly."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def model():
    inputs = keras.Input((3,))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    built = keras.Model(inputs, keras.layers.Dense(2, name="dense")(x))
    built.set_weights([np.full(w.shape, 0.5, "float32") for w in built.get_weights()])
    return built


def pull(**keys):
    """How far an update of SGD with rate 1 moves each variable where the data has no gradient."""
    import tensorflow as tf

    from tf_largebatch.recipes import Recipe
    from tf_largebatch.training import from_recipe

    made = model()
    from_recipe.regularise(Recipe(**keys), made.trainable_variables)
    with tf.GradientTape() as tape:
        loss = tf.add_n([0.0 * tf.reduce_sum(v) for v in made.trainable_variables] + made.losses)
    gradients = tape.gradient(loss, [v.value for v in made.trainable_variables])
    return {
        v.path: np.unique(g.numpy()).tolist()
        for v, g in zip(made.trainable_variables, gradients, strict=True)
    }


def test_the_gradient_gets_l2_times_the_variable_but_for_excluded_ones():
    found = pull(l2=0.25, exclude_from_weight_decay=("bias_and_norm",))
    assert found == {
        "norm/gamma": [0.0], "norm/beta": [0.0], "dense/kernel": [0.125], "dense/bias": [0.0],
    }  # fmt: skip


def test_without_exclusions_all_are_pulled_and_without_l2_none():
    assert set(map(tuple, pull(l2=0.25).values())) == {(0.125,)}
    assert set(map(tuple, pull().values())) == {(0.0,)}
