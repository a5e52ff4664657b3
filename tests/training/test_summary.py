"""What a dry run says of the cost, and the lengths that it is counted for."""

from types import SimpleNamespace

import keras
import pytest

from models.cost import multiply_adds
from tf_largebatch.data.source import Splits
from tf_largebatch.recipes import Recipe
from tf_largebatch.training import from_recipe, summary

pytestmark = pytest.mark.tensorflow


class Text:
    """A source whose inputs have these lengths; 0 is open, as of batches of like length."""

    name, task, model_arguments, bad_records, num_examples = "text", "masked_lm", {}, {}, 40
    parallel_batches = 2

    def __init__(self, lengths, boundaries=(), dtype="int32"):
        self.input_lengths, self.bucket_boundaries, self.dtype = lengths, boundaries, dtype
        self.lengths = [3] * self.num_examples

    def read(self, examples, keys=None, length=None):
        import tensorflow as tf

        inputs = {
            name: tf.zeros((examples.shape[0], own or length), self.dtype)
            for name, own in self.input_lengths.items()
        }
        inputs = inputs.get("", inputs)
        return inputs, tf.cast(examples, tf.int32), tf.ones_like(examples, tf.float32)


def stage_of(source):
    from tf_largebatch.training.stage import Stage

    recipe = Recipe(total_updates=5, global_batch_size=8, warmup_updates=1)
    (phase,) = from_recipe.phases(recipe, 5)
    return Stage(recipe, phase, Splits(train=source, test=source))


@pytest.mark.parametrize(
    "source, expected",
    [
        (Text({"": 35}), 35),
        (Text({"token_ids": 128, "mask_positions": 20}), {"token_ids": 128, "mask_positions": 20}),
        (
            Text({"source_ids": 0, "target_ids": 0}, (4, 8, 11)),
            {"source_ids": 11, "target_ids": 11},
        ),
        (Text({"": 10}, dtype="float32"), None),  # numbers that describe an example
    ],
)
def test_the_lengths_of_the_inputs(source, expected):
    assert stage_of(source).input_lengths() == expected


def test_images_have_none():
    from tf_largebatch import data

    assert stage_of(data.digits().train).input_lengths() is None


def printed_cost(capsys, model, *lengths):
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)
    stages = [SimpleNamespace(input_lengths=lambda own=own: own) for own in lengths]
    summary.print_cost(5, stages, model, multiply_adds)
    return capsys.readouterr().out


def test_each_phase_has_its_cost(capsys):
    words, places = keras.Input((None, 4), name="words"), keras.Input((None,), name="places")
    model = keras.Model([words, places], [keras.layers.Dense(6)(words), places + 1])
    out = printed_cost(capsys, model, {"words": 100, "places": 3}, {"words": 50, "places": 60})
    expected = "2,400 multiply-adds an example of 100 tokens, 1,200 of 60 tokens, forward; "
    assert out.startswith(f"Cost: {expected}")


def test_what_cannot_be_counted_is_said(capsys):
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.GRU(3)])
    assert "operations not counted (multiply_adds can't count a GRU" in printed_cost(
        capsys, model, 7
    )
