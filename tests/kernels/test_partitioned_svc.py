"""PartitionedSVC: one part is scikit-learn's SVC; several are its SVCs, each on its part."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import dump_svmlight_file, load_breast_cancer, load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from replicas import strategy_of
from tf_largebatch.kernels import FCFSPartition, PartitionedSVC, RandomPartition
from tf_largebatch.kernels._engine import padded
from tf_largebatch.kernels._functions import gram

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def moons():
    return make_moons(300, noise=0.25, random_state=0)


@parametrize_with_checks([
    PartitionedSVC(2, random_state=0),
    PartitionedSVC(2, partition="fcfs", combine="average", multi_class="ovo", random_state=0),
])  # fmt: skip
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
def test_one_part_is_svc(moons, kernel):
    X, y = moons
    options = {"kernel": kernel, "tol": 1e-6, "C": 0.7, "coef0": 0.2, "degree": 2}
    svc = SVC(**options).fit(X, y)
    for data in (X, sparse.csr_array(X)):
        found = PartitionedSVC(1, **options).fit(data, y)
        np.testing.assert_allclose(
            found.decision_function(data), svc.decision_function(X), atol=1e-3
        )
        assert found.score(data, y) == svc.score(X, y)


@pytest.mark.parametrize("combine", ["nearest", "average"])
@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
def test_each_part_is_an_svc_of_its_samples(combine, multi_class):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    options = {"gamma": 0.5, "tol": 1e-6}
    found = PartitionedSVC(
        3, partition="random", combine=combine, multi_class=multi_class, random_state=0, **options
    ).fit(X, names)
    wrapper = OneVsRestClassifier if multi_class == "ovr" else OneVsOneClassifier
    labels, decisions = found.partition_.labels_, []
    for part in range(3):
        parts = wrapper(SVC(**options)).fit(X[labels == part], y[labels == part])
        columns = [svc.decision_function(X) for svc in parts.estimators_]
        # OneVsOneClassifier's second class of a pair is the positive one.
        decisions.append(np.stack(columns, 1) * (1 if multi_class == "ovr" else -1))
    if combine == "average":
        expected = np.mean(decisions, 0)
    else:
        nearest = found.partition_.predict(X)
        assert len(set(nearest)) > 1
        expected = np.stack([decisions[p][i] for i, p in enumerate(nearest)])
    np.testing.assert_allclose(found._decide(X), expected, atol=1e-3)
    assert found.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert found.score(X, names) > 0.9
    assert found.part_n_iter_.shape == (3, 3) and found.decision_function(X).shape == (150, 3)


@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
def test_parts_that_lack_classes(multi_class):
    """Six blobs of three classes: each part sees one or two of them."""
    random = np.random.default_rng(0)
    centers = np.array([[0, 0], [0, 9], [9, 0], [9, 9], [18, 0], [18, 9]])
    which = np.arange(240) % 6
    X, y = centers[which] + random.normal(size=(240, 2)), which % 3
    found = PartitionedSVC(6, multi_class=multi_class, random_state=0).fit(X, y)
    assert any(len(model.support) == 0 for model in found.models_)  # of one class
    assert found.score(X, y) == 1
    assert np.isfinite(found.decision_function(X)).all()


def test_balanced_class_weights_are_svcs(moons):
    X, y = moons
    keep = np.flatnonzero((y == 0) | (np.arange(300) % 5 == 0))
    svc = SVC(class_weight="balanced", tol=1e-6).fit(X[keep], y[keep])
    found = PartitionedSVC(1, class_weight="balanced", tol=1e-6).fit(X[keep], y[keep])
    np.testing.assert_allclose(found.decision_function(X), svc.decision_function(X), atol=1e-3)


def test_a_precomputed_kernel(moons):
    X, y = moons
    K = X @ X.T
    found = PartitionedSVC(
        3, kernel="precomputed", partition="random", combine="average", random_state=0
    ).fit(K, y)
    same = PartitionedSVC(
        3, kernel="linear", partition="random", combine="average", random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(found.decision_function(K), same.decision_function(X), atol=1e-8)
    as_object = PartitionedSVC(
        kernel="precomputed", partition=RandomPartition(3, random_state=0), combine="average"
    ).fit(K, y)
    assert len(as_object.models_) == 3 and as_object.score(K, y) > 0.8
    with pytest.raises(ValueError, match="no features to find centres in"):
        PartitionedSVC(3, kernel="precomputed").fit(K, y)
    with pytest.raises(ValueError, match="must be a square matrix"):
        PartitionedSVC(3, kernel="precomputed").fit(K[:, :5], y)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_replicas_give_the_same(moons, replicas):
    X, y = moons
    one = PartitionedSVC(5, random_state=0).fit(X, y)
    several = clone(one).set_params(strategy=strategy_of(replicas)).fit(X, y)
    np.testing.assert_array_equal(one.part_n_iter_, several.part_n_iter_)
    np.testing.assert_allclose(several.decision_function(X), one.decision_function(X), atol=1e-10)
    assert one.ledger_.entries == several.ledger_.entries
    copy = pickle.loads(pickle.dumps(several))
    np.testing.assert_array_equal(copy.decision_function(X), several.decision_function(X))
    assert copy.strategy is None and several.strategy is not None


def test_parts_in_place_are_the_same_parts_and_send_nothing(moons, tmp_path):
    """casvm2 against casvm1: arrays, CSR and svmlight files, of which one lacks the last column."""
    X, y = moons
    X = np.column_stack([X, np.where(np.arange(300) < 200, 0.0, X[:, 0] > 0.5)])
    whole = PartitionedSVC(3, partition="random", random_state=0).fit(X, y)
    labels = whole.partition_.labels_
    order = np.argsort(labels, kind="stable")
    dense = [(X[labels == p], y[labels == p]) for p in range(3)]
    rows = [(sparse.csr_array(part), targets) for part, targets in dense]
    files = []
    for p, (part, targets) in enumerate(dense):
        files.append(tmp_path / f"{p}.svm")
        dump_svmlight_file(part, targets, str(files[-1]))
    for parts in (dense, rows, files):
        found = PartitionedSVC().fit_parts(parts)
        assert found.gamma_ == pytest.approx(whole.gamma_, rel=1e-12)
        np.testing.assert_array_equal(found.part_n_iter_, whole.part_n_iter_)
        np.testing.assert_allclose(
            found.decision_function(X), whole.decision_function(X), atol=1e-8
        )
        np.testing.assert_array_equal(order[found.support_], whole.support_)
        assert found.ledger_.bytes("distribute") == found.ledger_.bytes("train") == 0
    centres = found.ledger_.bytes("collect", "centres")
    assert centres == 2 * 3 * 8  # P n floats, less the root's own
    with pytest.raises(ValueError, match=r"parts\[1\] has 2 columns. Expected: 3"):
        PartitionedSVC().fit_parts([dense[0], (X[:50, :2], y[:50])])
    with pytest.raises(ValueError, match="not among the classes"):
        PartitionedSVC().fit_parts(dense, classes=[1, 2])
    with pytest.raises(ValueError, match="Give a dict"):
        PartitionedSVC(class_weight="balanced").fit_parts(dense)


def test_a_partitioner_object_and_its_bytes(moons):
    X, y = moons
    found = PartitionedSVC(partition=FCFSPartition(4, stratify=True, random_state=1)).fit(X, y)
    assert found.partition_.sizes_.tolist() == [75] * 4 and len(found.models_) == 4
    # 225 rows of two floats and a label go out; what comes back are models and centres.
    assert found.ledger_.bytes("distribute") == 225 * 3 * 8
    assert found.ledger_.bytes("train") == found.ledger_.bytes("partition") == 0
    assert found.ledger_.bytes("collect", "centres") == 3 * 2 * 8
    assert found.fit_times_["parts"].shape == (4,) and (found.fit_times_["parts"] > 0).all()


def test_functions_as_kernels_and_float32(moons):
    X, y = moons
    by_name = PartitionedSVC(4, kernel="linear", random_state=0).fit(X, y)
    by_function = PartitionedSVC(4, kernel=lambda a, b: a @ b.T, random_state=0).fit(X, y)
    np.testing.assert_allclose(by_function.decision_function(X), by_name.decision_function(X))
    narrow = PartitionedSVC(4, random_state=0).fit(X.astype(np.float32), y)
    assert narrow.models_[0].vectors.dtype == np.float32
    assert narrow.score(X, y) > 0.93


def test_random_state_reproduces():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    one, same, other = (
        PartitionedSVC(8, partition="random", random_state=seed).fit(X, y).decision_function(X)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_memory_is_that_of_the_largest_part():
    """Four parts of 1500 of 6000 samples: the whole matrix would be 16 times one part's."""
    X, y = make_moons(6000, noise=0.2, random_state=0)
    model = PartitionedSVC(4, partition="random", batch_bytes=0, max_iter=20, random_state=0)
    largest = 8 * padded(1500) ** 2
    with pytest.warns(ConvergenceWarning):
        model.set_params(memory_limit_bytes=largest).fit(X, y)
    with pytest.raises(MemoryError, match=f"needs {largest:,} bytes"):
        model.set_params(memory_limit_bytes=largest - 1).fit(X, y)


