"""Reference networks, in Keras alone: the package serves any model, and these are no exception.

Build one by its name, or by its function in the file of its family; a network's name is its
function's. Those that end in `_small` are no published networks but small siblings of them, for a
minute on a laptop.

>>> import models
>>> models.build("lenet5", input_shape=(28, 28, 1), num_classes=10).count_params()
61706
>>> models.task_of("gnmt")
'translation'
"""

import difflib
import importlib
import inspect

import keras

from models import (
    alexnet,
    bert,
    davidnet,
    gnmt,
    googlenet,
    language_model,
    lenet,
    lstm,
    resnet,
    vgg,
)
from models.cost import multiply_adds

# The networks for each task of the data; those for one task take and give the same.
TASKS = {
    "classification": (
        lenet.lenet5,
        lenet.lenet_caffe,
        lstm.mnist_lstm,
        davidnet.davidnet,
        davidnet.davidnet_small,
        alexnet.alexnet,
        alexnet.alexnet_bn,
        alexnet.alexnet_bn_val2,
        alexnet.alexnet_small,
        googlenet.googlenet,
        vgg.vgg19,
        resnet.resnet50,
        resnet.resnet_small,
    ),
    "masked_lm": (
        bert.bert_tiny,
        bert.bert_mini,
        bert.bert_small,
        bert.bert_base,
        bert.bert_large,
    ),
    "spans": (
        bert.bert_tiny_spans,
        bert.bert_mini_spans,
        bert.bert_small_spans,
        bert.bert_base_spans,
        bert.bert_large_spans,
    ),
    "language_model": (language_model.lstm_lm,),
    "translation": (gnmt.gnmt, gnmt.gnmt_small),
}
MODELS = {function.__name__: function for task in TASKS.values() for function in task}

_IMAGES, _TEXT = ("input_shape", "num_classes"), ("vocabulary_size",)


def build(name, *, task=None, **arguments):
    """Build the reference network called `name`, or a network of the user's own.

    Args:
        name: A key of `MODELS`, or "module:function" of a function that is importable.
        task: What the data are for, a key of `TASKS`; None doesn't say it.
        **arguments: What the network's function takes. First what the data say: for images
            `input_shape`, (height, width, channels) of one image, and `num_classes`, the length of
            the logits; for text `vocabulary_size`, and of masked words `next_sentence`. Then its
            options, such as `dropout`.

    Returns:
        A `keras.Model` with float32 logits; its inputs and outputs are described at its function.
        For images it maps (batch, *input_shape) to (batch, num_classes).

    Raises:
        ValueError: If the name is unknown, or the network isn't for these data, or doesn't know an
            option, or refuses the arguments; or a function of the user's own can't be imported,
            doesn't take the arguments, or gives no Keras model.

    >>> build("lenet5", input_shape=(32, 32, 3), num_classes=100).output_shape
    (None, 100)
    >>> build("mnist_lstm", input_shape=(28, 28, 1), num_classes=10, projection=0).count_params()
    81674
    >>> build("lstm_lm", vocabulary_size=50, units=8).output_shape
    (None, None, 50)
    """
    if is_users(name):
        return _build_users(name, arguments)
    own = task_of(name)
    if task is not None and task != own:
        fitting = [function.__name__ for function in TASKS.get(task, ())]
        raise ValueError(
            f"{name} is for the task {own}. Received: data for task={task!r}. "
            + (
                f"For these there are: {', '.join(fitting)}."
                if fitting
                else f"The tasks: {', '.join(TASKS)}."
            )
        )
    needed, others = (_IMAGES, _TEXT) if own == "classification" else (_TEXT, _IMAGES)
    foreign = [argument for argument in others if argument in arguments]
    missing = [argument for argument in needed if argument not in arguments]
    if foreign or missing:
        reads, gives = ("sees images", "text") if needed is _IMAGES else ("reads text", "image")
        received = (
            f"{', '.join(foreign)}, as {gives} data give it"
            if foreign
            else (f"no {' and no '.join(missing)}")
        )
        raise ValueError(f"{name} {reads}: it takes {' and '.join(needed)}. Received: {received}.")
    known = list(inspect.signature(MODELS[name]).parameters)
    unknown = [option for option in arguments if option not in known]
    if unknown:
        options = [option for option in known if option not in needed]
        raise ValueError(
            f"{name} has no such option. Received: {unknown[0]}={arguments[unknown[0]]!r}. "
            f"Its options: {', '.join(options) or 'none'}."
        )
    return MODELS[name](**arguments)


def is_users(name):
    """Whether `name` is that of a function of the user's own, "module:function".

    >>> is_users("my_networks:small"), is_users("lenet5")
    (True, False)
    """
    return ":" in str(name)


def _build_users(name, arguments):
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            'A model of your own must be "module:function", importable from here. Received: '
            f"name={name!r} ({error}). Put the module's folder on PYTHONPATH, and check the names."
        ) from None
    if not callable(function):
        raise ValueError(f"{name} must be a function. Received: a {type(function).__name__}.")
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f"The function {name} must take what the data and the options say. Received: {given} "
            f"({error}). Give it these arguments, by name."
        ) from None
    model = function(**arguments)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"The function {name} must return a keras.Model. Received: a {type(model).__name__}."
        )
    return model


def task_of(name):
    """The task of the network called `name`, a key of `TASKS`.

    Raises:
        ValueError: If there is no such network.

    >>> task_of("bert_base_spans")
    'spans'
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(str(name), MODELS, n=3)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"There is no model of this name. Received: name={name!r}.{hint} "
            f"The models are: {', '.join(sorted(MODELS))}."
        )
    return next(task for task, functions in TASKS.items() if MODELS[name] in functions)


__all__ = ["MODELS", "TASKS", "build", "is_users", "multiply_adds", "task_of"]
