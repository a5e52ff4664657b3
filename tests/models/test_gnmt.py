"""GNMT: the published size, against NumPy, and padding that is not seen."""

import numpy as np
import pytest
from keras import ops

from models.gnmt import gnmt, gnmt_small

WORDS, UNITS = 20, 6


def lstm_parameters(inputs, units):
    return 4 * units * (inputs + units + 1)


def parameters(words, units, layers):
    """As the module's table has it, from the top."""
    encoder = 2 * lstm_parameters(units, units) + lstm_parameters(2 * units, units)
    encoder += (layers - 2) * lstm_parameters(units, units)
    attention = 2 * units**2 + 2 * units + 1
    decoder = lstm_parameters(units, units) + (layers - 1) * lstm_parameters(2 * units, units)
    return words * units + encoder + attention + decoder + words * (units + 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def run_lstm(x, kernel, recurrent, bias):
    """(time, inputs) to (time, units), in Keras' order of gates."""
    h = c = np.zeros(len(recurrent))
    outputs = []
    for row in x:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def run_gnmt(values, source, target, layers):
    """The logits of one sentence pair without padding, and the attention."""

    def lstm(name, x):
        kinds = ("kernel", "recurrent_kernel", "bias")
        return run_lstm(x, *(values[f"{name}/lstm_cell/{kind}"] for kind in kinds))

    table = values["embedding/embeddings"]
    x = table[source]
    backward = lstm("encoder_1_backward", x[::-1])[::-1]
    x = np.concatenate([lstm("encoder_1_forward", x), backward], axis=-1)
    x = lstm("encoder_2", x)
    for number in range(3, layers + 1):
        x = x + lstm(f"encoder_{number}", x)
    memory = x

    x = lstm("decoder_1", table[target])
    contexts, attention = [], []
    v, b = values["attention/vector"], values["attention/bias"]
    for query in x @ values["attention_query/kernel"]:
        keys = memory @ values["attention_keys/kernel"]
        scores = np.tanh(query + keys + b) @ v * values["attention/scale"] / np.sqrt(v @ v)
        weights = np.exp(scores) / np.exp(scores).sum()
        contexts.append(weights @ memory)
        attention.append(weights)
    context = np.stack(contexts)
    x = lstm("decoder_2", np.concatenate([x, context], axis=-1))
    for number in range(3, layers + 1):
        x = x + lstm(f"decoder_{number}", np.concatenate([x, context], axis=-1))
    return x @ values["logits/kernel"] + values["logits/bias"], np.stack(attention)


def shake(model, scale=0.7):
    """Weights so large that each part counts; as they start, the logits are next to nothing."""
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(size=w.shape, scale=scale) for w in model.get_weights()])
    return model


def pair(source_length=7, target_length=5, batch=3):
    rng = np.random.default_rng(0)
    return {
        "source_ids": rng.integers(1, WORDS, (batch, source_length)).astype("int32"),
        "target_ids": rng.integers(1, WORDS, (batch, target_length)).astype("int32"),
    }


def logits_of(model, x):
    return ops.convert_to_numpy(model(x))


@pytest.mark.parametrize("units, layers", [(6, 2), (5, 3), (4, 6)])
def test_has_the_parameters_of_the_formula(units, layers):
    model = gnmt(WORDS, units=units, layers=layers)
    assert model.count_params() == parameters(WORDS, units, layers)


def test_the_formula_gives_the_published_number():
    assert parameters(32_320, 1024, 4) == 160_634_433


@pytest.mark.slow
def test_the_large_one_has_the_published_number():
    assert gnmt().count_params() == 160_634_433


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_agrees_with_numpy_at_each_length(layers):
    model = shake(gnmt(WORDS, units=UNITS, layers=layers))
    values = {v.path: ops.convert_to_numpy(v).astype("float64") for v in model.variables}
    x, lengths = pair(), (7, 4, 1)
    for row, length in enumerate(lengths):
        x["source_ids"][row, length:] = 0
    found = logits_of(model, x)
    for row, length in enumerate(lengths):
        source, target = x["source_ids"][row, :length], x["target_ids"][row]
        expected, _ = run_gnmt(values, source, target, layers)
        assert expected.std() > 0.1
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=2e-5)


def test_more_padding_changes_nothing():
    model, x = shake(gnmt(WORDS, units=UNITS)), pair()
    x["source_ids"][1, 3:] = 0
    wide = dict(x, source_ids=np.pad(x["source_ids"], ((0, 0), (0, 6))))
    expected = logits_of(model, x)
    np.testing.assert_allclose(logits_of(model, wide), expected, rtol=0, atol=1e-5)
    wide["source_ids"][:, -1] = 3  # that it would be seen
    assert (abs(logits_of(model, wide) - expected).max((1, 2)) > 1e-3).all()


def test_a_row_of_padding_spoils_nothing():
    model, x = shake(gnmt(WORDS, units=UNITS)), pair()
    expected = logits_of(model, x)
    x["source_ids"][1] = 0
    found = logits_of(model, x)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-5)
    assert np.isfinite(found).all()


def test_what_comes_later_in_the_target_changes_nothing():
    model, x = shake(gnmt(WORDS, units=UNITS)), pair()
    changed = dict(x, target_ids=x["target_ids"].copy())
    changed["target_ids"][:, 3:] = 0
    before, after = logits_of(model, x), logits_of(model, changed)
    np.testing.assert_allclose(after[:, :3], before[:, :3], rtol=0, atol=1e-6)
    assert (abs(after[:, 3:] - before[:, 3:]).max((1, 2)) > 1e-3).all()


def test_starts_uniform_with_biases_at_zero_but_the_forget_gates():
    model = gnmt(300, units=40, initial_range=0.2)
    for variable in model.trainable_variables:
        value, kind = ops.convert_to_numpy(variable), variable.path.rpartition("/")[2]
        if kind == "scale":
            np.testing.assert_allclose(value, 40**-0.5, rtol=1e-6)
        elif kind == "bias":
            forget = np.repeat([0, 1, 0, 0], 40) if value.size == 160 else 0
            np.testing.assert_array_equal(value, np.broadcast_to(forget, value.shape))
        else:
            assert abs(value).max() <= 0.2, variable.path
            np.testing.assert_allclose(
                value.std(), 0.2 / np.sqrt(3), rtol=0.25 if kind == "vector" else 0.06
            )
    kernels = [ops.convert_to_numpy(v) for v in model.trainable_variables if v.shape == (40, 160)]
    assert len({k.tobytes() for k in kernels}) == len(kernels) == 14


def test_dropout_comes_before_each_layer():
    model = gnmt_small(WORDS, units=UNITS, dropout=0.25)
    rates = {layer.name: layer.rate for layer in model.layers if "dropout" in layer.name}
    names = [f"{side}_{number}_dropout" for side in ("encoder", "decoder") for number in (1, 2, 3)]
    assert rates == dict.fromkeys(names, 0.25)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"layers": 1}, "gnmt_small needs at least 2 layers.*Received: layers=1"),
        ({"units": 0}, "units of gnmt_small must be a positive integer. Received: units=0"),
        ({"vocabulary_size": -3}, "vocabulary_size of gnmt_small"),
        ({"dropout": 1.0}, "dropout of gnmt_small"),
        ({"initial_range": -1}, "initial_range of gnmt_small.*Received: initial_range=-1"),
    ],
)
def test_refuses_what_makes_no_network(arguments, words):
    with pytest.raises(ValueError, match=words):
        gnmt_small(**arguments)
