"""Two worker processes give what one gives, and each reads its own files only."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import make_moons

from kernels import svm_worker_job

pytestmark = pytest.mark.tensorflow
JOB = pathlib.Path(__file__).with_name("svm_worker_job.py")


@pytest.mark.slow
@pytest.mark.multi_worker
def test_two_workers_give_the_same(tmp_path):
    with socket.socket() as one, socket.socket() as other:
        for s in (one, other):
            s.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]), str(other.getsockname()[1])]
    svm_worker_job.write_files(tmp_path)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    job = [
        subprocess.Popen(
            [sys.executable, "-u", JOB, str(i), *ports, tmp_path],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in (0, 1)
    ]  # fmt: skip
    for process in job:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    workers = [np.load(tmp_path / f"worker-{i}.npz") for i in (0, 1)]
    X, _ = make_moons(200, noise=0.25, random_state=0)
    for name, model in svm_worker_job.fitted(None, tmp_path):
        for found in workers:
            np.testing.assert_array_equal(found[f"{name}, n_iter"], model.n_iter_, err_msg=name)
            np.testing.assert_allclose(
                found[f"{name}, decision"], model.decision_function(X), atol=1e-9, err_msg=name
            )
            assert found[f"{name}, train"] == model.ledger_.bytes("train")
            assert found[f"{name}, between"][0] > 0  # what all workers know in the end
