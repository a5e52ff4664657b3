"""The LSTM language model: the paper's sizes, against NumPy, and no look into the future."""

import keras
import numpy as np
import pytest
from keras import ops

from models.language_model import lstm_lm


def parameters(words, units, layers, tied=False):
    lstm = 4 * units * (units + units + 1)
    return words * units + layers * lstm + (0 if tied else words * (units + 1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run_lstm(x, kernel, recurrent, bias):
    """(batch, time, inputs) to (batch, time, units), in Keras' order of gates."""
    h = c = np.zeros((len(x), len(recurrent)))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def shake(model):
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model


def words(length=6):
    return np.random.default_rng(0).integers(0, 30, (3, length)).astype("int32")


@pytest.mark.parametrize("units, layers, tied", [(8, 1, False), (8, 3, True), (5, 2, False)])
def test_has_the_parameters_of_the_formula(units, layers, tied):
    model = lstm_lm(30, units=units, layers=layers, tied=tied)
    assert model.count_params() == parameters(30, units, layers, tied)


@pytest.mark.parametrize("units", [200, 650, 1500])
def test_the_formula_gives_the_numbers_of_the_docstring(units):
    assert f"{parameters(10_000, units, 2):,} |" in lstm_lm.__doc__


def test_the_default_is_the_medium_one():
    assert lstm_lm().count_params() == 19_775_200


@pytest.mark.parametrize("tied", [False, True])
def test_agrees_with_numpy(tied):
    model = shake(lstm_lm(30, units=8, tied=tied))
    values = {v.path: ops.convert_to_numpy(v).astype("float64") for v in model.variables}
    table = values["embedding/embeddings"]
    x = table[words()]
    for number in (1, 2):
        cell = [values[f"lstm_{number}/lstm_cell/{kind}"] for kind in KINDS]
        x = run_lstm(x, *cell)
    expected = x @ table.T if tied else x @ values["logits/kernel"] + values["logits/bias"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(ops.convert_to_numpy(model(words())), expected, atol=1e-5)


KINDS = ("kernel", "recurrent_kernel", "bias")


def test_what_comes_later_changes_nothing():
    model, x = shake(lstm_lm(30, units=8)), words(7)
    changed = x.copy()
    changed[:, 4:] = (x[:, 4:] + 1) % 30
    before, after = (ops.convert_to_numpy(model(each)) for each in (x, changed))
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=0, atol=1e-6)
    assert (abs(after[:, 4:] - before[:, 4:]).max(-1) > 1e-3).all()


def test_starts_uniform_with_biases_at_zero():
    model = lstm_lm(300, units=40, initial_range=0.2)
    for variable in model.trainable_variables:
        value = ops.convert_to_numpy(variable)
        if variable.path.endswith("bias"):
            assert (value == 0).all(), variable.path
        else:
            assert abs(value).max() <= 0.2, variable.path
            assert abs(value).max() > 0.19, variable.path
            np.testing.assert_allclose(value.std(), 0.2 / np.sqrt(3), rtol=0.05)
    kernels = [ops.convert_to_numpy(v) for v in model.trainable_variables if "kernel" in v.path]
    same_shape = [k for k in kernels if k.shape == (40, 160)]
    assert len({k.tobytes() for k in same_shape}) == len(same_shape) == 4


def test_dropout_is_where_the_paper_has_it():
    model = lstm_lm(30, units=8, dropout=0.25)
    rates = {layer.name: layer.rate for layer in model.layers if "dropout" in layer.name}
    assert rates == {"embedding_dropout": 0.25, "lstm_1_dropout": 0.25, "lstm_2_dropout": 0.25}
    lstms = [layer for layer in model.layers if isinstance(layer, keras.layers.LSTM)]
    assert [(layer.dropout, layer.recurrent_dropout) for layer in lstms] == [(0, 0), (0, 0)]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"units": 0}, "units of lstm_lm must be a positive integer. Received: units=0"),
        ({"layers": 1.5}, "layers of lstm_lm"),
        ({"vocabulary_size": None}, "vocabulary_size of lstm_lm"),
        ({"dropout": 1.0}, "dropout of lstm_lm must be.*Received: dropout=1.0"),
        ({"initial_range": 0}, "initial_range of lstm_lm must be a number above 0.*range=0"),
        ({"initial_range": float("nan")}, "initial_range of lstm_lm"),
    ],
)
def test_refuses_what_makes_no_network(arguments, words):
    with pytest.raises(ValueError, match=words):
        lstm_lm(**arguments)
