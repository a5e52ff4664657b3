"""Reference networks, in Keras alone: the package serves any model, and these are no exception.

Build one by its name, or by its function in the file of its family; a network's name is its
function's. Those that end in `_small` are no published networks but small siblings of them, for a
minute on a laptop.

>>> import models
>>> models.build("lenet5", input_shape=(28, 28, 1), num_classes=10).count_params()
61706
"""

import difflib
import inspect

from models import alexnet, davidnet, googlenet, lenet, lstm, resnet, vgg
from models.cost import multiply_adds

MODELS = {
    function.__name__: function
    for function in (
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
    )
}


def build(name, *, input_shape, num_classes, **options):
    """Build the reference network called `name`.

    Args:
        name: A key of `MODELS`.
        input_shape: (height, width, channels) of one image, as the data source gives it.
        num_classes: Length of the logits.
        **options: What the network's function takes besides, such as `dropout`.

    Returns:
        A `keras.Model` from (batch, *input_shape) images to (batch, num_classes) float32 logits.

    Raises:
        ValueError: If the name is unknown, or the network doesn't know an option, or refuses the
            arguments.

    >>> build("lenet5", input_shape=(32, 32, 3), num_classes=100).output_shape
    (None, 100)
    >>> build("mnist_lstm", input_shape=(28, 28, 1), num_classes=10, projection=0).count_params()
    81674
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(str(name), MODELS, n=3)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"There is no model of this name. Received: name={name!r}.{hint} "
            f"The models are: {', '.join(sorted(MODELS))}."
        )
    known = list(inspect.signature(MODELS[name]).parameters)[2:]  # all but the two above
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"{name} has no such option. Received: {unknown[0]}={options[unknown[0]]!r}. "
            f"Its options: {', '.join(known) or 'none'}."
        )
    return MODELS[name](input_shape=input_shape, num_classes=num_classes, **options)


__all__ = ["MODELS", "build", "multiply_adds"]
