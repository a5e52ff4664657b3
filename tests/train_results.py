"""What the tests of train.py share: flags of a short run, and what one leaves behind."""

import json
import pathlib

import keras

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHORT = ["--progress=none", "--epochs=2", "--warmup_epochs=0.5"]


def result(out):
    """The RESULT line, which ends the output."""
    line = out.strip().splitlines()[-1]
    assert line.startswith("RESULT ")
    return json.loads(line.removeprefix("RESULT "))


def weights(model_dir):
    """Those of final.keras."""
    return keras.models.load_model(pathlib.Path(model_dir) / "final.keras").get_weights()
