"""BERT: published sizes, keras_hub's logits, padding that is not seen, weights that move on."""

import keras
import numpy as np
import pytest
from keras import ops

from models import bert

DEPTH_WIDTH_HEADS = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


def encoder_parameters(depth, width, vocabulary_size=30522, max_sequence_length=512):
    """Counted from the paper: embeddings and their norm, layers, pooler."""
    attention = 4 * (width**2 + width)
    feed_forward = 2 * 4 * width**2 + 4 * width + width
    norms = 2 * 2 * width
    embeddings = (vocabulary_size + max_sequence_length + 2) * width + 2 * width
    return embeddings + depth * (attention + feed_forward + norms) + width**2 + width


def head_parameters(width, vocabulary_size=30522):
    return width**2 + width + 2 * width + vocabulary_size


def text(length, masked=3, *, batch=2, vocabulary_size=50, padded=0):
    rng = np.random.default_rng(0)
    present = np.arange(length) < length - padded
    return {
        "token_ids": rng.integers(1, vocabulary_size, (batch, length)).astype("int32"),
        "segment_ids": np.sort(rng.integers(0, 2, (batch, length))).astype("int32"),
        "padding_mask": np.tile(present, (batch, 1)).astype("int32"),
        "mask_positions": rng.integers(0, length - padded, (batch, masked)).astype("int32"),
    }


def shake(model):
    """Weights so large and so different that every part of the network counts."""
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(size=w.shape, scale=0.1) for w in model.get_weights()])
    return model


def numpy_of(outputs):
    return {key: ops.convert_to_numpy(value) for key, value in outputs.items()}


@pytest.mark.parametrize("name", ["tiny", "mini"])
def test_has_the_parameters_of_the_formula(name):
    depth, width, _ = DEPTH_WIDTH_HEADS[name]
    model = getattr(bert, f"bert_{name}")(vocabulary_size=999, max_sequence_length=77)
    encoder = encoder_parameters(depth, width, 999, 77)
    assert model.get_layer("backbone").count_params() == encoder
    assert model.count_params() == encoder + head_parameters(width, 999)
    both = getattr(bert, f"bert_{name}")(999, max_sequence_length=77, next_sentence=True)
    assert both.count_params() == model.count_params() + 2 * width + 2


def test_the_formula_gives_the_published_numbers():
    assert encoder_parameters(12, 768) == 109_482_240
    assert encoder_parameters(12, 768) + head_parameters(768) == 110_104_890
    assert encoder_parameters(24, 1024) == 335_141_888
    assert encoder_parameters(24, 1024) + head_parameters(1024) == 336_224_058
    for name, (depth, width, _) in DEPTH_WIDTH_HEADS.items():
        assert f"bert_{name} " in bert.__doc__
        assert f"{encoder_parameters(depth, width):,} |" in bert.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("name, parameters", [("base", 110_104_890), ("large", 336_224_058)])
def test_the_large_ones_have_the_published_numbers(name, parameters):
    model = getattr(bert, f"bert_{name}")()
    assert model.count_params() == parameters
    depth, width, _ = DEPTH_WIDTH_HEADS[name]
    assert model.get_layer("backbone").count_params() == encoder_parameters(depth, width)


@pytest.mark.parametrize("kind", ["", "_spans"])
@pytest.mark.parametrize("name", DEPTH_WIDTH_HEADS)
def test_each_name_has_its_sizes(monkeypatch, name, kind):
    depth, width, heads = DEPTH_WIDTH_HEADS[name]
    built = []

    class Stop(Exception):
        pass

    def spy(**sizes):
        built.append(sizes)
        raise Stop

    monkeypatch.setattr(bert, "Backbone", spy)
    with pytest.raises(Stop):
        getattr(bert, f"bert_{name}{kind}")(60, dropout=0.25, max_sequence_length=30)
    assert built == [
        {
            "pooled": False,
            "vocabulary_size": 60,
            "num_layers": depth,
            "num_heads": heads,
            "hidden_dim": width,
            "dropout": 0.25,
            "max_sequence_length": 30,
            "name": "backbone",
        }
    ]


