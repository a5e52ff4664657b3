"""Checkpoints of several replicas and workers: each part of the metrics finds its place again."""

import numpy as np
import pytest

from checkpointed import everything, model_with
from replicas import strategy_of
from tf_largebatch import LAMB
from tf_largebatch.training import checkpoint

pytestmark = pytest.mark.tensorflow


def replicated(seed):
    """A model on two replicas, each of which has added something else to its metrics."""
    import tensorflow as tf

    with strategy_of(2).scope():
        model = model_with(LAMB(0.1))
    strategy = model.distribute_strategy
    for variable in model.metrics_variables:
        for i, part in enumerate(strategy.experimental_local_results(variable.value)):
            part.assign(tf.fill(part.shape, seed + 10.0 * i))
    return model


def parts_of(model):
    split = model.distribute_strategy.experimental_local_results
    return [[p.numpy() for p in split(v.value)] for v in model.metrics_variables]


@pytest.mark.parametrize("workers", ["one", "several"])
def test_each_replica_gets_its_own_part_of_the_metrics(tmp_path, monkeypatch, workers):
    """`several`: by the exchange between workers, here on the replicas of one process."""
    if workers == "several":
        monkeypatch.setattr(checkpoint, "_has_other_workers", lambda strategy: True)
    first, second = replicated(1.5), replicated(4.0)
    for table, parts in zip(checkpoint.metric_parts(first).values(), parts_of(first), strict=True):
        np.testing.assert_array_equal(table, [1.5, 11.5])
        np.testing.assert_array_equal(table, parts)
    checkpoint.save(tmp_path, first, update=3, progress={})
    assert checkpoint.restore(tmp_path, second) == (3, {})
    np.testing.assert_array_equal(parts_of(second), parts_of(first))


def test_on_fewer_replicas_the_metrics_add_up(tmp_path):
    first, second = replicated(1.5), model_with(LAMB(0.1))
    checkpoint.save(tmp_path, first, update=3, progress={})
    checkpoint.restore(tmp_path, second)
    np.testing.assert_array_equal(parts_of(second), [[13.0]] * len(parts_of(second)))
    checkpoint.save(tmp_path, second, update=4, progress={})
    checkpoint.restore(tmp_path, first)
    np.testing.assert_array_equal(parts_of(first), [[13.0, 0.0]] * len(parts_of(first)))


def test_workers_that_see_other_checkpoints(tmp_path, monkeypatch):
    """A folder of which each machine has its own would let them train on apart."""
    model = replicated(1.5)
    checkpoint.save(tmp_path, model, update=3, progress={})
    before = everything(model)
    monkeypatch.setattr(checkpoint, "_has_other_workers", lambda strategy: True)
    monkeypatch.setattr(
        checkpoint, "_gathered", lambda strategy, tables: [np.array([tables[0][0], -1])]
    )
    with pytest.raises(ValueError, match="find update 3, none. Use a folder"):
        checkpoint.restore(tmp_path, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)
