"""ResNet-50, against those of keras-hub (v1.5) and keras.applications (v1), and how it starts."""

import keras
import numpy as np
import pytest
from keras import ops

from models.cost import multiply_adds
from models.resnet import resnet50, resnet_small

BLOCKS = [
    (stage, block) for stage, count in enumerate((3, 4, 6, 3), 1) for block in range(1, count + 1)
]
PARTS = ["shortcut", "conv1", "conv2", "conv3"]  # 0 to 3 in the others' names


def hub_name(stage, block, part):
    return f"stack{stage - 1}_block{block - 1}_{part}"


def keras_name(stage, block, part):
    return f"conv{stage + 1}_block{block}_{part}"


def copy_random_weights(reference, model, name):
    """Gives every weight of `reference` a value of its own, and `model` the same."""
    rng = np.random.default_rng(0)
    pairs = [("conv1_conv", "conv1"), ("conv1_bn", "conv1_bn")]
    for stage, block in BLOCKS:
        for i, part in enumerate(PARTS if block == 1 else PARTS[1:], start=block > 1):
            theirs, ours = name(stage, block, i), f"stage{stage}_block{block}_{part}"
            pairs += [(f"{theirs}_conv", ours), (f"{theirs}_bn", f"{ours}_bn")]
    for theirs, ours in pairs:
        layer = reference.get_layer(theirs)
        values = [w + rng.uniform(-0.3, 0.3, w.shape) * (w.ndim == 1) for w in layer.get_weights()]
        layer.set_weights(values)
        model.get_layer(ours).set_weights(values)
    copied = sum(len(model.get_layer(ours).weights) for _, ours in pairs)
    assert copied == len(model.weights) - len(model.get_layer("logits").weights)


def images():
    return np.random.default_rng(1).normal(size=(2, 64, 48, 3)).astype("float32")


def assert_alike(model, reference):
    actual, expected = (ops.convert_to_numpy(m(images())) for m in (model, reference))
    np.testing.assert_allclose(actual, expected, atol=1e-4 * abs(expected).max())
    assert expected.std() > 0.01 * abs(expected).max()


@pytest.mark.tensorflow  # JAX takes a minute for each
def test_v1_5_answers_as_the_backbone_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    hub = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(64, 48, 3),
    )
    model = resnet50((64, 48, 3), 10)
    copy_random_weights(hub, model, hub_name)
    pooled = keras.layers.GlobalAveragePooling2D()(hub.output)
    dense = keras.layers.Dense(10)
    reference = keras.Model(hub.input, dense(pooled))
    dense.set_weights([1 + 30 * w for w in model.get_layer("logits").get_weights()])
    model.get_layer("logits").set_weights(dense.get_weights())
    assert_alike(model, reference)


@pytest.mark.tensorflow  # JAX takes a minute for each
def test_v1_with_biases_answers_as_that_of_keras():
    reference = keras.applications.ResNet50(
        weights=None, input_shape=(64, 48, 3), classes=10, classifier_activation=None
    )
    model = resnet50((64, 48, 3), 10, strides="v1", use_bias=True)
    copy_random_weights(reference, model, keras_name)
    model.get_layer("logits").set_weights(reference.get_layer("predictions").get_weights())
    assert model.count_params() == reference.count_params()
    assert multiply_adds(model) == multiply_adds(reference)
    assert_alike(model, reference)  # their epsilon, 1.001e-5, is within the tolerance


def test_a_block_starts_as_its_shortcut():
    model = resnet_small((32, 32, 3), blocks=(2, 2), width=0.125)
    inside = [model.get_layer(f"stage2_block{i}_relu3").output for i in (1, 2)]
    before, after = keras.Model(model.input, inside)(images()[:, :32, :32])
    np.testing.assert_array_equal(ops.convert_to_numpy(after), ops.convert_to_numpy(before))
    assert float(ops.max(before)) > 0


@pytest.mark.parametrize("zero_gamma", [True, False])
def test_the_last_gamma_of_each_block_starts_at_zero(zero_gamma):
    model = resnet_small((32, 32, 3), blocks=(2, 1), width=0.125, zero_gamma=zero_gamma)
    gammas = {v.path: set(ops.convert_to_numpy(v)) for v in model.weights if "gamma" in v.path}
    zero = {path for path, values in gammas.items() if values == {0.0}}
    assert zero == {path for path in gammas if "conv3" in path and zero_gamma}
    assert all(values == {1.0} for path, values in gammas.items() if path not in zero)


def test_the_kernels_start_as_goyals():
    model = resnet_small((32, 32, 3), 1000, width=1)
    for name, fan_in in [
        ("conv1", 147),
        ("stage3_block1_conv2", 2304),
        ("stage4_block1_conv3", 512),
    ]:
        kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
        np.testing.assert_allclose(kernel.std(), (2 / fan_in) ** 0.5, rtol=0.03)
    logits = model.get_layer("logits")
    np.testing.assert_allclose(ops.convert_to_numpy(logits.kernel).std(), 0.01, rtol=0.01)
    assert not ops.convert_to_numpy(logits.bias).any()
    norm = model.get_layer("stage1_block1_conv1_bn")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("strides, where", [("v1.5", "conv2"), ("v1", "conv1")])
def test_where_a_block_halves_the_image(strides, where):
    model = resnet_small((64, 64, 3), strides=strides)
    for stage in (2, 3, 4):
        halving = {
            p for p in PARTS if model.get_layer(f"stage{stage}_block1_{p}").strides == (2, 2)
        }
        assert halving == {"shortcut", where}
    assert {model.get_layer(f"stage1_block1_{p}").strides for p in PARTS} == {(1, 1)}


def test_the_small_one_takes_stages_blocks_and_width():
    model = resnet_small((64, 64, 3), blocks=(1, 2, 1), width=0.5)
    names = [layer.name for layer in model.layers]
    assert "stage2_block2_conv3" in names and "stage4_block1_conv1" not in names
    assert model.get_layer("stage3_block1_conv3").filters == 4 * 128
    assert resnet_small((9, 9, 3), blocks=(1, 1, 1)).output_shape == (None, 10)
    with pytest.raises(ValueError, match="resnet_small needs images of at least 9x9"):
        resnet_small((8, 8, 3), blocks=(1, 1, 1))


@pytest.mark.parametrize("blocks", [(), (0, 1), 4, (1.0, 1), None])
def test_refuses_what_are_no_blocks(blocks):
    with pytest.raises(ValueError, match="blocks of resnet_small must be.*Received: blocks="):
        resnet_small(blocks=blocks)


def test_an_unknown_stride_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="strides of resnet50 must be 'v1.5' or 'v1'.*'v2'"):
        resnet50(strides="v2")
