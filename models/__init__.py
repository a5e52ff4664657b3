"""Reference networks, in Keras alone: the package serves any model, and these are no exception.

Build one by its function or by its name; a network's name is its function's.

>>> import models
>>> models.build("lenet5", input_shape=(28, 28, 1), num_classes=10).count_params()
61706
"""

import difflib

from models.lenet import lenet5, lenet_caffe

MODELS = {"lenet5": lenet5, "lenet_caffe": lenet_caffe}


def build(name, *, input_shape, num_classes):
    """Build the reference network called `name`.

    Args:
        name: A key of `MODELS`.
        input_shape: (height, width, channels) of one image, as the data source gives it.
        num_classes: Length of the logits.

    Returns:
        A `keras.Model` from (batch, *input_shape) images to (batch, num_classes) float32 logits.

    Raises:
        ValueError: If the name is unknown, or the network refuses the other two arguments.

    >>> build("lenet5", input_shape=(32, 32, 3), num_classes=100).output_shape
    (None, 100)
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(str(name), MODELS, n=3)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"There is no model of this name. Received: name={name!r}.{hint} "
            f"The models are: {', '.join(sorted(MODELS))}."
        )
    return MODELS[name](input_shape=input_shape, num_classes=num_classes)


__all__ = ["MODELS", "build", "lenet5", "lenet_caffe"]
