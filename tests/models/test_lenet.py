"""The reference LeNets: published sizes, stable paths, logits that no policy rounds."""

import keras
import numpy as np
import pytest

from models.lenet import lenet5, lenet_caffe

NETS = [lenet5, lenet_caffe]
LEAST_SIZE = {lenet5: 12, lenet_caffe: 16}


@pytest.fixture
def policy():
    """Sets the global dtype policy, and puts the old one back."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("net, parameters", [(lenet5, 61_706), (lenet_caffe, 431_080)])
def test_has_the_published_number_of_parameters(net, parameters):
    model = net(input_shape=(28, 28, 1), num_classes=10)
    assert model.count_params() == parameters
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters


@pytest.mark.parametrize(
    "net, layers",
    [
        (lenet5, ["conv1", "conv2", "fc1", "fc2", "logits"]),
        (lenet_caffe, ["conv1", "conv2", "fc1", "logits"]),
    ],
)
def test_paths_are_the_layers_and_do_not_change_with_the_second_model(net, layers):
    expected = [f"{layer}/{kind}" for layer in layers for kind in ("kernel", "bias")]
    for _ in range(2):
        assert [v.path for v in net().variables] == expected


@pytest.mark.parametrize("net", NETS)
def test_returns_logits_not_probabilities(net):
    images = np.random.default_rng(0).uniform(size=(5, 28, 28, 1)).astype("float32")
    logits = keras.ops.convert_to_numpy(net()(images))
    assert logits.shape == (5, 10)
    assert (logits < 0).any()
    assert (abs(logits.sum(-1) - 1) > 1e-3).all()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "name, hidden, logits",
    [
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("mixed_float16", "float16", "float32"),
        ("float32", "float32", "float32"),
    ],
)
def test_logits_are_float32_under_half_precision(policy, net, name, hidden, logits):
    policy(name)
    model = net()
    assert model.get_layer("fc1").compute_dtype == hidden
    output = model(np.ones((2, 28, 28, 1), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == logits
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


@pytest.mark.tensorflow  # JAX has no float64 unless it is switched on
@pytest.mark.parametrize("net", NETS)
def test_a_float64_model_is_not_rounded_at_its_end(policy, net):
    policy("float64")
    assert net().get_layer("logits").compute_dtype == "float64"


@pytest.mark.parametrize("net", NETS)
def test_the_least_size_works_and_one_less_is_refused(net):
    least = LEAST_SIZE[net]
    assert net(input_shape=(least, least + 3, 3), num_classes=2).output_shape == (None, 2)
    for small in [(least - 1, 28, 1), (28, least - 1, 1)]:
        with pytest.raises(ValueError, match=rf"at least {least}x{least}.*Received.*Resize"):
            net(input_shape=small)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("shape", [(28, 28), (None, 28, 28, 1), (28, 28, 0), (28.0, 28, 1), 28])
def test_refuses_what_is_no_image_shape(net, shape):
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*Received.*28, 28, 1"):
        net(input_shape=shape)


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, True, None])
def test_refuses_what_is_no_number_of_classes(num_classes):
    with pytest.raises(ValueError, match="num_classes of lenet5 must be a positive integer"):
        lenet5(num_classes=num_classes)