def test_an_early_end_is_told(moons):
    X, y = moons
    with pytest.warns(ConvergenceWarning, match="SMO ended after 3 iterations"):
        found = PartitionedSVC(2, max_iter=3, random_state=0).fit(X, y)
    assert found.n_iter_ == found.part_n_iter_.max() == 3


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"C": -1.0}, r"'C' parameter of PartitionedSVC must be a float in the range \(0, inf\)"),
        ({"C": np.nan}, "'C' parameter"),
        ({"C": np.inf}, "'C' parameter"),
        ({"tol": np.inf}, "'tol' parameter"),
        ({"coef0": -np.inf}, "'coef0' parameter"),
        ({"degree": 0.5}, "'degree' parameter of PartitionedSVC must be an int"),
        ({"gamma": np.inf}, "gamma must be .* finite"),
        ({"class_weight": {0: 0, 1: 1}}, "class_weight must have finite numbers above 0"),
        ({"class_weight": {0: -1.0, 1: 1}}, "class_weight must have finite numbers above 0"),
        ({"batch_bytes": -1}, r"'batch_bytes' parameter .* an int in the range \[0, inf\)"),
        ({"batch_bytes": "a"}, "'batch_bytes' parameter"),
        ({"batch_bytes": None}, "'batch_bytes' parameter"),
        ({"memory_limit_bytes": "1GB"}, "'memory_limit_bytes' parameter"),
        ({"tol": 0}, "'tol' parameter"),
        ({"max_iter": 1.5}, "'max_iter' parameter of PartitionedSVC must be an int"),
        ({"combine": "best"}, "'combine' parameter of PartitionedSVC must be one of"),
        ({"multi_class": "all"}, "'multi_class' parameter"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"kernel": "cosine"}, "kernel must be one of"),
        ({"partition": "halves"}, "partition must be one of"),
        ({"n_parts": 301}, "301"),
    ],
)
def test_refusals_of_parameters(moons, parameters, words):
    with pytest.raises(ValueError, match=words):
        PartitionedSVC(**({"n_parts": 2, "random_state": 0} | parameters)).fit(*moons)


