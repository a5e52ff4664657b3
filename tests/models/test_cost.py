"""Multiply-adds, against counts by hand, and what can't be counted is refused."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import models
from models.bert import TiedLogits
from models.cost import activations, multiply_adds


def model_of(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


def graph_of(function, *shapes):
    """A functional model of a function of inputs of these shapes."""
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, function(*inputs))


@pytest.mark.parametrize(
    "shape, layer, expected",
    [
        ((10,), layers.Dense(7), 10 * 7),
        ((5, 10), layers.Dense(7, use_bias=False), 5 * 10 * 7),
        ((9, 8, 6), layers.Conv2D(4, 3), 7 * 6 * 4 * (3 * 3 * 6)),
        ((9, 8, 6), layers.Conv2D(4, (3, 1), strides=2, padding="same"), 5 * 4 * 4 * (3 * 6)),
        ((9, 8, 6), layers.Conv2D(4, 3, groups=2), 7 * 6 * 4 * (3 * 3 * 3)),
        ((9, 8, 6), layers.DepthwiseConv2D(3, depth_multiplier=2), 7 * 6 * 12 * (3 * 3)),
        ((9, 6), layers.Conv1D(4, 3), 7 * 4 * (3 * 6)),
        ((5, 10), layers.LSTM(3), 5 * (4 * 3) * (10 + 3)),
        ((5, 10), layers.LSTM(3, return_sequences=True), 5 * (4 * 3) * (10 + 3)),
        ((5, 10), layers.Bidirectional(layers.LSTM(3)), 2 * 5 * (4 * 3) * (10 + 3)),
        ((5, 10), layers.EinsumDense("abc,cd->abd", (5, 7)), 5 * 10 * 7),
        ((5, 4, 6), layers.EinsumDense("abcd,cde->abe", (5, 7)), 5 * 4 * 6 * 7),
        ((5, 10), layers.EinsumDense("...x,xy->...y", 7), 5 * 10 * 7),
        ((9, 8, 6), layers.BatchNormalization(), 0),
        ((9, 8, 6), layers.MaxPooling2D(), 0),
        ((9, 8, 6), layers.Dropout(0.5), 0),
        ((9,), layers.Embedding(100, 8), 0),
    ],
)
def test_counts_one_layer(shape, layer, expected):
    assert multiply_adds(model_of(shape, layer)) == expected


@pytest.mark.parametrize(
    "function, shapes, expected",
    [
        (ops.matmul, [(5, 6), (6, 7)], 5 * 6 * 7),
        (ops.matmul, [(3, 5, 6), (3, 6, 7)], 3 * 5 * 6 * 7),
        (lambda x, y: ops.einsum("bij,bkj->bik", x, y), [(5, 6), (7, 6)], 5 * 7 * 6),
        (lambda x, y: ops.softmax(ops.tanh(x) * y + 1), [(5, 6), (5, 6)], 0),
    ],
)
def test_counts_operations_in_the_graph(function, shapes, expected):
    assert multiply_adds(graph_of(function, *shapes)) == expected


def test_counts_attention():
    # 3 heads of 4 keys and 5 values; queries of 6 at 7 places look at 9 places of 8
    attention = layers.MultiHeadAttention(3, 4, value_dim=5)
    projections = 7 * 6 * 12 + 9 * 8 * 12 + 9 * 8 * 15 + 7 * 15 * 6
    assert multiply_adds(graph_of(attention, (7, 6), (9, 8))) == projections + 7 * 9 * (12 + 15)


@pytest.mark.parametrize("tied", [True, False])
def test_counts_the_way_back_of_an_embedding(tied):
    embedding = layers.ReversibleEmbedding(100, 8, tie_weights=tied)
    model = graph_of(lambda x: embedding(embedding(x), reverse=True), (5,))
    assert multiply_adds(model) == 5 * 8 * 100
    assert multiply_adds(graph_of(embedding, (5,))) == 0


def test_counts_the_models_within_a_model():
    inner = model_of((4,), layers.Dense(3), layers.Dense(2))
    image = keras.Input((4,))
    assert multiply_adds(keras.Model(image, layers.Dense(5)(inner(image)))) == 12 + 6 + 10
    other = graph_of(lambda x, y: layers.Dense(2)(x + y), (4,), (4,))
    assert multiply_adds(keras.Model(image, other([image, image]))) == 8


def test_counts_a_layer_as_often_as_it_is_called():
    image, dense, relu = keras.Input((4,)), layers.Dense(4), layers.ReLU()
    assert multiply_adds(keras.Model(image, dense(relu(dense(relu(image)))))) == 16 + 16


def test_counting_is_no_use_of_the_layers():
    model = models.build("lstm_lm", vocabulary_size=50, units=8)
    assert multiply_adds(model, 3) == multiply_adds(model, 3)
    assert model.get_layer("lstm_1").output.shape == (None, None, 8)  # fails for two uses


def test_a_fixed_batch_costs_an_example_the_same():
    image = keras.Input(batch_shape=(6, 5, 10))
    assert multiply_adds(keras.Model(image, layers.Dense(7)(image))) == 5 * 10 * 7


def bert_encoder(depth, width, length):
    """Query, key, value, output; two layers of four times the width; scores, mean; pooler."""
    each = length * (4 * width**2 + 2 * 4 * width**2) + 2 * length**2 * width
    return depth * each + width**2


def bert_lengths(length, masked):
    names = ("token_ids", "segment_ids", "padding_mask")
    return dict.fromkeys(names, length) | {"mask_positions": masked}


@pytest.mark.tensorflow  # building it takes JAX three times as long
def test_bert_base_by_the_formula():
    model = models.build("bert_base", vocabulary_size=30522, next_sentence=True)
    for length, masked in ((128, 20), (512, 80)):
        head = masked * (768**2 + 768 * 30522) + 2 * 768
        expected = bert_encoder(12, 768, length) + head
        assert multiply_adds(model, bert_lengths(length, masked)) == expected
    # Its 85 million weights in layers, once a token, and the attention.
    assert round(bert_encoder(12, 768, 128) / 1e9, 1) == 11.2


def test_bert_for_spans_by_the_formula():
    model = models.build("bert_mini_spans", vocabulary_size=60)
    assert multiply_adds(model, 384) == bert_encoder(4, 256, 384) + 384 * 256 * 2


@pytest.mark.parametrize("tied", [True, False])
def test_the_lstm_language_model_by_the_formula(tied):
    model = models.build("lstm_lm", vocabulary_size=90, units=7, layers=3, tied=tied)
    assert multiply_adds(model, 35) == 35 * (3 * 4 * 7 * (7 + 7) + 7 * 90)


@pytest.mark.parametrize("depth, source, target", [(2, 9, 9), (4, 11, 6)])
def test_gnmt_by_the_formula(depth, source, target):
    u = 5
    model = models.build("gnmt", vocabulary_size=70, units=u, layers=depth)
    encoder = source * (2 * 8 * u**2 + 12 * u**2 + (depth - 2) * 8 * u**2)
    turns = 2 * source**2 * u
    attention = (source + target) * u**2 + source * target * 2 * u
    decoder = target * (8 * u**2 + (depth - 1) * 12 * u**2)
    expected = encoder + turns + attention + decoder + target * u * 70
    assert multiply_adds(model, {"source_ids": source, "target_ids": target}) == expected


def products_in_the_graph(model, inputs):
    """Multiply-adds of TensorFlow's graph of a model without loops."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(inputs).graph
    total = 0
    for operation in graph.get_operations():
        x, y = [*(tensor.shape for tensor in operation.inputs), None, None][:2]
        if operation.type in ("MatMul", "BatchMatMulV2"):
            transposed = operation.get_attr(
                "transpose_a" if operation.type == "MatMul" else "adj_x"
            )
            total += operation.outputs[0].shape.num_elements() * x[-2 if transposed else -1]
        elif operation.type == "Einsum":
            indices = operation.get_attr("equation").decode().partition("->")[0].replace(",", "")
            sizes = dict(zip(indices, [*x, *y], strict=True))
            total += math.prod(sizes.values())
    return total


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["bert_tiny", "bert_mini_spans"])
def test_bert_has_the_products_of_its_graph(name):
    model = models.build(name, vocabulary_size=60)
    lengths = bert_lengths(24, 5)
    inputs = {x.name: np.ones((1, lengths[x.name]), "int32") for x in model.inputs}
    expected = products_in_the_graph(model, inputs)
    assert expected > 24 * 12 * 128**2
    assert multiply_adds(model, {name: lengths[name] for name in inputs}) == expected


