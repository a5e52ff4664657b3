"""A network of the user's own, named as module:function."""

import keras
import pytest

import models

OWN = """
import keras

def small(input_shape, num_classes, units=4):
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(units)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, dtype="float32")(hidden))

def number(**arguments):
    return 3

LIST = [1]
"""
IMAGES = {"input_shape": (2, 2, 1), "num_classes": 3}


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_it_is_built_with_what_the_data_say_and_its_options():
    model = models.build("own_network:small", task="classification", **IMAGES, units=5)
    assert isinstance(model, keras.Model)
    assert model.count_params() == (4 * 5 + 5) + (5 * 3 + 3)


@pytest.mark.parametrize(
    "name, words",
    [
        ("no_such_network:small", "importable from here.*No module named 'no_such_network'"),
        ("own_network:large", "Received: name='own_network:large'.*no attribute 'large'"),
        (":small", 'must be "module:function"'),
        ("own_network:LIST", "LIST must be a function. Received: a list"),
        ("own_network:number", "number must return a keras.Model. Received: a int"),
    ],
)
def test_what_is_no_model_function_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        models.build(name, **IMAGES)


def test_a_function_that_does_not_take_the_arguments_is_refused():
    with pytest.raises(ValueError, match="Received: vocabulary_size=9 .*missing.*input_shape"):
        models.build("own_network:small", vocabulary_size=9)