@pytest.mark.parametrize("kernel", ["linear", "poly", "function", "precomputed"])
def test_kernel_values_that_are_not_finite_are_refused(moons, kernel):
    """A kernel that overflows, and one that returns NaN: neither may train a constant."""
    X, y = moons
    options = {"kernel": kernel, "partition": "random", "random_state": 0, "combine": "average"}
    if kernel == "function":
        options["kernel"] = lambda a, b: np.where(np.arange(len(b)) == 7, np.nan, a @ b.T)
    elif kernel == "precomputed":
        X = X @ X.T
        X[3, 3] = np.inf
        with pytest.raises(ValueError, match="infinity"):
            PartitionedSVC(2, **options).fit(X, y)
        return
    else:
        X, options["gamma"] = X * 1e200, 1.0
    with pytest.raises(ValueError, match="The kernel's values must be finite"):
        PartitionedSVC(2, **options).fit(X, y)


def test_large_finite_values_are_not_refused(moons):
    """Sums of rows that overflow where no value does."""
    X, y = moons
    values = gram(X * 5e18, kernel="linear").astype(np.float32)
    assert np.abs(values).max() < np.finfo(np.float32).max
    assert gram(values * np.float32(0.5), kernel="precomputed").shape == (300, 300)
    with pytest.raises(ValueError, match="needs a finite variance"):
        PartitionedSVC(2, partition="random").fit(X * 1e200, y)
    with pytest.raises(ValueError, match="is no float32 number"):
        PartitionedSVC(2, C=1e40, random_state=0).fit(X.astype(np.float32), y)


def test_refusals_of_data(moons):
    X, y = moons
    with pytest.raises(ValueError, match="greater than one; got 1 class"):
        PartitionedSVC(2).fit(X, np.zeros(300))
    with pytest.raises(ValueError, match="NaN"):
        PartitionedSVC(2).fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="inhomogeneous"):
        PartitionedSVC(2).fit([[1.0, 2.0], [3.0]], [0, 1])
    with pytest.raises(MemoryError, match="needs 819,200 bytes"):
        PartitionedSVC(1, memory_limit_bytes=10**5).fit(X, y)
