"""The AlexNets: the order of their layers, and how they start."""

import keras
import numpy as np
import pytest
from keras import ops

from models.alexnet import alexnet, alexnet_bn, alexnet_bn_val2, alexnet_small

ORDER = {
    alexnet: (
        "conv1 relu1 lrn1 pool1 conv2 relu2 lrn2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    ),
    alexnet_bn: (
        "conv1 conv1_bn relu1 pool1 conv2 conv2_bn relu2 pool2 conv3 conv3_bn relu3 "
        "conv4 conv4_bn relu4 conv5 conv5_bn relu5 pool5"
    ),
    alexnet_bn_val2: (
        "conv1 relu1 pool1 conv1_bn conv2 relu2 pool2 conv2_bn conv3 relu3 conv3_bn "
        "conv4 relu4 conv4_bn conv5 relu5 pool5"
    ),
}
KERNEL_DEVIATIONS = {"conv1": 0.01, "conv4": 0.01, "fc6": 0.005, "fc7": 0.005, "logits": 0.01}
BIASES = {  # Caffe's bias_filler, from the three files
    alexnet: {"conv1": 0, "conv2": 0.1, "conv3": 0, "conv4": 0.1, "conv5": 0.1, "logits": 0},
    alexnet_bn: {"conv5": 0.1, "logits": 0},
    alexnet_bn_val2: {f"conv{i}": 0.01 for i in range(1, 6)} | {"logits": 0.01},
}


@pytest.mark.parametrize("net", ORDER)
def test_the_layers_their_order_and_their_start(net):
    model = net((67, 67, 3), 10)
    order = [layer.name for layer in model.layers]
    last = ["flatten", "fc6", "dropout6", "fc7", "dropout7", "logits"]
    assert order == ["image", "pixels", *ORDER[net].split(), *last]
    assert [model.get_layer(f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    for layer in model.layers:
        if "_bn" in layer.name:
            assert (layer.epsilon, layer.momentum) == (1e-4, 0.9)
            assert layer.center == layer.scale == (net is alexnet_bn)
    for name, deviation in KERNEL_DEVIATIONS.items():
        kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.03)
        assert abs(kernel.mean()) < deviation / 50
    biases = {
        layer.name: ops.convert_to_numpy(layer.bias)
        for layer in model.layers
        if getattr(layer, "bias", None) is not None
    }
    assert set(biases) == {*BIASES[net], "fc6", "fc7"}
    for name, bias in biases.items():
        np.testing.assert_allclose(bias, BIASES[net].get(name, 0.1))


@pytest.mark.parametrize(
    "net, normalization", [(alexnet, "lrn"), (alexnet_bn, "bn"), (alexnet_bn_val2, "bn_val2")]
)
def test_the_small_one_has_the_same_layers(net, normalization):
    small = alexnet_small((32, 32, 1), 10, normalization=normalization)
    order = ["image", *ORDER[net].split(), "flatten"]
    assert [layer.name for layer in small.layers[: len(order)]] == order
    assert [small.get_layer(f"conv{i}").filters for i in range(1, 6)] == [24, 64, 96, 96, 64]
    assert small.get_layer("fc6").units == small.get_layer("fc7").units == 1024


def test_an_unknown_normalization_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'lrn', 'bn', 'bn_val2'. Received: normalization='batch'"):
        alexnet_small(normalization="batch")


SEEN = {  # what the Caffe files subtract and divide by
    alexnet: 1.0,
    alexnet_bn: 1.0,
    alexnet_bn_val2: 1 / 256,
}


@pytest.mark.parametrize("net", SEEN)
def test_standardised_images_are_seen_as_the_published_start_expects_them(net):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 67, 67, 3))
    deviations = np.array([58.395, 57.12, 57.375])
    centred = pixels - np.array([123.675, 116.28, 103.53])
    layer = net((67, 67, 3), 10).get_layer("pixels")
    found = ops.convert_to_numpy(layer((centred / deviations).astype("float32")))
    np.testing.assert_allclose(found, centred * SEEN[net], rtol=0.015)


def test_images_that_are_as_published_can_be_passed_on():
    assert "pixels" not in [layer.name for layer in alexnet((67, 67, 3), 10, input_scale=1).layers]
    with pytest.raises(ValueError, match="above 0. Received: input_scale=0. .* pass 1 for"):
        alexnet((67, 67, 3), 10, input_scale=0)


def test_the_start_of_alexnet_reaches_conv5():
    """Images differ there, not only biases: the published scale of the input makes them."""
    x = np.random.default_rng(0).normal(size=(8, 67, 67, 3)).astype("float32")
    spread = {}
    for scale in (1.0, 57.6):
        model = alexnet((67, 67, 3), 10, input_scale=scale)
        conv5 = keras.Model(model.input, model.get_layer("conv5").output)
        spread[scale] = ops.convert_to_numpy(conv5(x)).std(0).mean()
    assert spread[57.6] > 10 * spread[1.0]


def test_the_small_lrn_is_that_of_alexnet_on_standardised_images():
    small = alexnet_small((32, 32, 3), 10, normalization="lrn").get_layer("lrn1")
    large = alexnet((67, 67, 3), 10).get_layer("lrn1")
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 24)).astype("float32")
    expected = ops.convert_to_numpy(large(57.6 * x)) / 57.6
    np.testing.assert_allclose(ops.convert_to_numpy(small(x)), expected, rtol=1e-5)
    assert abs(expected / x).min() < 0.7
