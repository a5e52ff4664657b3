"""How every image network here begins and ends: arguments checked, logits that no policy rounds."""

import math
import numbers

import keras
from keras import layers

# Of ImageNet, where images are standardised: the mean of the three colours' 58.4, 57.1 and 57.4.
PIXEL_DEVIATION = 57.6


def image(name, input_shape, num_classes, *, least_size):
    """The input of the network called `name`, after a check of what every network takes.

    Raises:
        ValueError: If `input_shape` isn't three positive integers, or the image has fewer rows or
            columns than `least_size`, or `num_classes` isn't a positive integer.
    """
    if (
        not isinstance(input_shape, (tuple, list))
        or len(input_shape) != 3
        or not all(is_positive_integer(size) for size in input_shape)
    ):
        raise ValueError(
            f"input_shape of {name} must be three positive integers, (height, width, channels). "
            f"Received: input_shape={input_shape!r}. A batch has no place in it, and grey images "
            "have 1 channel: pass (28, 28, 1), for example."
        )
    if min(input_shape[:2]) < least_size:
        raise ValueError(
            f"{name} needs images of at least {least_size}x{least_size}: smaller ones are used up "
            "before its last convolution or pooling. Received: "
            f"input_shape={tuple(input_shape)}. Resize the images."
        )
    if not is_positive_integer(num_classes):
        raise ValueError(
            f"num_classes of {name} must be a positive integer. Received: "
            f"num_classes={num_classes!r}."
        )
    return keras.Input(input_shape, name="image")


def rescaled(name, image, scale):
    """The image times `scale`, for networks whose published start is for pixels of another scale.

    Raises:
        ValueError: If `scale` isn't a number above 0.
    """
    if not isinstance(scale, numbers.Real) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise ValueError(
            f"input_scale of {name} must be a number above 0. Received: input_scale={scale!r}. "
            "Leave it out for standardised images, pass 1 for images that are as published."
        )
    return image if scale == 1 else layers.Rescaling(scale, name="pixels")(image)


def logits(x, num_classes, *, name="logits", **dense):
    """A last linear layer: float32 also under a policy that computes in half precision.

    A softmax over bfloat16 logits loses the digits that the loss is made of. Under a float64 policy
    they are float64. `dense` goes to `keras.layers.Dense`.
    """
    policy, half = keras.config.dtype_policy(), ("bfloat16", "float16")
    if policy.variable_dtype in half:  # the weights are to stay half, too
        x = layers.Dense(num_classes, name=name, **dense)(x)
        return layers.Activation("linear", dtype="float32", name=f"{name}_float32")(x)
    dtype = "float32" if policy.compute_dtype in half else None
    return layers.Dense(num_classes, name=name, dtype=dtype, **dense)(x)


def scaled(channels, width):
    """`channels` times `width`, as the nearest multiple of 8 and at least 8.

    Multiples of 8 suit the hardware, and halve where a convolution has two groups.

    >>> [scaled(96, width) for width in (1.0, 0.25, 0.01)]
    [96, 24, 8]
    """
    if not isinstance(width, numbers.Real) or isinstance(width, bool) or not 0 < width < 100:
        raise ValueError(
            "width must be a positive factor on the numbers of channels, below 100. Received: "
            f"width={width!r}. 1 is the published network, 0.25 has a quarter of its channels."
        )
    return max(8, 8 * round(channels * width / 8))


def is_positive_integer(value):
    """Whether `value` is a whole number above 0, and no bool."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and value.__index__() > 0
