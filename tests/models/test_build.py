"""What holds for every reference network, and how `build` answers mistakes."""

import itertools
import re

import keras
import numpy as np
import pytest
from keras import ops

import models
from tf_largebatch.optimizers import BIAS_AND_NORM

# The smallest image that each network takes.
LEAST_SIZE = {
    "lenet5": 12,
    "lenet_caffe": 16,
    "mnist_lstm": 1,
    "davidnet": 8,
    "davidnet_small": 8,
    "alexnet": 67,
    "alexnet_bn": 67,
    "alexnet_bn_val2": 67,
    "alexnet_small": 29,
    "googlenet": 17,
    "vgg19": 32,
    "resnet50": 17,
    "resnet_small": 17,
}
# JAX compiles one operation after the other, which takes it a minute for so many layers.
DEEP = pytest.mark.tensorflow
# Small enough to train or to save here, with every kind of layer.
SMALL = [
    ("lenet5", 28, {}),
    ("lenet_caffe", 28, {}),
    ("mnist_lstm", 12, {}),
    ("davidnet_small", 16, {"width": 0.125}),
    ("alexnet_small", 32, {"normalization": "lrn"}),
    ("alexnet_small", 32, {"normalization": "bn"}),
    ("alexnet_small", 32, {"normalization": "bn_val2"}),
    ("resnet_small", 32, {"width": 0.125, "blocks": (1, 1)}),
    pytest.param("resnet_small", 32, {"strides": "v1", "use_bias": True}, marks=DEEP),
    pytest.param("googlenet", 32, {}, marks=DEEP),
]


def images(size, count=4):
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype("float32")


def test_the_table_here_has_every_model():
    assert list(LEAST_SIZE) == list(models.MODELS)
    small = {getattr(case, "values", case)[0] for case in SMALL}
    assert small == set(models.MODELS) - {
        "davidnet", "alexnet", "alexnet_bn", "alexnet_bn_val2", "vgg19", "resnet50",
    }  # fmt: skip


@pytest.mark.parametrize("name", models.MODELS)
def test_the_smallest_image_works_and_every_network_keeps_the_conventions(name):
    least = LEAST_SIZE[name]
    model = models.build(name, input_shape=(least, least + 2, 3), num_classes=7)
    assert model.name == name
    assert model.input_shape == (None, least, least + 2, 3)
    assert model.output_shape == (None, 7)
    assert model.output.dtype == "float32"
    for variable in model.trainable_variables:
        layer, *_, kind = variable.path.split("/")
        assert layer in {part.name for part in model.layers}
        assert kind in ("kernel", "recurrent_kernel", "bias", "gamma", "beta")
        excluded = kind in ("bias", "gamma", "beta")
        assert bool(re.search(BIAS_AND_NORM, variable.path)) == excluded


@pytest.mark.parametrize("name", [name for name in models.MODELS if LEAST_SIZE[name] > 1])
def test_a_smaller_image_is_refused_with_the_smallest_that_works(name):
    least = LEAST_SIZE[name]
    for small in [(least - 1, 300, 3), (300, least - 1, 3)]:
        with pytest.raises(ValueError, match=rf"{name} needs.*at least {least}x{least}.*Received"):
            models.build(name, input_shape=small, num_classes=7)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_checks_its_shape_and_classes(name):
    with pytest.raises(ValueError, match=rf"input_shape of {name} must be three.*Received"):
        models.build(name, input_shape=(300, 300), num_classes=7)
    with pytest.raises(ValueError, match=rf"num_classes of {name} must be a positive.*Received"):
        models.build(name, input_shape=(300, 300, 3), num_classes=0)


def assert_logits_are_float32(policy, variables, name, size, options):
    keras.config.set_dtype_policy(policy)
    model = models.build(name, input_shape=(size, size, 3), num_classes=7, **options)
    assert model.layers[2].compute_dtype == "bfloat16"
    logits = model(images(size))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.isfinite(ops.convert_to_numpy(logits)).all()
    assert {v.dtype for v in model.trainable_variables} == {variables}


@pytest.mark.parametrize("name, size, options", SMALL)
def test_logits_are_float32_under_mixed_precision(name, size, options):
    assert_logits_are_float32("mixed_bfloat16", "float32", name, size, options)


@pytest.mark.parametrize("name, size, options", SMALL[:5])
def test_logits_are_float32_where_the_weights_are_half_too(name, size, options):
    assert_logits_are_float32("bfloat16", "bfloat16", name, size, options)


@pytest.mark.parametrize("name, size, options", SMALL)
def test_a_saved_network_answers_alike(tmp_path, name, size, options):
    model = models.build(name, input_shape=(size, size, 3), num_classes=7, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    x = images(size)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize("name, size, options", SMALL)
def test_training_moves_every_weight(name, size, options):
    model = models.build(name, input_shape=(size, size, 3), num_classes=7, **options)
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.compile(
        keras.optimizers.Adam(0.01, epsilon=1e-12),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    # Twice: where a last gamma starts at zero, the first update reaches nothing before it.
    for _ in range(2):
        model.train_on_batch(images(size), np.arange(4))
    # Batch normalisation cancels the bias just before it: what moves that one is rounding.
    cancelled = set()
    for layer, after in itertools.pairwise(model.layers):
        if isinstance(after, keras.layers.BatchNormalization) and getattr(layer, "use_bias", False):
            cancelled.add(layer.bias.path)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        new = ops.convert_to_numpy(variable)
        assert np.isfinite(new).all()
        assert variable.path in cancelled or (new != old).any(), variable.path


def test_options_reach_the_network():
    model = models.build("mnist_lstm", input_shape=(28, 28, 1), num_classes=10, units=16)
    assert model.get_layer("lstm").units == 16


def test_an_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match="lenet5 has no such.*Received: width=2. Its options: none"
    ):
        models.build("lenet5", input_shape=(28, 28, 1), num_classes=10, width=2)
    with pytest.raises(ValueError, match="Received: stride='v1'.*strides, zero_gamma, use_bias"):
        models.build("resnet50", input_shape=(32, 32, 3), num_classes=10, stride="v1")


@pytest.mark.parametrize("width", [0, -1, "wide", True, None, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["davidnet_small", "alexnet_small", "resnet_small"])
def test_refuses_what_is_no_width(name, width):
    with pytest.raises(ValueError, match="width must be a positive factor.*Received: width="):
        models.build(name, input_shape=(32, 32, 3), num_classes=10, width=width)


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match="'lenet-5'.*Nearest: lenet5.*lenet5, lenet_caffe"):
        models.build("lenet-5", input_shape=(28, 28, 1), num_classes=10)
    with pytest.raises(ValueError, match="'zzz'. The models are: alexnet"):
        models.build("zzz", input_shape=(28, 28, 1), num_classes=10)