def gelu(x):
    return keras.activations.gelu(x, approximate=True)


@pytest.mark.parametrize("length", [6, 9])
def test_agrees_with_keras_hub(length):
    import keras_hub

    model = shake(bert.bert_tiny(50, next_sentence=True, max_sequence_length=9))
    backbone = keras_hub.models.BertBackbone(50, 2, 2, 128, 512, max_sequence_length=9)
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=backbone.token_embedding,
        intermediate_activation=gelu,
        layer_norm_epsilon=1e-12,
    )
    x = text(length, padded=2)
    backbone.set_weights(model.get_layer("backbone").get_weights())
    encoded = backbone({key: x[key] for key in ("token_ids", "segment_ids", "padding_mask")})
    head(encoded["sequence_output"], x["mask_positions"])  # makes its weights
    values = {v.path: v for v in model.variables}
    for ours, theirs in {
        "masked_lm_dense/kernel": head._intermediate_dense.kernel,
        "masked_lm_dense/bias": head._intermediate_dense.bias,
        "masked_lm_layer_norm/gamma": head._intermediate_layer_norm.gamma,
        "masked_lm_layer_norm/beta": head._intermediate_layer_norm.beta,
        "masked_lm/bias": head._bias,
    }.items():
        theirs.assign(values[ours])
    found = numpy_of(model(x))
    expected = ops.convert_to_numpy(head(encoded["sequence_output"], x["mask_positions"]))
    assert expected.std() > 0.5
    np.testing.assert_allclose(found["masked_lm"], expected, rtol=0, atol=1e-4)

    pooled = ops.convert_to_numpy(encoded["pooled_output"])
    kernel, bias = (
        ops.convert_to_numpy(values[f"next_sentence_dense/{kind}"]) for kind in ("kernel", "bias")
    )
    np.testing.assert_allclose(found["next_sentence"], pooled @ kernel + bias, atol=1e-5)


def test_is_but_for_gelu_and_epsilon_keras_hub_s_own_network():
    import keras_hub

    model = shake(bert.bert_tiny(50, max_sequence_length=9))
    backbone = keras_hub.models.BertBackbone(50, 2, 2, 128, 512, max_sequence_length=9)
    reference = keras_hub.models.BertMaskedLM(backbone)
    backbone.set_weights(model.get_layer("backbone").get_weights())
    rest = [v.numpy() if hasattr(v, "numpy") else np.array(v) for v in model.variables][-5:]
    paths = [v.path for v in model.variables][-5:]
    assert paths == [
        "masked_lm_dense/kernel",
        "masked_lm_dense/bias",
        "masked_lm_layer_norm/gamma",
        "masked_lm_layer_norm/beta",
        "masked_lm/bias",
    ]
    theirs = reference.masked_lm_head.weights
    order = [next(w for w in theirs if w.path.endswith(end)) for end in (
        "intermediate_dense/kernel", "intermediate_dense/bias", "gamma", "beta", "output_bias",
    )]  # fmt: skip
    for variable, value in zip(order, rest, strict=True):
        variable.assign(value)
    x = text(9)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(x)["masked_lm"]),
        ops.convert_to_numpy(reference(x)),
        rtol=0,
        atol=0.01,
    )


def test_spans_are_a_dense_layer_on_each_token():
    model = shake(bert.bert_tiny_spans(50, max_sequence_length=9))
    x = text(9, padded=4)
    del x["mask_positions"]
    sequence = ops.convert_to_numpy(model.get_layer("backbone")(x)["sequence"])
    kernel, bias = (ops.convert_to_numpy(v) for v in model.get_layer("spans_dense").weights)
    expected = sequence @ kernel + bias
    found = numpy_of(model(x))
    for i, end in enumerate(("start", "end")):
        np.testing.assert_allclose(found[end][:, :5], expected[:, :5, i], atol=1e-4)
        np.testing.assert_array_equal(found[end][:, 5:], np.float32(-1e9))


