"""The methods by name: the thesis's seventeen, ours beside them, and that their data are true."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.datasets import make_moons
from sklearn.svm import SVC

from tf_largebatch import kernels
from tf_largebatch.kernels.methods import ESTIMATORS, METHODS, estimator_class, make
from tf_largebatch.kernels.partition import PARTITIONS

SVM = "smo dis_smo cascade dc_svm dc_filter cp_svm bkm_svm fcfs_svm ca_svm".split()
KRR = "dkrr dc_krr kkrr kkrr2 kkrr3 bkrr bkrr2 bkrr3".split()
OURS = "kbalance_svm ca_svm_average asy_gcd pscd".split()
NEEDS_NUMBA = ("asy_gcd", "pscd")


def test_all_methods_are_there():
    assert [name for name, method in METHODS.items() if not method.ours] == SVM + KRR
    assert sorted(name for name, method in METHODS.items() if method.ours) == sorted(OURS)
    assert all(name == method.name for name, method in METHODS.items())
    assert all(method.source.startswith(("thesis", "as ca_svm")) for method in METHODS.values())


def test_only_the_oracles_look_at_y():
    oracles = [name for name, method in METHODS.items() if method.score != "score"]
    assert oracles == ["kkrr3", "bkrr3"]


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_the_estimators_own(name):
    method = METHODS[name]
    estimator = make(name)
    assert type(estimator).__name__ == method.estimator
    for key, value in method.parameters.items():
        assert getattr(estimator, key) == value
    assert estimator.get_params().keys() >= method.parameters.keys()
    assert callable(getattr(estimator_class(method.estimator), method.score))
    partition = method.parameters.get("partition", "random")
    assert partition in PARTITIONS
    assert is_regressor(estimator) if name in KRR else is_classifier(estimator)


@pytest.mark.parametrize("name", [n for n in SVM + OURS if n not in NEEDS_NUMBA])
@pytest.mark.tensorflow
def test_classifiers_learn_moons(name):
    X, y = make_moons(240, noise=0.2, random_state=0)
    parts = {} if name == "smo" else {"n_parts": 4}
    state = {} if name == "dis_smo" else {"random_state": 0}
    fitted = make(name, kernel="rbf", gamma=2.0, **parts, **state).fit(X[:160], y[:160])
    exact = SVC(gamma=2.0).fit(X[:160], y[:160]).score(X[160:], y[160:])
    assert fitted.score(X[160:], y[160:]) > exact - 0.08


@pytest.mark.parametrize("name", NEEDS_NUMBA)
def test_asynchronous_classifiers_learn_moons(name):
    pytest.importorskip("numba")
    X, y = make_moons(240, noise=0.2, random_state=0)
    fitted = make(name, kernel="rbf", gamma=2.0, random_state=0).fit(X[:160], y[:160])
    assert fitted.score(X[160:], y[160:]) > 0.9


@pytest.mark.parametrize("name", KRR)
@pytest.mark.tensorflow
def test_regressors_learn_a_wave(name):
    random = np.random.default_rng(0)
    X = random.uniform(-3, 3, (240, 1))
    y = np.sin(2 * X[:, 0])
    parts = {} if name == "dkrr" else {"n_parts": 4, "random_state": 0}
    fitted = make(name, kernel="rbf", gamma=2.0, alpha=1e-3, **parts).fit(X[:160], y[:160])
    error = np.mean((fitted.predict(X[160:]) - y[160:]) ** 2)
    averages_far_models = name in ("kkrr", "bkrr")
    assert averages_far_models or error < 0.02
    if METHODS[name].score == "oracle_score":
        assert 0 < fitted.oracle_score(X[160:], y[160:]) < error


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match=r"name must be one of \['smo'.*Received: name='svm'"):
        make("svm")


def test_what_makes_a_method_stays():
    with pytest.raises(ValueError, match="'fcfs_svm' is PartitionedSVC with partition='fcfs'"):
        make("fcfs_svm", combine="average")
    assert make("fcfs_svm", combine="nearest", C=5.0).C == 5.0


def test_the_public_names():
    for name in kernels.__all__:
        assert getattr(kernels, name).__doc__ or name == "METHODS"
    assert set(ESTIMATORS) < set(kernels.__all__) <= set(dir(kernels))
    assert kernels.PartitionedSVC is estimator_class("PartitionedSVC")
    with pytest.raises(AttributeError, match="has no attribute 'SVC'"):
        _ = kernels.SVC


WITHOUT_TENSORFLOW = """
import sys, types, importlib.util, pathlib

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "numba", "matplotlib"):
            raise ImportError(f"{name} was imported")

# The package's own __init__ needs Keras: stand in for it, and import the kernels as they are.
package = types.ModuleType("tf_largebatch")
package.__path__ = [sys.argv[1]]
sys.modules["tf_largebatch"] = package
sys.meta_path.insert(0, Refuse())

from tf_largebatch import kernels
from tf_largebatch.kernels import approximation, ledger, theory

for name in kernels.__all__:
    getattr(kernels, name)
"""


def test_nothing_is_imported_early():
    """All public names without TensorFlow, Keras, numba and matplotlib."""
    folder = kernels.__path__[0].rpartition("kernels")[0]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, folder],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


WITHOUT_SCIKIT_LEARN = """
import sys, types
package = types.ModuleType("tf_largebatch")
package.__path__ = [sys.argv[1]]
sys.modules["tf_largebatch"] = package
sys.modules["sklearn"] = None
import tf_largebatch.kernels
"""


def test_without_scikit_learn_the_extra_is_named():
    folder = kernels.__path__[0].rpartition("kernels")[0]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIKIT_LEARN, folder],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ImportError: The kernel methods need scikit-learn" in done.stderr
    assert "pip install 'tf-largebatch[kernels]'" in done.stderr
