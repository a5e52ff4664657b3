"""The grouped convolution, against that of Keras."""

import keras
import numpy as np
import pytest
from keras import ops

from models.grouped import GroupedConv2D


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("options", [{"padding": "same"}, {"strides": 2}])
def test_is_the_convolution_of_keras(groups, options):
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 6)).astype("float32")
    ours = GroupedConv2D(12, 3, groups=groups, activation="relu", **options)
    theirs = keras.layers.Conv2D(12, 3, groups=groups, activation="relu", **options)
    theirs.build(x.shape)
    ours.build(x.shape)
    theirs.set_weights([w + 0.1 for w in ours.get_weights()])
    ours.set_weights(theirs.get_weights())
    expected = ops.convert_to_numpy(theirs(x))
    assert (expected > 0).any()
    np.testing.assert_allclose(ops.convert_to_numpy(ours(x)), expected, rtol=1e-4, atol=1e-5)
