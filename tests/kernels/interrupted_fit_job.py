"""A fit that would take minutes: python interrupted_fit_job.py; says when it has begun."""

import os
import pathlib
import signal
import sys

import numpy as np


def main():
    """Nearly 10,000,000 steps, unless it is interrupted."""
    import tensorflow as tf

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from tf_largebatch.kernels import PartitionedSVC

    random = np.random.default_rng(0)
    X = 100 * random.normal(size=(300, 10))
    y = np.sign(X[:, 0] * X[:, 1] + 8e3 * random.normal(size=300))
    strategy = None
    if sys.argv[1] == "strategy":
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    model = PartitionedSVC(
        1, partition="random", kernel="linear", C=1e4, tol=1e-9, strategy=strategy, verbose=1
    )
    model.fit(X, y)
    print("ended", flush=True)


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    main()
