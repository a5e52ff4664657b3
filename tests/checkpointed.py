"""A small model for the tests of checkpoints, and everything of it that one must hold."""

import keras
import numpy as np


def model_with(optimizer, units=3, prefix="a"):
    """Dropout, batch normalisation and a dense layer, compiled, its slots and metrics built."""
    from tf_largebatch.training.trainer import build_metrics

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(name=f"{prefix}_bn"),
            keras.layers.Dense(units, name=f"{prefix}_out"),
        ]
    )
    model.compile(optimizer=optimizer, loss="mse", weighted_metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    build_metrics(model, np.zeros((1, 4), "float32"), np.zeros((1, units), "float32"))
    return model


def step(model, count=3):
    """The model, trained on `count` random batches."""
    random = np.random.default_rng(0)
    for _ in range(count):
        x, y = random.normal(size=(8, 4)), random.normal(size=(8, model.output_shape[-1]))
        model.train_on_batch(x.astype("float32"), y.astype("float32"))
    return model


def everything(model):
    """Weights, state and slots as NumPy."""
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
