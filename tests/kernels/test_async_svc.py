"""AsyncGCDSVC against LIBLINEAR, which solves the same dual, and against scikit-learn's rules."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from tf_largebatch.kernels import async_svc
from tf_largebatch.kernels.async_svc import AsyncGCDSVC
from tf_largebatch.kernels.box_qp import KernelMatrix, solve_box_qp

pytest.importorskip("numba")
EXACT = {"tol": 1e-8, "random_state": 0}


# Small data is trained by one thread, without which two fits needn't be the same bits.
@parametrize_with_checks(
    [AsyncGCDSVC(), AsyncGCDSVC(selection="random", multi_class="ovo", tol=0.1)]
)
def test_scikit_learns_checks(estimator, check):
    if "array_api" in str(check) or "data_not_an_array" in str(check):
        pytest.skip("needs pandas or SCIPY_ARRAY_API")
    check(estimator)


def classes(n_classes, n=120):
    random = np.random.default_rng(0)
    centers = 1.2 * random.normal(size=(n_classes, 3))
    y = random.integers(0, n_classes, n)
    return centers[y] + random.normal(size=(n, 3)), np.array(["a", "b", "c", "d"])[y]


def liblinear(**arguments):
    """The SVM with hinge loss; its bias, if any, has a penalty, as ours."""
    return LinearSVC(
        loss="hinge", dual=True, tol=1e-10, max_iter=10**6, random_state=0, **arguments
    )


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"a": 3.0}])
def test_two_classes_as_liblinear(class_weight, fit_intercept, n_threads):
    X, y = classes(2)
    expected = liblinear(C=0.7, fit_intercept=fit_intercept, class_weight=class_weight).fit(X, y)
    model = AsyncGCDSVC(
        C=0.7, kernel="linear", fit_intercept=fit_intercept, class_weight=class_weight,
        n_threads=n_threads, **EXACT,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_allclose(
        model.dual_coef_ @ model.support_vectors_, expected.coef_, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        model.decision_function(X), expected.decision_function(X), rtol=0, atol=1e-4
    )
    assert (model.predict(X) == expected.predict(X)).all()
    assert model.n_threads_ == n_threads


def test_one_against_the_rest_and_one_against_one():
    X, y = classes(4)
    many = AsyncGCDSVC(kernel="linear", **EXACT).fit(X, y)
    expected = OneVsRestClassifier(liblinear(fit_intercept=False)).fit(X, y)
    np.testing.assert_allclose(
        many.decision_function(X), expected.decision_function(X), rtol=0, atol=1e-4
    )
    pairs = AsyncGCDSVC(kernel="linear", multi_class="ovo", **EXACT).fit(X, y)
    expected = OneVsOneClassifier(liblinear(fit_intercept=False)).fit(X, y)
    for row, model in zip(pairs.dual_coef_, expected.estimators_, strict=True):
        np.testing.assert_allclose(row @ pairs.support_vectors_, -model.coef_[0], atol=1e-5)
    assert np.mean(pairs.predict(X) == expected.predict(X)) > 0.99
    assert many.n_iter_.shape == (4,) and pairs.n_iter_.shape == (6,)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_rows_columns_and_kernel_values_are_the_same_data(kernel, fit_intercept):
    X, y = make_moons(150, noise=0.2, random_state=0)
    X[np.abs(X) < 0.3] = 0

    def fit(kernel, X):
        return AsyncGCDSVC(
            kernel=kernel, gamma=0.7, coef0=0.1, fit_intercept=fit_intercept, tol=1e-6
        ).fit(X, y)

    def values(A, B):
        if kernel == "rbf":
            return np.exp(-0.7 * ((A[:, None] - B[None]) ** 2).sum(-1))
        products = A @ B.T
        by_name = {"linear": products, "poly": (0.7 * products + 0.1) ** 3}
        return by_name.get(kernel, np.tanh(0.7 * products + 0.1))

    dense = fit(kernel, X)
    others = {
        "csr": fit(kernel, sparse.csr_array(X)).decision_function(sparse.csr_matrix(X)),
        "precomputed": fit("precomputed", values(X, X)).decision_function(values(X, X)),
        "function": fit(values, X).decision_function(X),
    }
    for name, decisions in others.items():
        np.testing.assert_allclose(
            decisions, dense.decision_function(X), rtol=0, atol=1e-4, err_msg=name
        )
    assert fit("precomputed", values(X, X)).support_vectors_ is None


@pytest.mark.parametrize("arguments", [{}, {"sync": "atomic"}, {"max_staleness": None}])
def test_threads_agree_within_tol_and_one_thread_to_the_bit(arguments):
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400] % 2

    def fit(n_threads):
        return AsyncGCDSVC(
            C=10, gamma=0.1, n_threads=n_threads, random_state=0, tol=1e-5, **arguments
        ).fit(X, y)

    one, two = fit(1), fit(2)
    assert (one.dual_coef_ == fit(1).dual_coef_).all()
    np.testing.assert_allclose(
        two.decision_function(X), one.decision_function(X), rtol=0, atol=1e-3
    )
    assert two.results_[0].objective == pytest.approx(one.results_[0].objective, rel=1e-7)


def test_a_small_c_is_solved_too():
    """The projected gradient can't exceed C: tol alone would stop before the first update."""
    X, y = classes(2)
    model = AsyncGCDSVC(C=1e-5, kernel="linear").fit(X, y)
    np.testing.assert_allclose(model.dual_coef_[0], np.where(y == "b", 1e-5, -1e-5), rtol=1e-12)