@pytest.mark.tensorflow  # as above
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("name", ["bert_tiny", "gnmt_small", "lstm_lm"])
def test_the_precision_changes_nothing(policy, name):
    counts = []
    for kind in ("float32", policy):
        keras.config.set_dtype_policy(kind)
        counts.append(multiply_adds(models.build(name, vocabulary_size=60), 16))
        keras.config.set_dtype_policy("float32")
    assert counts[0] == counts[1] > 0


@keras.saving.register_keras_serializable(package="test_cost")
class Squared(layers.Layer):
    """Has no weights, and yet costs."""

    def call(self, x):
        return ops.matmul(x, ops.transpose(x, (0, 2, 1)))


@pytest.mark.parametrize(
    "shape, layer",
    [
        ((8, 8, 3), layers.Conv2DTranspose(4, 3)),
        ((8, 8, 3), layers.SeparableConv2D(4, 3)),
        ((8, 3), layers.GRU(4)),
        ((8, 3), layers.Bidirectional(layers.GRU(4))),
        ((8, 3), layers.TimeDistributed(layers.Dense(4))),
        ((8, 3), Squared()),
        ((8, 3), layers.Lambda(lambda x: x, output_shape=(8, 3))),
    ],
)
def test_refuses_a_layer_that_it_cannot_count(shape, layer):
    with pytest.raises(ValueError, match=rf"can't count a {type(layer).__name__}. Received: "):
        multiply_adds(model_of(shape, layer))