def test_padding_is_not_seen():
    model = shake(bert.bert_tiny(50, next_sentence=True, max_sequence_length=12))
    x = text(7)
    long = {key: np.pad(value, ((0, 0), (0, 5))) for key, value in x.items()}
    long["mask_positions"] = x["mask_positions"]
    long["token_ids"][:, 7:] = text(5)["token_ids"]
    expected, found = numpy_of(model(x)), numpy_of(model(long))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-4)
    long["padding_mask"][:] = 1  # that it would matter otherwise
    assert abs(numpy_of(model(long))["masked_lm"] - expected["masked_lm"]).max() > 0.01


def test_pretrained_weights_move_to_the_network_for_spans():
    pretrained = shake(bert.bert_tiny(50, next_sentence=True))
    spans = bert.bert_tiny_spans(50)
    source, target = (model.get_layer("backbone") for model in (pretrained, spans))
    assert [v.path for v in source.weights] == [v.path for v in target.weights]
    target.set_weights(source.get_weights())
    x = text(8)
    del x["mask_positions"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(target(x)["sequence"]), ops.convert_to_numpy(source(x)["sequence"])
    )


@pytest.mark.parametrize("way", ["built", "cloned", "loaded"])
def test_the_logits_are_tied_to_the_embedding(tmp_path, way):
    model = shake(bert.bert_tiny(50))
    if way == "cloned":
        model, values = keras.models.clone_model(model), model.get_weights()
        model.set_weights(values)
    if way == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    embeddings = model.get_layer("backbone").encoder.token_embedding.embeddings
    embeddings.assign(np.zeros(embeddings.shape))
    bias = ops.convert_to_numpy(model.get_layer("masked_lm").bias)
    assert abs(bias).max() > 0.1
    logits = ops.convert_to_numpy(model(text(8))["masked_lm"])
    np.testing.assert_array_equal(logits, np.broadcast_to(bias, logits.shape))


def test_starts_as_in_the_paper():
    for variable in bert.bert_tiny(2000, next_sentence=True).trainable_variables:
        value, kind = ops.convert_to_numpy(variable), variable.path.rpartition("/")[2]
        if kind in ("bias", "beta"):
            assert (value == 0).all(), variable.path
        elif kind == "gamma":
            assert (value == 1).all(), variable.path
        else:  # a normal distribution cut off at two deviations has 0.88 of its deviation
            assert abs(value).max() <= 0.04, variable.path
            spread = 4 / np.sqrt(2 * value.size)
            np.testing.assert_allclose(value.std(), 0.02 * 0.8796, rtol=spread)


def test_the_dropout_reaches_the_encoder():
    x = text(8)
    model = shake(bert.bert_tiny(50, dropout=0.5))
    kept, dropped = (
        ops.convert_to_numpy(model(x, training=training)["masked_lm"]) for training in (False, True)
    )
    assert abs(kept - dropped).max() > 0.1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"vocabulary_size": 0}, "vocabulary_size of bert_tiny must be a positive integer.*0"),
        ({"vocabulary_size": 2.5}, "vocabulary_size of bert_tiny must be a positive integer"),
        ({"max_sequence_length": None}, "max_sequence_length of bert_tiny must be.*None"),
        ({"dropout": 1}, "dropout of bert_tiny must be.*from 0 to below 1. Received: dropout=1"),
        ({"dropout": -0.1}, "dropout of bert_tiny"),
        ({"dropout": "0.1"}, "dropout of bert_tiny"),
    ],
)
def test_refuses_what_is_no_size(arguments, words):
    with pytest.raises(ValueError, match=words):
        bert.bert_tiny(**arguments)


def test_a_pooler_that_nothing_reads_is_not_trained():
    for model, trained in (
        (bert.bert_tiny(40), False), (bert.bert_tiny_spans(40), False),
        (bert.bert_tiny(40, next_sentence=True), True),
    ):  # fmt: skip
        paths = [variable.path for variable in model.trainable_variables]
        assert any("pooled_dense" in path for path in paths) == trained
        copy = keras.models.clone_model(model)
        assert [variable.path for variable in copy.trainable_variables] == paths
