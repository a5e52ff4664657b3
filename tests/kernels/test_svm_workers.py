"""Two worker processes give what one gives, and each reads its own files only."""

import pathlib

import numpy as np
import pytest
from sklearn.datasets import make_moons

import two_workers
from kernels import svm_worker_job

pytestmark = pytest.mark.tensorflow
JOB = pathlib.Path(__file__).with_name("svm_worker_job.py")


@pytest.mark.slow
@pytest.mark.multi_worker
def test_two_workers_give_the_same(tmp_path):
    svm_worker_job.write_files(tmp_path)
    two_workers.run(JOB, tmp_path)
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