@pytest.mark.parametrize(
    "function, kind",
    [
        (lambda x, y: layers.Dot(axes=2)([x, y]), "Dot"),
        (lambda x, y: layers.Attention()([x, y]), "Attention"),
        (lambda x, y: layers.AdditiveAttention()([x, y]), "AdditiveAttention"),
        (layers.MultiHeadAttention(2, 4, use_gate=True), "MultiHeadAttention"),
        (lambda x, y: ops.dot(x, ops.transpose(y, (0, 2, 1))), "Dot"),
        (lambda x, y: ops.einsum("bij,bkj,bkj->bik", x, y, y), "Einsum"),
        (lambda x, y: x + ops.conv(y, np.ones((1, 8, 8), "float32"), padding="same"), "Conv"),
    ],
)
def test_refuses_products_that_it_cannot_count(function, kind):
    with pytest.raises(ValueError, match=rf"can't count a {kind}. Received: .*by hand"):
        multiply_adds(graph_of(function, (4, 8), (4, 8)))


def test_what_is_refused_is_refused_within_a_model_too():
    inner = model_of((8, 3), layers.GRU(4))
    image = keras.Input((8, 3))
    with pytest.raises(ValueError, match="can't count a GRU"):
        multiply_adds(keras.Model(image, inner(image)))


@pytest.mark.parametrize(
    "shape, layer",
    [
        ((None, 8, 3), layers.Conv2D(4, 3)),
        ((None, 3), layers.LSTM(4)),
        ((None, 3), layers.Dense(2)),
    ],
)
def test_refuses_shapes_that_are_not_known(shape, layer):
    model = model_of(shape, layer)
    with pytest.raises(ValueError, match=r"known but for the batch. Received: input .* of shape"):
        multiply_adds(model)
    assert multiply_adds(model, 9) == multiply_adds(model_of((9, *shape[1:]), layer))


@pytest.mark.parametrize(
    "lengths, words",
    [
        (0, "must be a positive integer for each input. Received: 0 for"),
        (True, "must be a positive integer for each input. Received: True"),
        ("128", "must be a positive integer for each input. Received: '128'"),
        ({"token_ids": 8}, r"input 'mask_positions' of shape \(None, None\), 'padding_mask'"),
        ({"tokens": 8}, "mask_positions, padding_mask, segment_ids, token_ids. Received: tokens"),
    ],
)
def test_refuses_lengths_that_do_not_fit(lengths, words):
    with pytest.raises(ValueError, match=words):
        multiply_adds(models.build("bert_tiny", vocabulary_size=60), lengths)


def test_refuses_lengths_of_inputs_that_have_theirs():
    with pytest.raises(ValueError, match="leave their length open: none. Received: image"):
        multiply_adds(model_of((28, 28), layers.Flatten()), {"image": 28})


def test_logits_by_a_table():
    model = graph_of(lambda x: TiedLogits()(x, np.ones((9, 4), "float32")), (5, 4))
    assert multiply_adds(model) == 5 * 4 * 9


def test_refuses_a_model_that_shows_no_graph():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(name="mine"), keras.Sequential([layers.Dense(2)], name="mine")):
        with pytest.raises(ValueError, match="functional and built sequential.*Received: 'mine'"):
            multiply_adds(model)


def test_activations_are_all_that_layers_put_out():
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.ReLU()])
    outer = graph_of(lambda x: ops.tanh(layers.Dense(10)(layers.Flatten()(inner(x)))), (6, 6, 3))
    assert activations(outer) == 64 + 64 + 64 + 10 + 10
    bert = models.build("bert_tiny", vocabulary_size=60)
    lengths = [{**dict.fromkeys([x.name for x in bert.inputs], 16 * k), "mask_positions": 2 * k}
               for k in (1, 2)]  # fmt: skip
    short, long = (activations(bert, length) for length in lengths)
    assert short > 0 and long == pytest.approx(2 * short, rel=0.02)  # the pooled token is one
