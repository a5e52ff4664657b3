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
# The same for the networks that read text.
SMALL_TEXT = [
    ("bert_tiny", {"next_sentence": True, "max_sequence_length": 16}),
    ("bert_tiny_spans", {"max_sequence_length": 16}),
    ("lstm_lm", {"units": 8}),
    ("lstm_lm", {"units": 8, "tied": True}),
    ("gnmt", {"units": 8}),
    ("gnmt_small", {"units": 8}),
]
WORDS = 40
# What is no kernel and no table, by its last name, and whether `BIAS_AND_NORM` has it.
TEXT_VECTORS = {"bias": True, "gamma": True, "beta": True, "vector": False, "scale": False}


def images(size, count=4):
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype("float32")


def test_the_table_here_has_every_model():
    images = [function.__name__ for function in models.TASKS["classification"]]
    assert list(LEAST_SIZE) == images
    small = {getattr(case, "values", case)[0] for case in SMALL + SMALL_TEXT}
    assert small == set(models.MODELS) - {
        "davidnet", "alexnet", "alexnet_bn", "alexnet_bn_val2", "vgg19", "resnet50",
    } - {
        f"bert_{size}{kind}" for size in ("mini", "small", "base", "large")
        for kind in ("", "_spans")
    }  # fmt: skip


@pytest.mark.parametrize("name", LEAST_SIZE)
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


@pytest.mark.parametrize("name", [name for name in LEAST_SIZE if LEAST_SIZE[name] > 1])
def test_a_smaller_image_is_refused_with_the_smallest_that_works(name):
    least = LEAST_SIZE[name]
    for small in [(least - 1, 300, 3), (300, least - 1, 3)]:
        with pytest.raises(ValueError, match=rf"{name} needs.*at least {least}x{least}.*Received"):
            models.build(name, input_shape=small, num_classes=7)


@pytest.mark.parametrize("name", LEAST_SIZE)
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


def text(name):
    """Inputs of the network, with padding, and labels in the structure of its outputs."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, WORDS, (3, 7)).astype("int32")
    task = models.task_of(name)
    if task == "language_model":
        return ids, ids
    padded = np.where(np.arange(7) < [[7], [5], [4]], ids, 0)
    if task == "translation":
        return {"source_ids": padded, "target_ids": ids}, ids
    inputs = {
        "token_ids": padded,
        "segment_ids": (ids % 2) * (padded > 0),
        "padding_mask": (padded > 0).astype("int32"),
    }
    if task == "spans":
        return inputs, {"start": ids[:, 0] % 4, "end": ids[:, 1] % 4}
    inputs["mask_positions"] = ids[:, :3] % 4
    return inputs, {"masked_lm": ids[:, 4:], "next_sentence": ids[:, 0] % 2}


def outputs_of(model, x):
    outputs = model(x)
    outputs = outputs if isinstance(outputs, dict) else {"": outputs}
    return {key: ops.convert_to_numpy(value) for key, value in outputs.items()}


@pytest.mark.parametrize("name, options", SMALL_TEXT)
def test_every_text_network_keeps_the_conventions(name, options):
    model = models.build(name, vocabulary_size=WORDS, **options)
    assert model.name == name
    for output in model.outputs:
        assert output.dtype == "float32"
        assert getattr(output, "_keras_mask", None) is None
    if isinstance(model.output, dict):  # Keras calls outputs by their layers, we by their keys
        assert sorted(model.output_names) == sorted(model.output)
    for output in keras.tree.flatten(model(text(name)[0])):
        assert getattr(output, "_keras_mask", None) is None
    for variable in model.trainable_variables:
        layer, *_, kind = variable.path.split("/")
        assert layer in {part.name for part in model.layers}
        assert kind in TEXT_VECTORS or kind in ("kernel", "recurrent_kernel", "embeddings")
        excluded = TEXT_VECTORS.get(kind, False)
        assert bool(re.search(BIAS_AND_NORM, variable.path)) == excluded, variable.path


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("name, options", SMALL_TEXT)
def test_logits_of_text_are_float32_under_half_precision(name, options, policy):
    keras.config.set_dtype_policy(policy)
    model = models.build(name, vocabulary_size=WORDS, **options)
    variables = "bfloat16" if policy == "bfloat16" else "float32"
    assert {v.dtype for v in model.trainable_variables} == {variables}
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
    for output in outputs_of(model, text(name)[0]).values():
        assert output.dtype == "float32"
        assert np.isfinite(output).all()
        rounded = ops.convert_to_numpy(ops.cast(ops.cast(output, "bfloat16"), "float32"))
        if policy == "mixed_bfloat16":
            assert (rounded != output).any()  # no bfloat16 on the way out


@pytest.mark.parametrize("name, options", SMALL_TEXT)
def test_a_saved_and_a_cloned_text_network_answer_alike(tmp_path, name, options):
    model = models.build(name, vocabulary_size=WORDS, **options)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    x, _ = text(name)
    expected = outputs_of(model, x)
    for copy in (loaded, cloned):
        assert [v.path for v in copy.weights] == [v.path for v in model.weights]
        found = outputs_of(copy, x)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("name, options", SMALL_TEXT)
def test_training_moves_every_weight_of_a_text_network(name, options):
    model = models.build(name, vocabulary_size=WORDS, **options)
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    x, y = text(name)

    def loss():
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    model.compile(
        keras.optimizers.Adam(0.01, epsilon=1e-12),
        {key: loss() for key in y} if isinstance(y, dict) else loss(),
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    model.train_on_batch(x, y)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        new = ops.convert_to_numpy(variable)
        assert np.isfinite(new).all()
        # Attention's softmax cancels what a key's bias adds to all scores.
        cancelled = variable.path.endswith("key/bias")
        assert cancelled or (new != old).any(), variable.path


def test_a_network_is_refused_data_of_the_other_kind():
    with pytest.raises(
        ValueError,
        match="bert_tiny reads text: it takes vocabulary_size. Received"
        ": input_shape, num_classes, as image data give",
    ):
        models.build("bert_tiny", input_shape=(28, 28, 1), num_classes=10)
    with pytest.raises(
        ValueError,
        match="lenet5 sees images: it takes input_shape and num_classes."
        " Received: vocabulary_size, as text data give",
    ):
        models.build("lenet5", vocabulary_size=10)
    with pytest.raises(ValueError, match="reads text.*Received: no vocabulary_size"):
        models.build("gnmt", units=3)
    with pytest.raises(ValueError, match="sees images.*Received: no num_classes"):
        models.build("lenet5", input_shape=(28, 28, 1))


def test_a_network_is_refused_data_of_another_task():
    with pytest.raises(
        ValueError,
        match="bert_tiny is for the task masked_lm. Received.*task='spans'.*bert_tiny_sp",
    ):
        models.build("bert_tiny", task="spans", vocabulary_size=10)
    with pytest.raises(
        ValueError, match="is for the task translation.*'zzz'. The tasks: classific"
    ):
        models.build("gnmt", task="zzz", vocabulary_size=10)
    assert models.build("lstm_lm", task="language_model", vocabulary_size=9, units=3)


def test_an_unknown_option_of_a_text_network_is_answered_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match="bert_tiny_spans has no such option. Received: "
        "next_sentence=False. Its options: dropout, max_sequence_length",
    ):
        models.build("bert_tiny_spans", vocabulary_size=10, next_sentence=False)


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
