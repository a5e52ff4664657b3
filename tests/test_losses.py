"""Cross-entropy with smoothed labels, against float64 NumPy."""

import keras
import numpy as np
import pytest

from tf_largebatch import SmoothedCrossEntropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_against_numpy(smoothing):
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(6, 5)), random.integers(0, 5, 6)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
    expected = -(targets * log_p).sum(axis=1).mean()
    loss = SmoothedCrossEntropy(smoothing)
    assert float(loss(labels, logits.astype("float32"))) == pytest.approx(expected, rel=1e-5)


def test_round_trip():
    loss = SmoothedCrossEntropy(0.1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
