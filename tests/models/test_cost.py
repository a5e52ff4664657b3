"""Multiply-adds, against counts by hand, and what can't be counted is refused."""

import keras
import pytest
from keras import layers

from models.cost import multiply_adds


def model_of(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


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
        ((9, 8, 6), layers.BatchNormalization(), 0),
        ((9, 8, 6), layers.MaxPooling2D(), 0),
        ((9, 8, 6), layers.Dropout(0.5), 0),
        ((9,), layers.Embedding(100, 8), 0),
    ],
)
def test_counts_one_layer(shape, layer, expected):
    assert multiply_adds(model_of(shape, layer)) == expected


def test_counts_the_models_within_a_model():
    inner = model_of((4,), layers.Dense(3), layers.Dense(2))
    image = keras.Input((4,))
    assert multiply_adds(keras.Model(image, layers.Dense(5)(inner(image)))) == 12 + 6 + 10


def test_layers_without_weights_may_be_called_twice():
    image, relu = keras.Input((4,)), layers.ReLU()
    assert multiply_adds(keras.Model(image, layers.Dense(2)(relu(relu(image))))) == 8


def test_refuses_a_layer_that_is_called_twice():
    image, dense = keras.Input((4,)), layers.Dense(4, name="twice")
    with pytest.raises(ValueError, match="called once. Received: 'twice'.*2 times"):
        multiply_adds(keras.Model(image, dense(dense(image))))


@pytest.mark.parametrize(
    "shape, layer",
    [
        ((8, 8, 3), layers.Conv2DTranspose(4, 3)),
        ((8, 8, 3), layers.SeparableConv2D(4, 3)),
        ((8, 3), layers.GRU(4)),
        ((8, 3), layers.Bidirectional(layers.LSTM(4))),
    ],
)
def test_refuses_a_layer_that_it_cannot_count(shape, layer):
    with pytest.raises(ValueError, match=rf"can't count a {type(layer).__name__}. Received: "):
        multiply_adds(model_of(shape, layer))


@pytest.mark.parametrize(
    "shape, layer",
    [
        ((None, 8, 3), layers.Conv2D(4, 3)),
        ((None, 3), layers.LSTM(4)),
        ((None, 3), layers.Dense(2)),
    ],
)
def test_refuses_shapes_that_are_not_known(shape, layer):
    with pytest.raises(ValueError, match="shapes are known but for the batch. Received: layer"):
        multiply_adds(model_of(shape, layer))


def test_refuses_a_model_that_shows_no_graph():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(name="mine"), keras.Sequential([layers.Dense(2)], name="mine")):
        with pytest.raises(ValueError, match="functional and built sequential.*Received: 'mine'"):
            multiply_adds(model)
