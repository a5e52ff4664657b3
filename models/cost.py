"""What a network costs: the multiply-adds of one example, counted from its layers."""

import math

from keras import Model, layers

# One multiply-add for each weight of the kernel at each position of the output.
_KERNEL = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
# They hold weights, and look up or work element by element.
_NOT_COUNTED = (
    layers.BatchNormalization,
    layers.Embedding,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.Normalization,
    layers.PReLU,
)


def multiply_adds(model):
    """Multiply-adds of one example on its way forward through `model`.

    Counted are the products with kernels: of convolutions, also with groups or depthwise, of dense
    layers and of LSTMs. Biases, normalisation, activations, pooling, look-ups and products of two
    activations (attention's) count as nothing. Papers print multiply-adds or twice their number,
    as operations; a training step makes about three times as many as the way forward.

    Args:
        model: A functional or sequential `keras.Model` whose input shape is fixed but for the
            batch. Models within it are counted, too.

    Returns:
        An int.

    Raises:
        ValueError: If the model doesn't show its graph, or a layer with weights isn't of a kind
            that this function counts, or is called more than once, or its shapes aren't known.
            Nothing is left out in silence.

    >>> import models
    >>> multiply_adds(models.build("lenet5", input_shape=(28, 28, 1), num_classes=10))
    416520
    """
    config = model.get_config() if hasattr(model, "output_shape") else {}
    if "layers" not in config:
        raise ValueError(
            "multiply_adds reads the graph of functional and built sequential models. Received: "
            f"{model.name!r}, a {type(model).__name__}, which doesn't show one."
        )
    calls = {
        layer["name"]: len(layer["inbound_nodes"])
        for layer in config["layers"]
        if "inbound_nodes" in layer
    }
    total = 0
    for layer in model.layers:
        if layer.weights and calls.get(layer.name, 1) > 1:
            raise ValueError(
                f"multiply_adds counts layers that are called once. Received: {layer.name!r}, "
                f"which {model.name!r} calls {calls[layer.name]} times. Count that part by hand."
            )
        total += multiply_adds(layer) if isinstance(layer, Model) else _of_layer(layer)
    return total


def _of_layer(layer):
    if isinstance(layer, _NOT_COUNTED) or not layer.weights:
        return 0
    if isinstance(layer, layers.LSTM):
        timesteps = _shape(layer, "input")[1]
        return timesteps * sum(
            math.prod(kernel.shape) for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel)
        )
    if isinstance(layer, _KERNEL):
        shape = _shape(layer, "output")
        first = getattr(layer, "data_format", None) == "channels_first"
        return math.prod(shape[2:] if first else shape[1:-1]) * math.prod(layer.kernel.shape)
    raise ValueError(
        f"multiply_adds can't count a {type(layer).__name__}. Received: {layer.name!r}, with "
        f"weights of {layer.count_params():,} parameters. Count it by hand, or add its kind."
    )


def _shape(layer, which):
    shape = getattr(layer, which).shape
    if None in shape[1:]:
        raise ValueError(
            "multiply_adds needs a model whose shapes are known but for the batch. Received: layer "
            f"{layer.name!r} with {which} shape {shape}. Give keras.Input all sizes."
        )
    return shape
