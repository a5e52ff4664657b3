"""The MNIST-LSTM: what it reads, and what each option changes."""

import keras
import numpy as np
import pytest
from keras import ops

from models.lstm import mnist_lstm


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("projection", [0, 6])
def test_reads_an_image_row_by_row(projection):
    model = mnist_lstm((5, 4, 2), 3, units=7, projection=projection)
    weights = [ops.convert_to_numpy(w).astype("float64") for w in model.weights]
    image = np.random.default_rng(0).normal(size=(5, 4, 2))
    rows = image.reshape(5, 8)
    if projection:
        kernel, bias, *weights = weights
        rows = rows @ kernel + bias  # linear
    kernel, recurrent, bias, last_kernel, last_bias = weights
    h = c = np.zeros(7)
    for row in rows:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    logits = ops.convert_to_numpy(model(image[None].astype("float32")))
    np.testing.assert_allclose(logits[0], h @ last_kernel + last_bias, atol=1e-5)


def test_starts_as_in_keras():
    recurrent, bias = mnist_lstm(units=16).get_layer("lstm").weights[1:]
    q = ops.convert_to_numpy(recurrent)
    np.testing.assert_allclose(
        q.T @ q if q.shape[0] > q.shape[1] else q @ q.T, np.eye(16), atol=1e-5
    )
    assert ops.convert_to_numpy(bias).tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32


def test_the_paths_are_stable():
    for _ in range(2):
        assert [v.path for v in mnist_lstm().trainable_variables] == [
            "projection/kernel",
            "projection/bias",
            "lstm/lstm_cell/kernel",
            "lstm/lstm_cell/recurrent_kernel",
            "lstm/lstm_cell/bias",
            "logits/kernel",
            "logits/bias",
        ]
        keras.utils.clear_session(free_memory=False)


def test_refuses_what_is_no_size():
    with pytest.raises(ValueError, match="units of mnist_lstm must be.*Received: units=0"):
        mnist_lstm(units=0)
    with pytest.raises(ValueError, match="projection of mnist_lstm.*0 for none.*projection=-1"):
        mnist_lstm(projection=-1)
