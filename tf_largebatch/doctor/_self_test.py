"""Whether training works here: on replicas, in micro-batches, against one device."""

import time

from tf_largebatch.doctor._report import Finding

TOLERANCE = 1e-5  # between the replicas' weights and one device's, relative to the largest


def self_test(replicas, *, updates=20, timed_updates=200):
    """LAMB on the replicas, in micro-batches, against one device that takes each batch whole."""
    import numpy as np
    import tensorflow as tf

    from tf_largebatch.training.strategy import make_strategy

    one = make_strategy("one_device")
    many = make_strategy("mirrored", num_replicas=replicas) if replicas > 1 else one
    # TF32 rounds products to 10 bits, and to different ones in batches of another size.
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        start, whole, _ = _trained(one, 16 * replicas, None, updates, 0)
        _, cut, speed = _trained(many, 16 * replicas, 4, updates, timed_updates)
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
    scale = np.abs(whole).max()
    difference = float(np.abs(cut - whole).max() / scale)
    moved = float(np.abs(whole - start).max() / scale)
    sound = difference <= TOLERANCE and moved > 100 * TOLERANCE  # False also for NaN
    note = f"largest relative difference after {updates} updates; allowed: {TOLERANCE:g}"
    if moved <= 100 * TOLERANCE:
        note = f"the weights moved by {moved:g}: nothing was learnt"
    value = difference if np.isfinite(difference) else str(difference)
    yield Finding(
        "self_test", "replicas_equal_one_device", "ok" if sound else "failed", value, note
    )
    note = f"{replicas} replicas x 4 micro-batches of 4, a tiny model: mostly overhead"
    yield Finding("self_test", "examples_per_second", "ok", round(speed), note)


def _trained(strategy, global_batch_size, micro_batch_size, updates, timed_updates):
    """(weights at the start, after `updates`, examples/s of the timed updates after those)."""
    import keras
    import numpy as np

    from tf_largebatch import BIAS_AND_NORM, LAMB
    from tf_largebatch.data.batches import training_batches
    from tf_largebatch.data.source import ArraySource
    from tf_largebatch.training.trainer import Trainer

    random = np.random.default_rng(0)
    images = random.normal(size=(2 * global_batch_size, 8))
    source = ArraySource("self-test", images, images[:, :3].argmax(-1), num_classes=3)
    initializers = [keras.initializers.GlorotUniform(seed=seed) for seed in (1, 2)]
    with strategy.scope():
        model = keras.Sequential([
            keras.Input((8,)),
            keras.layers.Dense(16, activation="tanh", kernel_initializer=initializers[0]),
            keras.layers.Dense(3, kernel_initializer=initializers[1]),
        ])  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # With so large an epsilon LAMB sees the gradient's scale, a wrong mean over replicas too.
        lamb = LAMB(0.01, epsilon=0.01, exclude_from_weight_decay=[BIAS_AND_NORM])
        model.compile(lamb, loss=loss)
        model.optimizer.build(model.trainable_variables)
    trainer = Trainer(
        model, source.images, source.labels,
        global_batch_size=global_batch_size, micro_batch_size=micro_batch_size,
    )  # fmt: skip
    total = updates + timed_updates

    def fit(first, end):
        batches = training_batches(
            source, global_batch_size=global_batch_size, seed=0, first_update=first,
            total_updates=total,
        )  # fmt: skip
        trainer.fit(
            batches, num_examples=total * global_batch_size, total_updates=total,
            first_update=first, stop_update=end, verbose=0,
        )  # fmt: skip
        if trainer.stop_signal is not None:
            raise KeyboardInterrupt
        return np.concatenate([w.ravel() for w in model.get_weights()])

    start = np.concatenate([w.ravel() for w in model.get_weights()])
    weights, started = fit(0, updates), time.perf_counter()
    if timed_updates:
        fit(updates, total)
    return start, weights, timed_updates * global_batch_size / (time.perf_counter() - started)
