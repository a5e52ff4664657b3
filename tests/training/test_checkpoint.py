"""Checkpoints hold everything, exactly, and are refused where they don't fit."""

import json

import keras
import numpy as np
import pytest

from checkpointed import everything, model_with, step
from tf_largebatch import LAMB, LARS
from tf_largebatch.training import checkpoint, files

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    "make", [lambda: LAMB(0.1), lambda: LARS(0.1), lambda: keras.optimizers.AdamW(0.1)]
)
def test_round_trip_into_a_fresh_instance(folder, make):
    """Weights, moving statistics, dropout's seed and slots: the runs go on alike, bit for bit."""
    first = step(model_with(make()))
    path = checkpoint.save(folder, first, update=3, progress={"best": 0.5})
    second = model_with(make(), prefix="b")
    assert checkpoint.restore(folder, second) == (3, {"best": 0.5})
    for one, other in zip(everything(step(first)), everything(step(second)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert path.endswith("update-00000003.npz")


def test_bfloat16_weights(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    first = step(model_with(LAMB(0.1)))
    checkpoint.save(tmp_path, first, update=1, progress={})
    second = model_with(LAMB(0.1))
    checkpoint.restore(tmp_path, second)
    assert second.layers[-1].kernel.dtype == "bfloat16"
    for one, other in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_mixed_float16_keeps_the_loss_scale(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    first = step(model_with(LAMB(0.1)))
    first.optimizer.dynamic_scale.assign(1234.0)
    checkpoint.save(tmp_path, first, update=1, progress={})
    second = model_with(LAMB(0.1))
    checkpoint.restore(tmp_path, second)
    assert float(second.optimizer.dynamic_scale) == 1234.0
    for one, other in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_few_are_kept_and_no_temporary(folder):
    model = model_with(LAMB(0.1))
    for update in range(5):
        checkpoint.save(folder, model, update=update, progress={})
    kept = [f"update-0000000{i}.npz" for i in (4, 3, 2)]
    assert checkpoint.paths(folder) == [f"{folder}/{name}" for name in kept]
    markers = [f"{name}.complete" for name in kept] if files.is_remote(folder) else []
    assert files.names(folder) == sorted(kept + markers)


def test_no_checkpoint_is_none(tmp_path, bucket):
    model = model_with(LAMB(0.1))
    assert checkpoint.restore(tmp_path, model) is None
    assert checkpoint.restore(tmp_path / "missing", model) is None
    assert checkpoint.restore(bucket, model) is None


def test_who_does_not_write_takes_part_only(folder):
    model = model_with(LAMB(0.1))
    path = checkpoint.save(folder, model, update=3, progress={}, write=False)
    assert files.kind(folder) is None
    assert checkpoint.save(folder, model, update=3, progress={}) == path


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: model_with(LAMB(0.1), units=5), "has shape"),
        (lambda: model_with(LARS(0.1)), "velocity is not expected"),
        (lambda: model_with(LAMB(0.1, use_ema=True)), "average is missing"),
    ],
)
def test_of_another_model_or_optimizer(tmp_path, other, words):
    checkpoint.save(tmp_path, step(model_with(LAMB(0.1))), update=1, progress={})
    model = other()
    before = everything(model)
    with pytest.raises(ValueError, match=f"another model or optimizer.*{words}"):
        checkpoint.restore(tmp_path, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)


def test_nan_weights_are_not_saved(tmp_path):
    model = model_with(LAMB(0.1))
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * np.nan)
    with pytest.raises(checkpoint.NonFiniteWeightsError, match="a_out/kernel holds NaN"):
        checkpoint.save(tmp_path, model, update=2, progress={})
    assert not list(tmp_path.iterdir())


def test_nothing_is_unpickled(tmp_path):
    """An object array, which only pickle could hold, is a damaged checkpoint."""
    model = model_with(LAMB(0.1))
    path = checkpoint.save(tmp_path, model, update=1, progress={})
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(bytes(arrays["record"]).decode())
    arrays[next(iter(record["arrays"]))] = np.array([{"a": 1}], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.restore(tmp_path, model)
