"""The job of one of two worker processes: python worker_job.py INDEX PORT PORT FOLDER [NAME ...].

It trains with each optimizer and setting and writes what came out to FOLDER/worker-INDEX.npz.
`jobs()` yields the same trainings for the test, which runs them on two replicas.
"""

import pathlib
import sys

import keras
import numpy as np

UPDATES = 12


def jobs(names=()):
    """(name, optimizer, precision, options of the model) of the jobs of these names, or of all."""
    return [job for job in _jobs() if not names or job[0] in names]


def _jobs():
    from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB
    from tf_largebatch.schedules import LinearWarmup, Polynomial

    def rate():
        return LinearWarmup(Polynomial(0.02, 40), 5)

    for make in (LARS, LAMB, NLAMB, NNLAMB):
        yield make.__name__, lambda make=make: make(rate(), global_clipnorm=0.05), "float32", {}
    yield "SGD", lambda: keras.optimizers.SGD(rate(), clipnorm=0.02), "float32", {}
    yield "group statistics", lambda: LAMB(rate()), "float32", {"examples_per_group": 8}
    yield "float16", lambda: LAMB(0.01), "mixed_float16", {}


def data():
    """32 examples of two classes."""
    from tf_largebatch.data.source import ArraySource

    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return ArraySource("gaussians", x, (x[:, 0] + x[:, 1] > 0).astype("int32"), num_classes=2)


def train(strategy, optimizer, precision, *, examples_per_group=None, folder=None, stop=None):
    """Weights and state, logs of an evaluation, and the trainer, after the updates."""
    from tf_largebatch.data.batches import evaluation_batches, training_batches
    from tf_largebatch.layers import GroupBatchNormalization
    from tf_largebatch.training import checkpoint
    from tf_largebatch.training.trainer import Trainer

    source = data()
    keras.utils.clear_session(free_memory=False)  # which also resets the policy
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(3)
    with strategy.scope():
        inputs = keras.Input((6,))
        x = keras.layers.Dense(8, activation="tanh")(inputs)
        if examples_per_group:
            x = GroupBatchNormalization(examples_per_group)(x)
        model = keras.Model(inputs, keras.layers.Dense(2, dtype="float32")(x))
        model.compile(
            optimizer(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="top1")],
        )
        model.optimizer.build(model.trainable_variables)
    trainer = Trainer(
        model, source.images, source.labels, global_batch_size=16, micro_batch_size=4,
        updates_per_call=5,
    )  # fmt: skip
    first = 0
    if folder is not None and (restored := checkpoint.restore(folder, model)):
        first = restored[0]
    trainer.fit(
        lambda pipeline, pipelines: training_batches(
            source, global_batch_size=16, seed=1, first_update=first, total_updates=UPDATES,
            pipeline=pipeline, num_pipelines=pipelines,
        ),
        num_examples=source.num_examples, total_updates=UPDATES, first_update=first,
        stop_update=stop, checkpoint_dir=folder, verbose=0,
    )  # fmt: skip
    # 32 examples in batches of 5 and then of 20: none fits the two replicas.
    logs = [trainer.evaluate(evaluation_batches(source, batch_size=size)) for size in (5, 20)]
    keras.config.set_dtype_policy("float32")
    state = [np.float64(v.numpy()) for v in [*model.variables, *model.optimizer.variables]]
    return state, logs, trainer


def main(index, first_port, second_port, folder, *names):
    """One worker."""
    from tf_largebatch import LAMB
    from tf_largebatch.training.strategy import make_strategy

    strategy = make_strategy(
        "multi_worker", workers=[f"127.0.0.1:{first_port}", f"127.0.0.1:{second_port}"],
        worker_index=int(index),
    )  # fmt: skip
    found = {}
    for name, optimizer, precision, options in jobs(names):
        state, logs, trainer = train(strategy, optimizer, precision, **options)
        found |= {f"{name}, {i}": array for i, array in enumerate(state)}
        assert ("float16" in name) == hasattr(trainer.model.optimizer, "dynamic_scale")
        found[f"{name}, logs"] = [value for log in logs for value in log.values()]
    # Stopped within the second epoch, where the metrics have parts on both workers; and gone on.
    checkpoints = str(pathlib.Path(folder) / "checkpoints")
    train(strategy, lambda: LAMB(0.01), "float32", folder=checkpoints, stop=3)
    resumed, _, _ = train(strategy, lambda: LAMB(0.01), "float32", folder=checkpoints)
    straight, _, trainer = train(strategy, lambda: LAMB(0.01), "float32")
    for one, other in zip(resumed, straight, strict=True):
        np.testing.assert_array_equal(one, other)
    # Asked on one of them, all stop, at the same update.
    trainer.model.stop_training = index == "1"
    found["stops"] = [trainer._stops()]
    np.savez(pathlib.Path(folder) / f"worker-{index}.npz", **found)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
