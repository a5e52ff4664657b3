"""Records vectors of TensorFlow Addons' LAMB, for tests/optimizers/test_peers.py.

TensorFlow Addons ended in 2024 and doesn't import with Keras 3, so this runs in an environment of
its own and its results are kept:

    python -m venv tfa && tfa/bin/pip install tensorflow==2.15.1 tensorflow-addons==0.23.0
    tfa/bin/python tests/optimizers/record_tfa_vectors.py
"""

import json
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

SHAPES = {"encoder/kernel": (4, 3), "encoder/bias": (3,), "norm/gamma": (3,), "table": (5, 2)}
UPDATES = 10
CASES = {
    "default": {},
    "decay": {"weight_decay": 0.01},
    "excluded": {"weight_decay": 0.01, "exclude_from_weight_decay": ["bias", "norm"]},
    "two_lists": {
        "weight_decay": 0.1,
        "exclude_from_weight_decay": ["norm"],
        "exclude_from_layer_adaptation": ["bias"],
    },
    "betas": {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4},
}


def main():
    """Runs every case and writes tfa_vectors.json beside this file."""
    random = np.random.RandomState(20)
    start = {name: random.randn(*shape).tolist() for name, shape in SHAPES.items()}
    start["encoder/bias"] = [0.0, 0.0, 0.0]
    gradients = [
        {name: (random.randn(*shape) * 0.1).tolist() for name, shape in SHAPES.items()}
        for _ in range(UPDATES)
    ]
    results = {}
    for case, options in CASES.items():
        variables = [tf.Variable(start[n], name=n, dtype=tf.float64) for n in SHAPES]
        optimizer = tfa.optimizers.LAMB(**options)
        history = []
        for step in gradients:
            grads = [tf.constant(step[n], tf.float64) for n in SHAPES]
            optimizer.apply_gradients(zip(grads, variables, strict=True))
            history.append({n: v.numpy().tolist() for n, v in zip(SHAPES, variables, strict=True)})
        results[case] = {"options": options, "weights": history}
    out = {
        "recorded_with": {"tensorflow": tf.__version__, "tensorflow_addons": tfa.__version__},
        "start": start,
        "gradients": gradients,
        "cases": results,
    }
    path = pathlib.Path(__file__).with_name("tfa_vectors.json")
    path.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
