"""Weights of another run to start from."""

import os

import keras

from tf_largebatch.training import files


def warm_start(model, source):
    """Loads weights, and nothing else, from a run's folder, a `.keras` or a `.weights.h5` file."""
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
    # A model of the same kind without an optimizer, so that the optimizer starts afresh.
    carrier = keras.models.clone_model(model)
    try:  # of a remote file Keras makes a local copy for the moment
        if path.endswith(".keras"):
            carrier.set_weights(keras.models.load_model(path, compile=False).get_weights())
        else:
            carrier.load_weights(path)
    except Exception as error:  # noqa: BLE001 (Keras, h5py and zipfile raise what they like)
        raise ValueError(
            f"init_from can't be read as weights of {model.name}. Received: {path} "
            f"({str(error).splitlines()[0]})."
        ) from None
    model.set_weights(carrier.get_weights())
