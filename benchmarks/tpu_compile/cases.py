"""The networks, the recipes that train them, and what a batch of theirs looks like."""

from typing import NamedTuple

from tf_largebatch import recipes

VOCABULARY_SIZE = 30522


class Case(NamedTuple):
    """A step to compile.

    recipe: its name. model: a network of `models`, or "module:function" of your own.
    examples_per_core: at a time. accumulation: micro-batches an update.
    """

    recipe: str
    model: str
    examples_per_core: int
    accumulation: int = 1


CASES = {
    "lenet5": Case("lenet_digits", "lenet5", 64),
    "resnet50": Case("resnet50_lars", "resnet50", 128),
    "bert_base": Case("bert_lamb", "bert_base", 32),
    "bert_large": Case("bert_lamb", "bert_large", 16),
}


class Data(NamedTuple):
    """What the data of a recipe say to the network, and the shapes of an example.

    inputs, labels, weights: (shape, dtype), or dicts of such.
    """

    task: str
    model_arguments: dict
    inputs: dict | tuple
    labels: dict | tuple
    weights: dict | tuple


def recipe_of(case, cores):
    """The recipe of a case on so many cores, in bfloat16 with float32 weights.

    The batch is as large as cores and accumulation make it: a printed row of the recipe, or one
    that its rule derives.
    """
    row = recipes.load(case.recipe).row(case.examples_per_core * case.accumulation * cores)
    return row.recipe.replace(
        model=case.model,
        precision="mixed_bfloat16",
        micro_batch_size=case.examples_per_core,
    )


def data_of(recipe, sequence_length=None):
    """The `Data` of a recipe.

    Raises:
        ValueError: for a recipe whose data aren't images or masked text.
    """
    if recipe.data == "digits":
        return _images((28, 28, 1), 10)
    if recipe.data == "imagenet2012":
        return _images((224, 224, 3), 1000)
    if sequence_length is None or "bert" not in recipe.recipe:
        raise ValueError(
            "The recipe must be for digits, ImageNet or BERT's pre-training. Received: "
            f"{recipe.recipe}, whose data are {recipe.data}. Choose another recipe."
        )
    from tf_largebatch.data.masked_lm import PretrainingOptions  # and with it TensorFlow

    places = PretrainingOptions(sequence_length=sequence_length).max_predictions
    tokens, guesses = ((length,) for length in (sequence_length, places))
    names = ("token_ids", "segment_ids", "padding_mask")
    return Data(
        "masked_lm",
        {"vocabulary_size": VOCABULARY_SIZE, "next_sentence": True},
        dict.fromkeys(names, (tokens, "int32")) | {"mask_positions": (guesses, "int32")},
        {"masked_lm": (guesses, "int32"), "next_sentence": ((), "int32")},
        {"masked_lm": (guesses, "float32"), "next_sentence": ((), "float32")},
    )


def _images(shape, classes):
    arguments = {"input_shape": shape, "num_classes": classes}
    weights = ((), "float32")
    return Data("classification", arguments, (shape, "float32"), ((), "int32"), weights)


def map_shapes(function, structure):
    """`function` of each (shape, dtype) of a field of `Data`."""
    if isinstance(structure, dict):
        return {name: function(*one) for name, one in structure.items()}
    return function(*structure)
