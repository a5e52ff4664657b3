"""A small model on 96 examples, and the trainer that trains it, for the tests of the trainer."""

import keras
import numpy as np

from replicas import strategy_of
from tf_largebatch import schedules
from tf_largebatch.data.batches import training_batches
from tf_largebatch.data.source import ArraySource
from tf_largebatch.training import checkpoint
from tf_largebatch.training.trainer import Trainer

UPDATES = 30


def source(n=96):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 6)).astype("float32")
    return ArraySource("gaussians", x, (x[:, 0] + x[:, 1] > 0).astype("int32"), num_classes=2)


def rate():
    return schedules.LinearWarmup(schedules.Polynomial(0.02, 40), 5)


def small_model(optimizer, *, normalise=False, dropout=0.0, regularise=0.0, loss=None, top_k=False):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="tanh", name="a")(inputs)
    if normalise:
        x = keras.layers.BatchNormalization(name="bn")(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    penalty = keras.regularizers.L2(regularise) if regularise else None
    model = keras.Model(inputs, keras.layers.Dense(2, name="b", kernel_regularizer=penalty)(x))
    model.compile(
        optimizer=optimizer,
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            # As ImageNet's top-5, but TensorFlow has it for float32 only.
            *([keras.metrics.SparseTopKCategoricalAccuracy(1, name="topk")] if top_k else []),
        ],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def trained(
    make, *, replicas=1, micro_batch_size=None, batch=24, updates=UPDATES, first=0, calls=7,
    folder=None, every=None, jit=False, **model_options,
):  # fmt: skip
    """Model after `updates` updates, and its trainer."""
    data = source()
    with strategy_of(replicas).scope():
        model = small_model(make(), **model_options)
    trainer = Trainer(
        model, data.images, data.labels, global_batch_size=batch,
        micro_batch_size=micro_batch_size, updates_per_call=calls, jit=jit,
    )  # fmt: skip
    if folder is not None:
        restored = checkpoint.restore(folder, model)
        first = restored[0] if restored else 0
    batches = training_batches(
        data, global_batch_size=batch, seed=1, first_update=first, total_updates=UPDATES
    )
    trainer.fit(
        batches, num_examples=data.num_examples, total_updates=UPDATES, first_update=first,
        stop_update=updates, checkpoint_dir=folder, checkpoint_every=every, verbose=0,
    )  # fmt: skip
    return model, trainer


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def assert_same(one, other, tolerance=1e-5):
    one, other = (w if isinstance(w, np.ndarray) else weights(w) for w in (one, other))
    assert np.abs(one - other).max() <= tolerance * np.abs(one).max()
