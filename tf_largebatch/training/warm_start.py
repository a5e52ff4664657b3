"""Weights of another run to start from."""

import os

import keras

from tf_largebatch.training import files

# The part that networks for different tasks share.
SHARED = "backbone"


def warm_start(model, source):
    """Loads weights, and nothing else, from a run's folder, a `.keras` or a `.weights.h5` file.

    From a model with other outputs, the layer called "backbone" is taken over, with any other layer
    whose name and shapes are the same, and the rest starts afresh, as BERT is fine-tuned (Devlin et
    al. 2018, arXiv:1810.04805, section 3).

    Args:
        model: a built Keras model.
        source: path.

    Returns:
        The names of the layers that were taken over, or None if all weights were.

    Raises:
        ValueError: if the file is missing, can't be read, or its weights don't fit. The model is as
            it was then.
    """
    source = str(source)
    try:
        folder = files.kind(source) == "folder"
        path = os.path.join(source, "final.keras") if folder else source
        missing = files.kind(path) is None
    except OSError as error:
        raise ValueError(
            f"init_from can't be read. Received: {source} ({error.strerror})."
        ) from None
    if missing:
        raise ValueError(
            f"init_from must be the folder of a finished run, a .keras or a .weights.h5 file. "
            f"Received: {source}, where there is no {os.path.basename(path)}."
        )
    try:  # of a remote file Keras makes a local copy for the moment
        if path.endswith(".keras"):
            found = keras.models.load_model(path, compile=False)
            here, there = _shared(model), _shared(found)
            if here is not None and there is not None and _shapes(model) != _shapes(found):
                return _take_over(model, found)
            weights = found.get_weights()
        else:
            # A model of the same kind without an optimizer, so that the optimizer starts afresh.
            carrier = keras.models.clone_model(model)
            carrier.load_weights(path)
            weights = carrier.get_weights()
        carrier = keras.models.clone_model(model)
        carrier.set_weights(weights)
    except Exception as error:  # noqa: BLE001 (Keras, h5py and zipfile raise what they like)
        raise ValueError(
            f"init_from can't be read as weights of {model.name}. Received: {path} "
            f"({str(error).splitlines()[0]})."
        ) from None
    model.set_weights(carrier.get_weights())
    return None


def _take_over(model, found):
    here, there = _shared(model), _shared(found)
    for own, other in zip(here.weights, there.weights, strict=True):
        if own.shape != other.shape:
            raise ValueError(
                f"{own.path} must be of shape {tuple(own.shape)}, and there it is "
                f"{tuple(other.shape)}: build the same network, for the same vocabulary and, by "
                "--model_options=max_sequence_length=, for the same longest sequence"
            )
    others = {layer.name: layer for layer in found.layers}
    fitting = [
        layer
        for layer in model.layers
        if layer.weights and layer.name in others and _shapes(layer) == _shapes(others[layer.name])
    ]
    for layer in fitting:
        layer.set_weights(others[layer.name].get_weights())
    return [layer.name for layer in fitting]


def _shared(model):
    return next((layer for layer in model.layers if layer.name == SHARED), None)


def _shapes(layer):
    return [tuple(w.shape) for w in layer.weights]