def test_it_can_be_pickled():
    X, y = make_moons(80, random_state=0)
    model = AsyncGCDSVC(n_threads=2).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(X), model.decision_function(X))
    again.fit(X, y)


def test_it_says_how_it_goes_on_and_where_it_stopped(capsys):
    X, y = make_moons(80, noise=0.3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="ended after 5 updates"):
        model = AsyncGCDSVC(max_iter=5, verbose=1).fit(X, y)
    assert model.n_iter_.tolist() == [5]
    assert "5 updates, objective" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"C": -1.0}, "The 'C' parameter of AsyncGCDSVC must be"),
        ({"C": np.inf}, "The 'C' parameter of AsyncGCDSVC must be .*Got inf"),
        ({"class_weight": {0: 1e200}, "C": 1e200}, "C times class_weight must be finite"),
        (
            {"gamma": np.inf},
            "gamma must be .*finite.*gamma=inf|'gamma' parameter of AsyncGCDSVC must be",
        ),
        ({"coef0": np.inf}, "'coef0' parameter of AsyncGCDSVC must be .*Got inf"),
        ({"coef0": -np.inf}, "'coef0' parameter"),
        ({"kernel": "poly", "degree": np.inf}, "'degree' parameter of AsyncGCDSVC must be an int"),
        ({"kernel": "poly", "degree": 10**6, "gamma": 9.0}, r"k\(x_i, x_i\) must be finite"),
        ({"tol": 0.0}, "'tol' parameter"),
        ({"max_iter": -2}, "'max_iter' parameter"),
        ({"multi_class": "crammer"}, "'multi_class' parameter"),
        ({"kernel": "cosine"}, "kernel must be one of"),
        ({"sync": "racy"}, "sync must be one of"),
        ({"n_threads": -1}, "n_threads must be"),
        ({"kernel": "precomputed"}, "must be a square matrix"),
    ],
)
def test_bad_parameters(arguments, words):
    X, y = make_moons(20, random_state=0)
    with pytest.raises(ValueError, match=words):
        AsyncGCDSVC(**arguments).fit(X, y)


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
@pytest.mark.parametrize("gamma", ["scale", 1.0])
@pytest.mark.parametrize("scale", [1e154, 1e160, 1e307])
def test_samples_so_large_that_the_kernel_overflows_are_refused(scale, gamma, kernel, store):
    X, y = make_moons(40, noise=0.1, random_state=0)
    with pytest.raises(ValueError, match="must be finite.*Scale|needs a finite variance.*Scale"):
        AsyncGCDSVC(kernel=kernel, gamma=gamma).fit(store(X * scale), y)


def test_samples_at_the_edges_of_the_numbers():
    X, y = make_moons(60, noise=0.1, random_state=0)
    expected = AsyncGCDSVC().fit(X, y).predict(X)
    for scale in (1e-140, 1e150):
        assert (AsyncGCDSVC().fit(X * scale, y).predict(X * scale) == expected).all()
    with pytest.raises(ValueError, match="gamma.*finite"):
        AsyncGCDSVC().fit(X * 1e-157, y)  # 1 / variance overflows
    single = (X * 1e30).astype(np.float32)  # its squares aren't numbers of float32
    assert (AsyncGCDSVC().fit(single, y).predict(single) == expected).all()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_columns_that_are_not_numbers_are_refused(n_threads):
    X, y = make_moons(60, noise=0.1, random_state=0)
    # (x'y)^1.5 is a number on the diagonal, but not where x'y < 0.
    Q = KernelMatrix(X, "poly", gamma=1.0, degree=1.5)
    with pytest.raises(ValueError, match="gradient is no longer finite.*fractional degree"):
        solve_box_qp(Q, -1.0, 0.0, 1.0, n_threads=n_threads)
    with pytest.raises(ValueError, match="infinity|NaN"):
        AsyncGCDSVC(kernel=lambda A, B: np.full((len(A), len(B)), np.inf)).fit(X, y)


def test_samples_too_large_for_a_fitted_model_are_refused():
    X, y = make_moons(40, noise=0.1, random_state=0)
    model = AsyncGCDSVC(kernel="poly").fit(X, y)
    with pytest.raises(ValueError, match="kernel's values .*finite"):
        model.predict(X * 1e160)


def test_without_a_max_iter_the_updates_are_bounded(monkeypatch):
    """Nothing separates these labels, and C is so large that the end is years away."""
    monkeypatch.setattr(async_svc, "MAX_UPDATES", 1000)
    random = np.random.default_rng(0)
    X, y = random.normal(size=(30, 2)), random.integers(0, 2, 30)
    for each, most in ((10, 1000), (70, 2100)):
        monkeypatch.setattr(async_svc, "MAX_UPDATES_A_SAMPLE", each)
        with pytest.warns(ConvergenceWarning, match=f"ended after {most} updates"):
            model = AsyncGCDSVC(kernel="linear", C=1e9).fit(X, y)
        assert model.n_iter_.tolist() == [most]


def test_bad_data():
    with pytest.raises(ValueError, match="number of classes has to be greater than one"):
        AsyncGCDSVC().fit([[0.0], [1.0]], [1, 1])
    with pytest.raises(ValueError, match="NaN"):
        AsyncGCDSVC().fit([[0.0], [np.nan]], [0, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        AsyncGCDSVC().fit([[0.0], [1.0]], [0, 1, 1])
