"""Checkpoints: whole or not at all, exact, and refused where they don't fit."""

import json
import pathlib

import keras
import numpy as np
import pytest

from tf_largebatch import LAMB, LARS
from tf_largebatch.training import checkpoint
from tf_largebatch.training.trainer import build_metrics

pytestmark = pytest.mark.tensorflow


def model_with(optimizer, units=3, prefix="a"):
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
    random = np.random.default_rng(0)
    for _ in range(count):
        x, y = random.normal(size=(8, 4)), random.normal(size=(8, model.output_shape[-1]))
        model.train_on_batch(x.astype("float32"), y.astype("float32"))
    return model


def everything(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize(
    "make", [lambda: LAMB(0.1), lambda: LARS(0.1), lambda: keras.optimizers.AdamW(0.1)]
)
def test_round_trip_into_a_fresh_instance(tmp_path, make):
    """Weights, moving statistics, dropout's seed and slots: the runs go on alike, bit for bit."""
    first = step(model_with(make()))
    path = checkpoint.save(tmp_path, first, update=3, progress={"best": 0.5})
    second = model_with(make(), prefix="b")
    assert checkpoint.restore(tmp_path, second) == (3, {"best": 0.5})
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


def test_a_few_are_kept_and_no_temporary(tmp_path):
    model = model_with(LAMB(0.1))
    for update in range(5):
        checkpoint.save(tmp_path, model, update=update, progress={}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "update-00000003.npz", "update-00000004.npz",
    ]  # fmt: skip


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.restore(tmp_path, model_with(LAMB(0.1))) is None
    assert checkpoint.restore(tmp_path / "missing", model_with(LAMB(0.1))) is None


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


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.99])
def test_cut_short(tmp_path, kept_share):
    model = step(model_with(LAMB(0.1)))
    path = checkpoint.save(tmp_path, model, update=1, progress={})
    whole = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(whole[: int(len(whole) * kept_share)])
    before = everything(model)
    with pytest.raises(ValueError, match="damaged or cut short"):
        checkpoint.restore(tmp_path, model)
    for one, two in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(one, two)


def test_every_flipped_byte_is_noticed(tmp_path):
    """Weights and record are covered by the archive's sums; padding between them isn't."""
    model = step(model_with(LAMB(0.1)))
    path = checkpoint.save(tmp_path, model, update=1, progress={})
    whole = pathlib.Path(path).read_bytes()
    expected = everything(model)
    for place in range(0, len(whole), 97):
        data = bytearray(whole)
        data[place] ^= 0x10
        pathlib.Path(path).write_bytes(data)
        try:
            checkpoint.restore(tmp_path, model)
        except ValueError:
            continue
        for one, two in zip(expected, everything(model), strict=True):
            np.testing.assert_array_equal(one, two)


def test_failed_writing_leaves_the_old_one(tmp_path, monkeypatch):
    model = model_with(LAMB(0.1))
    checkpoint.save(tmp_path, model, update=1, progress={})

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, model, update=2, progress={})
    assert [p.name for p in tmp_path.iterdir()] == ["update-00000001.npz"]


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
