"""One of two worker processes: python ridge_worker_job.py INDEX PORT PORT FOLDER.

Fits both ridge regressions and writes what came out to FOLDER/worker-INDEX.npz. `models` yields the
same ones for the test, which fits them in its own process.
"""

import json
import os
import pathlib
import sys

import numpy as np


def data():
    """150 samples of a smooth function, two targets."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(150, 3))
    return X, np.stack([np.sin(3 * X[:, 0]), X[:, 1] * X[:, 2]], axis=1)


def models(strategy):
    """Name and model: parts of unequal size, and the whole in blocks."""
    from tf_largebatch.kernels.distributed_ridge import DistributedKernelRidge
    from tf_largebatch.kernels.partitioned_ridge import PartitionedKernelRidge

    yield "parts", PartitionedKernelRidge(0.01, n_parts=5, strategy=strategy, random_state=0)
    yield "whole", DistributedKernelRidge(0.01, strategy=strategy, block_size=16)


def main(index, first_port, second_port, folder):
    """One worker."""
    workers = [f"127.0.0.1:{first_port}", f"127.0.0.1:{second_port}"]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(index)}}
    )
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    X, Y = data()
    found = {}
    for name, model in models(strategy):
        model.fit(X, Y)
        found[f"{name}, dual_coef"] = model.dual_coef_
        found[f"{name}, prediction"] = model.predict(X)
        found[f"{name}, bytes"] = [model.ledger_.bytes("train")]
    found["held"] = [model.bytes_per_replica_[int(index)]]
    # Neither worker waits for the other where the matrix has no factor: both say it.
    try:
        model.set_params(alpha=0.0, kernel="linear").fit(X, Y)
    except np.linalg.LinAlgError as error:
        found["refused"] = [str(error)]
    np.savez(pathlib.Path(folder) / f"worker-{index}.npz", **found)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])
