"""A model whose gradients are known without it: the loss of an example is y * (x . kernel + bias).

So the gradient of a batch is mean(y * x) and mean(y), whatever the weights.
"""

import contextlib

import keras
import numpy as np

from replicas import strategy_of

FEATURES = 3
PATHS = ("d/kernel", "d/bias")


def examples(n, seed=0):
    """Inputs (n, FEATURES) and labels (n, 1), float32."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, FEATURES)), random.normal(1.0, 1.0, size=(n, 1))
    return x.astype("float32"), y.astype("float32")


def gradients(x, y):
    """[of the kernel, of the bias] for one batch, float64."""
    x, y = np.float64(x), np.float64(y)
    return [(y * x).mean(0)[:, None], y.mean(0)]


def linear_model(optimizer, replicas=1):
    """Compiled and built; kernel (3, 4, 0), bias 0. For several replicas, `optimizer` makes one."""
    with strategy_of(replicas).scope() if replicas > 1 else contextlib.nullcontext():
        inputs = keras.Input((FEATURES,))
        model = keras.Model(inputs, keras.layers.Dense(1, name="d")(inputs))
        model.compile(
            optimizer() if callable(optimizer) else optimizer,
            loss=lambda y, p: keras.ops.sum(y * p, axis=-1),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    model.set_weights([np.array([[3.0], [4.0], [0.0]]), np.zeros(1)])
    return model


def batches_of(x, y, batch):
    """Dataset of batches, each of the same size."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True)


def train(
    model, x, y, batch, callbacks=(), *, through="trainer", micro=None, first=0, stop=None,
    folder=None, progress=None, jit=False, every=None,
):  # fmt: skip
    """One epoch through `fit` or our Trainer; returns the trainer, or Keras' history."""
    if through == "fit":
        return model.fit(
            batches_of(x, y, batch), verbose=0, shuffle=False, callbacks=list(callbacks)
        )
    from tf_largebatch.training.trainer import Trainer

    trainer = Trainer(model, x, y, global_batch_size=batch, micro_batch_size=micro, jit=jit)
    trainer.fit(
        batches_of(x, y, batch).skip(first), num_examples=len(x), total_updates=len(x) // batch,
        first_update=first, stop_update=stop, callbacks=callbacks, checkpoint_dir=folder,
        checkpoint_every=every, progress=progress, verbose=0,
    )  # fmt: skip
    return trainer
