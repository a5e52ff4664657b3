"""DavidNet: its shapes, residuals, scale and start."""

import keras
import numpy as np
import pytest
from keras import ops

from models.davidnet import davidnet, davidnet_small


def test_the_shapes_and_the_residuals():
    model = davidnet()
    shapes = {
        "prep_relu": (32, 32, 64),
        "layer1_pool": (16, 16, 128),
        "layer1_add": (16, 16, 128),
        "layer2_pool": (8, 8, 256),
        "layer3_add": (4, 4, 512),
        "pool": (512,),
    }
    assert {name: model.get_layer(name).output.shape[1:] for name in shapes} == shapes
    for layer in ("layer1", "layer3"):
        parts = [model.get_layer(f"{layer}_{part}").output for part in ("pool", "residual2_relu")]
        assert all(
            a is b for a, b in zip(model.get_layer(f"{layer}_add").input, parts, strict=True)
        )
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 2
    assert not [v.path for v in model.weights if v.path.endswith("bias")]


def test_the_logits_are_scaled_by_an_eighth():
    model = davidnet_small((8, 8, 1), 5)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    pooled, logits = keras.Model(model.input, [model.get_layer("pool").output, model.output])(x)
    kernel = ops.convert_to_numpy(model.get_layer("logits").kernel)
    expected = ops.convert_to_numpy(pooled) @ kernel / 8
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name, fan_in", [("layer2", 9 * 128), ("logits", 512)])
def test_starts_as_in_pytorch(name, fan_in):
    kernel = ops.convert_to_numpy(davidnet().get_layer(name).kernel)
    limit = fan_in**-0.5
    assert 0.99 * limit < abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.02)


def test_images_of_another_size_keep_the_weights():
    shapes = [[w.shape for w in davidnet_small((s, s, 3)).weights] for s in (8, 32, 50)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert [davidnet_small().get_layer(f"layer{i}").filters for i in (1, 2, 3)] == [32, 64, 128]
