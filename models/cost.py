"""What a network costs: multiply-adds and activations of one example, counted from its layers."""

import inspect
import math
import string
import sys
from typing import NamedTuple

import keras
from keras import Model, layers

from models import _classifier, bert, gnmt, lrn

# One multiply-add for each weight of the kernel at each position of the output.
_KERNEL = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
# They look up, choose, move, normalise, or work element by element.
_NOT_COUNTED = (
    *(layers.Activation, layers.ActivityRegularization, layers.Add, layers.AlphaDropout),
    *(layers.Average, layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.BatchNormalization, layers.Concatenate, layers.Cropping1D, layers.Cropping2D),
    *(layers.Cropping3D, layers.Dropout, layers.ELU, layers.Embedding, layers.Flatten),
    *(layers.GaussianDropout, layers.GaussianNoise, layers.GlobalAveragePooling1D),
    *(layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D, layers.GlobalMaxPooling1D),
    *(layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D, layers.GroupNormalization),
    *(layers.Identity, layers.LayerNormalization, layers.LeakyReLU, layers.Masking),
    *(layers.Maximum, layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.Minimum, layers.Multiply, layers.Normalization, layers.PReLU, layers.Permute),
    *(layers.RMSNormalization, layers.ReLU, layers.RepeatVector, layers.Rescaling, layers.Reshape),
    *(layers.Softmax, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.Subtract, layers.UnitNormalization, layers.UpSampling1D, layers.UpSampling2D),
    *(layers.UpSampling3D, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    lrn.LocalResponseNormalization,
)
# The same among the functions of keras.ops, by the names that their operations have in a graph.
_OPERATIONS_NOT_COUNTED = frozenset(
    "Absolute Add All Amax Amin Any Arange Argmax Argmin BroadcastTo Cast Clip Concatenate "
    "Cumsum Divide Elu Equal Exp ExpandDims Flip FullLike Gelu GetItem Greater GreaterEqual "
    "LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min "
    "Minimum Moveaxis Multiply Negative NotEqual OneHot OnesLike Pad Power Relu Relu6 Repeat "
    "Reshape Rsqrt Sigmoid Silu Slice Softmax Softplus Split Sqrt Square Squeeze Stack "
    "StopGradient Subtract Sum Swapaxes Take TakeAlongAxis Tanh Tile Transpose TrueDivide Where "
    "ZerosLike".split()
)


def multiply_adds(model, sequence_length=None):
    """Multiply-adds of one example on its way forward through `model`.

    Counted is each call of what multiplies matrices: convolutions, also with groups or depthwise,
    dense layers, LSTMs, also in both directions, attention with its products of two activations,
    logits by a table of embeddings, `ops.matmul` and `ops.einsum`. Biases, normalisation,
    activations, pooling and look-ups count as nothing. Padding counts as any token does. Papers
    print multiply-adds or twice their number, as operations; a training step makes about three
    times as many as the way forward.

    Args:
        model: A functional or built sequential `keras.Model`. Models within it are counted, too.
        sequence_length: The length of inputs whose shapes leave it open, as text's do: an int for
            all of them, or a dict from the name of each to its own, such as `mask_positions`'
            number of masked places.

    Returns:
        An int.

    Raises:
        ValueError: If the model doesn't show its graph, or a size stays open, or a layer or an
            operation isn't of a kind that this function knows. Nothing is left out in silence;
            a subclass passes for its base class.

    >>> import models
    >>> multiply_adds(models.build("lenet5", input_shape=(28, 28, 1), num_classes=10))
    416520
    >>> language_model = models.build("lstm_lm", vocabulary_size=50, units=8)
    >>> multiply_adds(language_model, 10), multiply_adds(language_model, {"words": 35})
    (14240, 49840)
    """
    return _count(model, sequence_length).multiply_adds


def activations(model, sequence_length=None):
    """Numbers that the layers of `model` put out for one example on its way forward.

    It is an estimate of what training keeps for the way back: a reshaped tensor counts again,
    though it shares its memory, and what a layer makes inside, such as attention's scores or the
    gates of an LSTM, doesn't count.

    Args, Returns, Raises: As `multiply_adds`.

    >>> import models
    >>> activations(models.build("lenet5", input_shape=(28, 28, 1), num_classes=10))
    8494
    """
    return _count(model, sequence_length).activations


class _Counts(NamedTuple):
    multiply_adds: int
    activations: int


def _count(model, sequence_length):
    _check_graph(model)
    lengths = _lengths(model, sequence_length)
    inputs = [
        keras.KerasTensor(
            (x.shape[0] or 1, *(lengths[x.name] if n is None else n for n in x.shape[1:])), x.dtype
        )
        for x in model.inputs
    ]
    counter = _Counter()
    counter.walk(model, inputs)
    examples = inputs[0].shape[0]
    return _Counts(counter.multiply_adds // examples, counter.activations // examples)


def _check_graph(model):
    built = isinstance(model, keras.Sequential) and hasattr(model, "output_shape")
    if not built and not isinstance(model, keras.Function):
        raise ValueError(
            "multiply_adds reads the graph of functional and built sequential models. Received: "
            f"{model.name!r}, a {type(model).__name__}, which doesn't show one."
        )


def _lengths(model, given):
    """The length of each input that leaves sizes open, by the input's name."""
    shapes = {x.name: x.shape for x in model.inputs}
    unknown = {name for name, shape in shapes.items() if None in shape[1:]}
    if isinstance(given, dict):
        strange = sorted(given.keys() - unknown)
        if strange:
            raise ValueError(
                f"sequence_length must have the names of those inputs of {model.name} that leave "
                f"their length open: {', '.join(sorted(unknown)) or 'none'}. Received: "
                f"{', '.join(strange)}."
            )
        lengths = given
    else:
        lengths = {} if given is None else dict.fromkeys(shapes, given)
    for name, length in lengths.items():
        if not _classifier.is_positive_integer(length):
            raise ValueError(
                f"sequence_length must be a positive integer for each input. Received: {length!r} "
                f"for {name}."
            )
    missing = sorted(unknown - lengths.keys())
    if missing:
        raise ValueError(
            "multiply_adds needs a model whose shapes are known but for the batch. Received: input "
            + ", ".join(f"{name!r} of shape {shapes[name]}" for name in missing)
            + ". Give sequence_length, or give keras.Input all sizes."
        )
    return lengths


class _Counter:
    """Sends shapes through a model, with a batch of one, and counts at each call."""

    def __init__(self):
        self.multiply_adds = 0
        self.activations = 0

    def walk(self, model, inputs):
        """The outputs' shapes and dtypes, as Keras' symbolic tensors."""
        _check_graph(model)
        if isinstance(model, keras.Sequential):
            (x,) = keras.tree.flatten(inputs)
            for layer in model.layers:
                x = self.call(layer, x)
            return x
        # By calling the layers the graph would become a part of them, as a second use.
        return model._run_through_graph(
            inputs,
            operation_fn=lambda operation: (
                lambda *args, **kwargs: self.call(operation, *args, **kwargs)
            ),
        )

    def call(self, operation, *args, **kwargs):
        if isinstance(operation, Model):
            return self.walk(operation, args[0] if args else next(iter(kwargs.values())))
        outputs = operation.compute_output_spec(*args, **kwargs)
        given = inspect.signature(operation.call).bind(*args, **kwargs).arguments
        if isinstance(operation, bert.Backbone):
            self.walk(operation.encoder, given["inputs"])
            return outputs
        of_kind = _of_layer if isinstance(operation, layers.Layer) else _of_operation
        self.multiply_adds += of_kind(operation, given, outputs)
        self.activations += sum(_size(operation, x.shape) for x in keras.tree.flatten(outputs))
        return outputs


def _of_layer(layer, given, outputs):
    first = next(iter(given.values()))
    if isinstance(layer, layers.ReversibleEmbedding) and given.get("reverse"):
        return _size(layer, outputs.shape) * first.shape[-1]
    if isinstance(layer, _NOT_COUNTED):
        return 0
    if isinstance(layer, layers.Bidirectional):
        both = (layer.forward_layer, layer.backward_layer)
        if all(isinstance(way, layers.LSTM) for way in both):
            return sum(_of_layer(way, {"sequence": first}, None) for way in both)
    elif isinstance(layer, layers.LSTM):
        kernels = (layer.cell.kernel, layer.cell.recurrent_kernel)
        return _size(layer, first.shape[:2]) * sum(math.prod(kernel.shape) for kernel in kernels)
    elif isinstance(layer, _KERNEL):
        channels = getattr(layer, "data_format", None) == "channels_first"
        shape = outputs.shape
        positions = _size(layer, (shape[0], *(shape[2:] if channels else shape[1:-1])))
        return positions * math.prod(layer.kernel.shape)
    elif isinstance(layer, layers.EinsumDense):
        return _of_einsum(layer, layer.equation, first.shape, layer.kernel.shape)
    elif isinstance(layer, layers.MultiHeadAttention):
        return _of_attention(layer, given["query"].shape, given["value"].shape)
    elif isinstance(layer, bert.TiedLogits):
        return _size(layer, outputs.shape) * first.shape[-1]
    elif isinstance(layer, gnmt.NormalizedAttention):
        query, memory = given["query"].shape, given["memory"].shape
        pairs = _size(layer, (query[0], query[1], memory[1]))
        return pairs * (query[-1] + memory[-1])
    elif _is_of_keras_hub(layer, "PositionEmbedding"):
        return 0
    elif _is_of_keras_hub(layer, "TransformerEncoder"):
        batch, length, width = first.shape
        heads = layer.num_heads * (width // layer.num_heads)
        dense = 4 * width * heads + 2 * width * layer.intermediate_dim
        return _size(layer, (batch, length)) * (dense + 2 * length * heads)
    raise _unknown(
        layer, f"{layer.name!r}, with weights of {layer.count_params():,} parameters", "layer"
    )


def _of_operation(operation, given, outputs):
    """Multiply-adds of a function of keras.ops in a graph."""
    name = type(operation).__name__
    if type(operation).__module__.startswith("keras.src.ops."):
        if name in _OPERATIONS_NOT_COUNTED:
            return 0
        if name == "Matmul":
            return _size(operation, outputs.shape) * given["x1"].shape[-1]
        if name == "Einsum":
            shapes = [x.shape for x in given["operands"]]
            return _of_einsum(operation, operation.subscripts, *shapes)
    raise _unknown(operation, f"{operation.name!r}", "operation")


def _of_attention(layer, query, value):
    kernels = [
        dense.kernel.shape
        for dense in (layer.query_dense, layer.output_dense, layer.key_dense, layer.value_dense)
    ]
    of_query, of_output, of_key, of_value = map(math.prod, kernels)
    matrices = sum(math.prod(w.shape) for w in layer.weights if w.path.endswith("/kernel"))
    if len(query) != 3 or matrices != of_query + of_output + of_key + of_value:
        raise _unknown(
            layer, f"{layer.name!r}, with a gate or more dimensions than the length", "layer"
        )
    places, seen = _size(layer, query[:2]), _size(layer, value[1:2])
    keys, values = math.prod(kernels[0][1:]), math.prod(kernels[3][1:])
    memory = query[0] * seen * (of_key + of_value)
    return places * (of_query + of_output + seen * (keys + values)) + memory


def _of_einsum(operation, equation, *shapes):
    """One multiply-add for each combination of all indices."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) != 2 or len(shapes) != 2:
        raise _unknown(operation, f"{operation.name!r}, {equation!r}", "product of two tensors")
    spare = "".join(letter for letter in string.ascii_letters if letter not in equation)
    sizes = {}
    for term, shape in zip(terms, shapes, strict=True):
        more = len(shape) - len(term.replace("...", ""))
        letters = term.replace("...", spare[len(spare) - more :])
        _size(operation, shape)
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _is_of_keras_hub(layer, name):
    hub = sys.modules.get("keras_hub")  # whoever made such a layer has imported it
    return hub is not None and isinstance(layer, getattr(hub.layers, name))


def _size(operation, shape):
    if None in shape:
        raise ValueError(
            "multiply_adds needs a model whose shapes are known but for the batch. Received: "
            f"{operation.name!r} with shape {tuple(shape)}. Give keras.Input all sizes."
        )
    return math.prod(shape)


def _unknown(operation, what, kind):
    return ValueError(
        f"multiply_adds can't count a {type(operation).__name__}. Received: {what}. Count this "
        f"{kind} by hand, or add its kind."
    )
