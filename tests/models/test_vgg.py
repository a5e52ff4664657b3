"""VGG-19, against that of keras.applications."""

import keras
import numpy as np
import pytest
from keras import ops

from models.vgg import vgg19


@pytest.mark.tensorflow  # JAX takes a minute for each
def test_answers_as_that_of_keras_with_the_same_weights():
    ours = vgg19((40, 32, 3), 10, input_scale=1)
    theirs = keras.applications.VGG19(
        weights=None, input_shape=(40, 32, 3), classes=10, classifier_activation=None
    )
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    theirs.set_weights([w + 0.01 * (w.ndim == 1) for w in ours.get_weights()])
    ours.set_weights(theirs.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 40, 32, 3)).astype("float32")
    expected = ops.convert_to_numpy(theirs(x))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), expected, rtol=1e-4, atol=1e-5)
    assert [ours.get_layer(f"dropout{i}").rate for i in (1, 2)] == [0.5, 0.5]


def test_standardised_images_get_the_deviation_back_that_the_paper_leaves_them():
    layer = vgg19((32, 32, 3), 10).get_layer("pixels")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    expected = x * np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, rtol=0.015)
