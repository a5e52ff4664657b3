"""GoogLeNet, against the sizes in the paper's Table 1, and its auxiliary heads."""

import keras
import numpy as np
import pytest

from models.googlenet import googlenet

TABLE_1 = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    "conv2": (56, 56, 192),
    "pool2": (28, 28, 192),
    "inception_3a": (28, 28, 256),
    "inception_3b": (28, 28, 480),
    "pool3": (14, 14, 480),
    "inception_4a": (14, 14, 512),
    "inception_4b": (14, 14, 512),
    "inception_4c": (14, 14, 512),
    "inception_4d": (14, 14, 528),
    "inception_4e": (14, 14, 832),
    "pool4": (7, 7, 832),
    "inception_5a": (7, 7, 832),
    "inception_5b": (7, 7, 1024),
    "pool5": (1024,),
    "logits": (1000,),
}
# The table's column "ops", in millions, with the module of which it isn't true: 5a's 54 are 51.
MILLIONS = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71}


@pytest.fixture(scope="module")
def network():
    return googlenet((224, 224, 3), 1000, auxiliary_heads=True)


def test_the_sizes_of_table_1(network):
    assert {name: network.get_layer(name).output.shape[1:] for name in TABLE_1} == TABLE_1


@pytest.mark.parametrize("module", MILLIONS)
def test_the_operations_of_table_1(network, module):
    convolutions = [
        layer
        for layer in network.layers
        if layer.name.startswith(f"inception_{module}_") and layer.weights
    ]
    assert len(convolutions) == 6
    height, width = network.get_layer(f"inception_{module}").output.shape[1:3]
    weights = sum(np.prod(layer.kernel.shape) for layer in convolutions)
    assert height * width * weights / 1e6 == pytest.approx(MILLIONS[module], abs=0.7)


def test_the_auxiliary_heads(network):
    for module, channels in (("4a", 512), ("4d", 528)):
        pool = network.get_layer(f"auxiliary_{module}_pool")
        assert pool.input is network.get_layer(f"inception_{module}").output
        assert pool.output.shape == (None, 4, 4, channels)
        assert network.get_layer(f"auxiliary_{module}_dropout").rate == 0.7
    for name, output in network.output.items():
        assert output is network.get_layer(name).output
    assert set(network.output) == {"logits", "auxiliary_4a_logits", "auxiliary_4d_logits"}


@pytest.mark.tensorflow  # JAX takes a minute for each
def test_the_three_losses_train_together():
    model = googlenet((65, 65, 1), 3, auxiliary_heads=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    factors = {name: 1.0 if name == "logits" else 0.3 for name in model.output}
    model.compile("sgd", dict.fromkeys(factors, loss), loss_weights=factors, run_eagerly=True)
    x, y = np.ones((2, 65, 65, 1), "float32"), np.array([0, 2])
    result = model.train_on_batch(x, dict.fromkeys(factors, y), return_dict=True)
    expected = sum(factor * result[f"{name}_loss"] for name, factor in factors.items())
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-5)


def test_auxiliary_heads_need_larger_images():
    with pytest.raises(ValueError, match="googlenet with auxiliary heads needs.*at least 65x65"):
        googlenet((64, 80, 3), 10, auxiliary_heads=True)


def test_standardised_images_are_seen_as_the_published_start_expects_them(network):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3))
    centred = pixels - np.array([123.675, 116.28, 103.53])
    standardised = centred / np.array([58.395, 57.12, 57.375])
    found = keras.ops.convert_to_numpy(network.get_layer("pixels")(standardised.astype("float32")))
    np.testing.assert_allclose(found, centred, rtol=0.015)
    assert "pixels" not in [layer.name for layer in googlenet((32, 32, 3), 2, input_scale=1).layers]
