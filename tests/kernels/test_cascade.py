"""CascadeSVC: layers and what they pass on; the objective doesn't fall; DC-SVM is exact."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, make_moons
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from kernels.oracles_smo import objective, rbf
from kernels.oracles_smo import smo as oracle
from replicas import strategy_of
from tf_largebatch.kernels import CascadeSVC, FCFSPartition, RandomPartition

pytestmark = pytest.mark.tensorflow
KINDS = {
    "cascade": {"partition": "random", "passes": "support_vectors"},
    "dc_filter": {"partition": "kmeans", "passes": "support_vectors"},
    "dc_svm": {"partition": "kmeans", "passes": "all"},
}


@parametrize_with_checks([CascadeSVC(2, random_state=0), CascadeSVC(3, passes="all")])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(0)) / X.std(0), y


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_falls(cancer, kind):
    """A node's is at least that of the nodes it merges; the whole problem's is never passed."""
    X, y = cancer
    found = CascadeSVC(8, random_state=0, tol=1e-4, **KINDS[kind]).fit(X, y)
    exact = CascadeSVC(1, tol=1e-4).fit(X, y).layers_[0][0].objective
    assert [len(layer) for layer in found.layers_] == [8, 4, 2, 1]
    for layer, below in zip(found.layers_, found.layers_[1:], strict=False):
        for place, node in enumerate(below):
            pair = layer[2 * place : 2 * place + 2]
            assert node.objective >= max(one.objective for one in pair) * (1 - 1e-6)
            assert node.rank == pair[0].rank
            if kind == "dc_svm":
                assert node.n_samples == sum(one.n_samples for one in pair)
            else:
                assert node.n_samples <= sum(one.n_samples for one in pair)
    last = found.layers_[-1][0]
    assert last.objective <= exact * (1 + 1e-6)
    if kind == "dc_svm":
        assert last.objective == pytest.approx(exact, rel=1e-5) and last.n_samples == 569
    else:
        assert 0.9 * exact < last.objective and last.n_samples < 569
    # What is told is what the model has.
    v = np.zeros(569)
    v[found.support_] = found.dual_coef_[0]
    K = rbf(X, X, found.gamma_)
    assert np.abs(v).sum() - v @ K @ v / 2 == pytest.approx(last.objective, rel=1e-8)
    assert v.sum() == pytest.approx(0, abs=1e-9)


def test_merges_are_the_oracles():
    """Two parts: two oracles, then one that starts from their multipliers with f anew."""
    X, y = make_moons(80, noise=0.3, random_state=0)
    found = CascadeSVC(2, gamma=1.0, random_state=0).fit(X, y)
    signs = 2.0 * y - 1
    labels, kept, alpha = found.partition_.labels_, [], np.zeros(80)
    for part, node in enumerate(found.layers_[0]):
        rows = np.flatnonzero(labels == part)
        a, _, _, pairs = oracle(rbf(X[rows], X[rows], 1.0), signs[rows], 1.0)
        assert (node.n_iter, node.n_support) == (len(pairs), (a > 0).sum())
        alpha[rows] = a
        kept.append(rows[a > 0])
    kept = np.sort(np.concatenate(kept))
    K = rbf(X[kept], X[kept], 1.0)
    a, b, _, pairs = oracle(K, signs[kept], 1.0, alpha=alpha[kept])
    [[last]] = found.layers_[1:]
    assert (last.n_samples, last.n_iter) == (len(kept), len(pairs))
    assert last.objective == pytest.approx(objective(K, signs[kept], a), rel=1e-10)
    np.testing.assert_array_equal(found.support_, kept[a > 0])
    np.testing.assert_allclose(found.dual_coef_[0], (a * signs[kept])[a > 0], atol=1e-10)
    assert found.intercept_ == pytest.approx(-b, abs=1e-10)


def test_passes_end_at_the_exact_solution(cancer):
    X, y = cancer
    once = CascadeSVC(8, random_state=0, tol=1e-4).fit(X, y)
    often = CascadeSVC(8, random_state=0, tol=1e-4, n_passes=10).fit(X, y)
    assert 4 < len(often.layers_) < 40  # it ends when the support vectors stay
    exact = CascadeSVC(1, tol=1e-4).fit(X, y).layers_[0][0].objective
    assert once.layers_[-1][0].objective < exact * (1 - 1e-5)
    assert often.layers_[-1][0].objective == pytest.approx(exact, rel=1e-6)
    bottoms = [layer[0].objective for layer in often.layers_ if len(layer) == 1]
    assert (np.diff(bottoms) >= -1e-6 * exact).all()


@pytest.mark.parametrize("multi_class", ["ovr", "ovo"])
def test_dc_svm_of_several_classes_is_svc(multi_class):
    X, y = load_iris(return_X_y=True)
    options = {"gamma": 0.5, "tol": 1e-6}
    found = CascadeSVC(5, multi_class=multi_class, random_state=0, **KINDS["dc_svm"], **options)
    found.fit(X, y)
    assert [len(layer) for layer in found.layers_] == [5, 3, 2, 1]  # an odd one waits
    columns = found._decide(X)
    for t, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        if multi_class == "ovo":
            rows, target = np.isin(y, (i, j)), y == i
        else:
            rows, target = np.full(150, True), y == t
        svc = SVC(**options).fit(X[rows], target[rows])
        np.testing.assert_allclose(columns[:, t], svc.decision_function(X), atol=1e-3)


def test_parts_of_one_class_are_passed_on():
    """K-means finds the classes: no part has a support vector, and the last SVM needs them all."""
    X, y = make_moons(100, noise=0.05, random_state=0)
    X[y == 1] += 20
    found = CascadeSVC(2, random_state=0, **KINDS["dc_filter"]).fit(X, y)
    assert [node.n_support for node in found.layers_[0]] == [0, 0]
    assert found.layers_[1][0].n_samples == 100 and found.score(X, y) == 1


def test_replicas_give_the_same(cancer):
    X, y = cancer
    one = CascadeSVC(8, random_state=0).fit(X, y)
    several = CascadeSVC(8, random_state=0, strategy=strategy_of(2)).fit(X, y)
    np.testing.assert_allclose(several.decision_function(X), one.decision_function(X), atol=1e-9)
    for layer, same in zip(one.layers_, several.layers_, strict=True):
        assert [n.n_iter for n in layer] == [n.n_iter for n in same]


def test_bytes_are_those_of_what_is_passed(cancer):
    X, y = cancer
    found = CascadeSVC(4, random_state=0).fit(X, y)
    per_row = 8 * (30 + 1)
    assert found.ledger_.bytes("distribute") == per_row * found.partition_.sizes_[1:].sum()
    senders = [*found.layers_[0][1::2], *found.layers_[1][1::2]]
    assert found.ledger_.bytes("train") == (per_row + 8) * sum(n.n_support for n in senders)
    assert [(e.source, e.target) for e in found.ledger_.select("train")] == [(1, 0), (3, 2), (2, 0)]


def test_a_precomputed_kernel(cancer):
    X, y = cancer
    K = X @ X.T
    found = CascadeSVC(4, kernel="precomputed", random_state=0).fit(K, y)
    same = CascadeSVC(4, kernel="linear", random_state=0).fit(X, y)
    np.testing.assert_allclose(found.decision_function(K), same.decision_function(X), atol=1e-6)
    with pytest.raises(ValueError, match="no features to find centres in"):
        CascadeSVC(4, kernel="precomputed", partition="kmeans").fit(K, y)


def test_what_does_not_fit_is_refused_beforehand(cancer):
    X, y = cancer
    with pytest.raises(MemoryError, match=r"last layer's Gram matrix of all 569 samples needs"):
        CascadeSVC(8, passes="all", memory_limit_bytes=2 * 10**6).fit(X, y)
    with pytest.raises(ValueError, match="'passes' parameter"):
        CascadeSVC(8, passes="most").fit(X, y)
    with pytest.raises(ValueError, match="'n_passes' parameter"):
        CascadeSVC(8, n_passes=0).fit(X, y)


def test_verbose_says_what_a_layer_found(cancer, capsys):
    CascadeSVC(2, random_state=0, verbose=1).fit(*cancer)
    lines = [li for li in capsys.readouterr().out.splitlines() if "problems solved" not in li]
    assert lines[0].startswith("[kernels] pass 1, layer 1: 2 nodes, 569 samples, ")
    assert lines[1].startswith("[kernels] pass 1, layer 2: 1 nodes, ")


def test_a_precomputed_kernel_with_a_partitioner_object(cancer):
    X, y = cancer
    K = X @ X.T
    found = CascadeSVC(kernel="precomputed", partition=RandomPartition(3, random_state=0)).fit(K, y)
    assert [len(layer) for layer in found.layers_] == [3, 2, 1] and found.score(K, y) > 0.9
    with pytest.raises(ValueError, match="no features to find centres in"):
        CascadeSVC(kernel="precomputed", partition=FCFSPartition(3)).fit(K, y)
