"""What stays float32 where the computation is in bfloat16: statistics, loss, reduction."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from replicas import strategy_of
from tf_largebatch import LAMB
from tf_largebatch.layers import GroupBatchNormalization
from tf_largebatch.training.trainer import Trainer

pytestmark = pytest.mark.tensorflow
HALVES = ("mixed_bfloat16", "bfloat16")


def rounded(x):
    return np.float64(tf.cast(tf.cast(x, "bfloat16"), "float32").numpy())


@pytest.mark.parametrize("policy", HALVES)
@pytest.mark.parametrize("make", [keras.layers.BatchNormalization, GroupBatchNormalization])
def test_batch_statistics_are_float32(policy, make):
    """A sum of 4096 numbers near 1 stands still in bfloat16 from 256 on."""
    keras.config.set_dtype_policy(policy)
    groups = {"examples_per_group": 4096} if make is GroupBatchNormalization else {}
    layer = make(momentum=0.0, **groups)
    x = np.random.default_rng(0).uniform(1.0, 2.0, size=(4096, 2)).astype("float32")
    layer(tf.cast(x, "bfloat16"), training=True)
    # Keras keeps them in the policy's type, ours are float32 always: all the digits show.
    keras_own = make is keras.layers.BatchNormalization
    tolerance = 2**-8 if policy == "bfloat16" and keras_own else 1e-5
    np.testing.assert_allclose(layer.moving_mean.numpy(), rounded(x).mean(0), rtol=tolerance)
    np.testing.assert_allclose(layer.moving_variance.numpy(), rounded(x).var(0), rtol=tolerance)


def model_of(policy, replicas=1):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    with strategy_of(replicas).scope():
        inputs = keras.Input((6,))
        # Bfloat16 outputs, as a user's model may have them.
        model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
        model.compile(LAMB(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6)).astype("float32")
    return model, x, random.integers(0, 4, size=64).astype("int32")


@pytest.mark.parametrize("policy", HALVES)
def test_the_loss_is_float32(policy):
    model, x, y = model_of(policy)
    logits = np.float64(tf.cast(model(x), "float32").numpy())
    trainer = Trainer(model, x, y, global_batch_size=64)
    batches = tf.data.Dataset.from_tensors((x, y))
    trainer.fit(batches, num_examples=64, total_updates=1, verbose=0)
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(64), y]).mean()
    assert float(model.metrics[0].result()) == pytest.approx(expected, rel=1e-6)
    assert trainer.evaluate(batches.map(lambda x, y: (x, y, tf.ones(64))))["loss"] > 0


@pytest.mark.parametrize("policy", HALVES)
@pytest.mark.parametrize("micro_batch_size", [None, 8])
def test_gradients_are_reduced_in_float32(policy, micro_batch_size):
    """In the traced graph no sum over devices is narrower."""
    model, x, y = model_of(policy, replicas=2)
    trainer = Trainer(model, x, y, global_batch_size=64, micro_batch_size=micro_batch_size)
    iterator = iter(trainer.distribute(tf.data.Dataset.from_tensors((x, y))))
    graph = trainer.run_updates.get_concrete_function(iterator, tf.constant(1)).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    reduced = [n.attr["T"].type for n in nodes if n.op == "AddN"]
    assert len(reduced) >= 2
    assert {tf.as_dtype(t) for t in reduced} == {tf.float32}


@pytest.mark.parametrize("policy", HALVES)
def test_slots_and_rate_are_float32(policy):
    model, _, _ = model_of(policy)
    kinds = {keras.backend.standardize_dtype(v.dtype) for v in model.optimizer.variables}
    assert kinds <= {"float32", "int64", "int32"}
