"""One of two worker processes: python svm_worker_job.py INDEX PORT PORT FOLDER.

Fits the SVMs and writes what came out to FOLDER/worker-INDEX.npz. `fitted` yields the same ones for
the test, which fits them in its own process.
"""

import json
import os
import pathlib
import sys

import numpy as np
from sklearn.datasets import make_moons

N_PARTS = 5


def write_files(folder):
    """The parts as svmlight files."""
    from sklearn.datasets import dump_svmlight_file

    X, y = make_moons(200, noise=0.25, random_state=0)
    for p in range(N_PARTS):
        dump_svmlight_file(X[p::N_PARTS], y[p::N_PARTS], str(folder / f"{p}.svm"))


def fitted(strategy, folder, mine=range(N_PARTS)):
    """Names and models: parts by one host, each worker's own files, a tree, and rows in parts."""
    from tf_largebatch.kernels import CascadeSVC, DistributedSVC, PartitionedSVC

    X, y = make_moons(200, noise=0.25, random_state=0)
    yield "parts", PartitionedSVC(N_PARTS, strategy=strategy, random_state=0).fit(X, y)
    # A worker is only told of its own files.
    files = [folder / f"{p}.svm" if p in mine else None for p in range(N_PARTS)]
    yield "files", PartitionedSVC(strategy=strategy).fit_parts(files)
    yield "cascade", CascadeSVC(4, strategy=strategy, random_state=0).fit(X, y)
    yield "dis_smo", DistributedSVC(4, strategy=strategy).fit(X, y)


def main(index, first_port, second_port, folder):
    """One worker."""
    workers = [f"127.0.0.1:{first_port}", f"127.0.0.1:{second_port}"]
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(index)}}
    )
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    folder, found = pathlib.Path(folder), {}
    X, _ = make_moons(200, noise=0.25, random_state=0)
    mine = [p for p in range(N_PARTS) if p * 2 // N_PARTS == int(index)]
    for name, model in fitted(strategy, folder, mine):
        found[f"{name}, decision"] = model.decision_function(X)
        found[f"{name}, n_iter"] = model.n_iter_
        found[f"{name}, train"] = [model.ledger_.bytes("train")]
        between = [e.n_bytes for e in model.ledger_.entries if "between workers" in e.what]
        found[f"{name}, between"] = [sum(between)]
    np.savez(folder / f"worker-{index}.npz", **found)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])
