"""The network that is planned for: how it is made, and what one example costs on it."""

import functools
import importlib
import math
import os
import sys
from typing import NamedTuple


class ModelSpec(NamedTuple):
    """How to make the model again, in another process too: what JSON can hold.

    name: a reference network, or "module:function". folder: where `models` lies, or None.
    """

    name: str
    arguments: dict
    folder: str | None
    precision: str


class Counted(NamedTuple):
    """What a model costs. None: not known, where figures were given instead of a model."""

    parameters: float
    multiply_adds: float  # an example, forward
    activations: float | None  # numbers an example, forward


def models_folder(train):
    """The folder of the reference networks, or None if there is none.

    Args:
        train: path of train.py, beside which `models` lies; None: this checkout's, if it is one.

    Raises:
        ValueError: if `train` is given and isn't that.
    """
    folder = os.path.dirname(os.path.abspath(train)) if train else _checkout()
    if os.path.isfile(os.path.join(folder, "models", "cost.py")):
        return folder
    if train:
        raise ValueError(
            "--train must be the path of this project's train.py, beside which the folder models "
            f"lies. Received: {train}. Check the path."
        )
    return None


def _checkout():
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.dirname(package)


def reference_models(folder):
    """The package `models` in a folder.

    Raises:
        ValueError: if there is none, as in an installed wheel.
    """
    if folder is None:
        raise ValueError(
            "The reference networks, and the file that counts a model's operations, are not "
            "installed with the package. Pass --train path/to/train.py of a checkout; or "
            "--multiply_adds, which is enough for --model=module:function; or --parameters as well."
        )
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.import_module("models")
    if os.path.dirname(os.path.dirname(os.path.abspath(found.__file__))) != folder:
        raise ValueError(
            f"Another package of the name models is in the way: {found.__file__}. Start in "
            "another folder, or take it off PYTHONPATH."
        )
    return found


def build(spec):
    """The Keras model of a `ModelSpec`.

    Raises:
        ValueError: if the name is unknown, or the function doesn't give a Keras model.
    """
    import keras

    keras.config.set_dtype_policy(spec.precision)
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.arguments.items()}
    module, colon, function = spec.name.partition(":")
    if not colon:
        return reference_models(spec.folder).build(spec.name, **arguments)
    if not module:
        raise ValueError(f"--model must name a function as module:function. Received: {spec.name}.")
    try:
        made = getattr(importlib.import_module(module), function)(**arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            "--model must name a function that can be imported, as module:function, and be called "
            f"with {', '.join(arguments) or 'no arguments'}. Received: {spec.name} ({error})."
        ) from error
    if not isinstance(made, keras.Model):
        raise ValueError(
            f"The function of --model must return a keras.Model. Received: {spec.name}, which "
            f"returns a {type(made).__name__}."
        )
    return made


def input_lengths(model, sequence_length):
    """The length of each input whose shape leaves it open, by name; None if there is none."""
    names = [x.name for x in model.inputs if None in x.shape[1:]]
    if not names or sequence_length is None:
        return None
    lengths = dict.fromkeys(names, sequence_length)
    if "mask_positions" in lengths:
        from tf_largebatch.data.masked_lm import PretrainingOptions

        options = PretrainingOptions(sequence_length=sequence_length)
        lengths["mask_positions"] = options.max_predictions
    return lengths


def count(spec, sequence_lengths, multiply_adds=None):
    """{sequence length: `Counted`} of the model of a `ModelSpec`.

    Args:
        spec: the `ModelSpec`.
        sequence_lengths: those of the run's phases; (None,) where examples have no length.
        multiply_adds: of an example, if it shall not be counted.

    Raises:
        ValueError: if the model can't be made or counted.
    """
    model = build(spec)
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    if multiply_adds is not None:
        return dict.fromkeys(sequence_lengths, Counted(parameters, multiply_adds, None))
    reference_models(spec.folder)
    cost = importlib.import_module("models.cost")
    found = {}
    for length in sequence_lengths:
        lengths = input_lengths(model, length)
        try:
            operations = cost.multiply_adds(model, lengths)
            numbers = cost.activations(model, lengths)
        except ValueError as error:
            raise ValueError(
                f"{error} On the command line: --sequence_length for open sizes, or "
                "--multiply_adds for what can't be counted."
            ) from error
        found[length] = Counted(parameters, operations, numbers)
    return found


@functools.cache
def optimizer_bytes_per_parameter(optimizer, precision, momentum=None):
    """The optimizer's state for each element of a kernel, in bytes, as it is really made."""
    import keras
    import numpy as np

    from tf_largebatch.recipes import Recipe
    from tf_largebatch.training import from_recipe

    recipe = Recipe(optimizer=optimizer, learning_rate=1.0, momentum=momentum)
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    kernel = keras.Variable(np.zeros((32, 32)), dtype=dtype, name="kernel")
    made = from_recipe.optimizer(recipe, recipe.learning_rate, [kernel])
    state = [v for v in made.variables if tuple(v.shape) == (32, 32)]
    return sum(keras.ops.convert_to_numpy(v).nbytes for v in state) / 32**2
