"""Parameters and multiply-adds of the full networks, as published.

Sources: the papers and files that the networks' docstrings name; the multiply-adds, in billions, as
they are usually printed (torchvision, keras.applications), at the images' usual size.
"""

import keras
import numpy as np
import pytest

import models
from tf_largebatch import recipes

FIGURES = [
    # name, size of the images, classes, options, trainable, moving statistics, multiply-adds / 1e9
    ("lenet5", 28, 10, {}, 61_706, 0, None),
    ("lenet_caffe", 28, 10, {}, 431_080, 0, None),
    ("mnist_lstm", 28, 10, {}, 136_586, 0, None),
    ("mnist_lstm", 28, 10, {"projection": 0}, 81_674, 0, None),
    ("davidnet", 32, 10, {}, 6_573_120, 4_480, "0.379"),
    ("alexnet", 227, 1000, {}, 60_965_224, 0, "0.724"),
    ("alexnet_bn", 227, 1000, {}, 60_966_856, 2_752, "0.724"),
    ("alexnet_bn_val2", 227, 1000, {}, 60_965_224, 2_240, "0.724"),
    ("googlenet", 224, 1000, {}, 6_998_552, 0, "1.583"),
    ("googlenet", 224, 1000, {"auxiliary_heads": True}, 13_378_280, 0, "1.591"),
    ("vgg19", 224, 1000, {}, 143_667_240, 0, "19.63"),
    ("resnet50", 224, 1000, {}, 25_557_032, 53_120, "4.089"),
    ("resnet50", 224, 1000, {"strides": "v1", "use_bias": True}, 25_583_592, 53_120, "3.858"),
]


@pytest.fixture
def no_drawing(monkeypatch):
    """Initial values are zeros: to draw 140 million of them takes seconds."""
    zeros = lambda self, shape, dtype=None: keras.ops.zeros(shape, dtype)  # noqa: E731
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    monkeypatch.setattr(keras.initializers.RandomNormal, "__call__", zeros)


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("name, size, classes, options, trainable, moving, billions", FIGURES)
def test_the_published_figures(name, size, classes, options, trainable, moving, billions):
    channels = 1 if size == 28 else 3
    model = models.build(name, input_shape=(size, size, channels), num_classes=classes, **options)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == trainable
    assert model.count_params() == trainable + moving
    if billions is not None:
        digits = len(billions.partition(".")[2])
        assert f"{models.multiply_adds(model) / 1e9:.{digits}f}" == billions


@pytest.mark.parametrize(
    "name, passes, operations",
    [("alexnet", 1, 1.5e9), ("resnet50", 1, 7.7e9), ("googlenet", 3, 9.7e9), ("vgg19", 3, 120e9)],
)
def test_how_table_5_2_of_the_thesis_counts(name, passes, operations):
    """Two operations a multiply-add: of the way forward, or of a training step's three ways."""
    billions = [float(figures[-1]) for figures in FIGURES if figures[0] == name][-1]
    assert 2 * passes * billions * 1e9 == pytest.approx(operations, rel=0.035)


USUAL = {name: size for name, size, classes, *_ in FIGURES if classes == 1000}


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_feed_the_networks_images_of_that_size(name):
    """At 224, AlexNet would build as well, with 12 million parameters fewer."""
    for row in recipes.load(name).rows:
        if row.recipe.model in USUAL:
            # 224 is what sources of JPEGs give unless told.
            assert (row.recipe.image_size or 224) == USUAL[row.recipe.model]
