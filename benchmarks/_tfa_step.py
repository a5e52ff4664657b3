"""One update by TensorFlow Addons' LAMB for each line that it reads, for benchmarks/update_step.py.

It answers with the seconds that the update took. TensorFlow Addons doesn't import with Keras 3:

    python -m venv tfa && tfa/bin/pip install tensorflow==2.15.1 tensorflow-addons==0.23.0
"""

import json
import os
import sys
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def main():
    """Reads and answers until there is nothing more to read."""
    job = json.loads(sys.argv[1])
    random = np.random.default_rng(1)
    variables, gradients = [], []
    for shape in job["shapes"]:
        name = "kernel" if len(shape) > 1 else "bias"
        start, gradient = random.standard_normal((2, *shape), dtype="float32")
        variables.append(tf.Variable(start * np.float32(0.02), name=name))
        gradients.append(tf.constant(gradient * np.float32(1e-3)))
    optimizer = tfa.optimizers.LAMB(1e-3, weight_decay=0.01, exclude_from_weight_decay=["bias"])

    @tf.function(jit_compile=job["jit"])
    def step():
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
