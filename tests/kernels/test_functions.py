"""Kernel functions against formulas written out, and refusals before memory is allocated."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.svm import SVC

from tf_largebatch.kernels import _functions
from tf_largebatch.kernels._functions import (
    available_bytes,
    gamma_value,
    gram,
    gram_bytes,
    refuse_what_does_not_fit,
)


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return random.normal(size=(30, 4)), random.normal(size=(20, 4))


FORMULAS = {
    "linear": lambda p, d: p,
    "poly": lambda p, d: (0.3 * p + 0.7) ** 2,
    "rbf": lambda p, d: np.exp(-0.3 * d),
    "sigmoid": lambda p, d: np.tanh(0.3 * p + 0.7),
}


@pytest.mark.parametrize("kernel", FORMULAS)
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "CSR"])
@pytest.mark.parametrize("chunk_bytes", [1, 2**24])
def test_gram_is_table_2_1(rows, kernel, make, chunk_bytes, monkeypatch):
    monkeypatch.setattr(_functions, "CHUNK_BYTES", chunk_bytes)
    X, Y = rows
    products = X @ Y.T
    distances = ((X[:, None] - Y) ** 2).sum(2)
    found = gram(make(X), make(Y), kernel=kernel, gamma=0.3, degree=2, coef0=0.7)
    np.testing.assert_allclose(found, FORMULAS[kernel](products, distances), rtol=1e-10)
    out = np.empty((30, 30))
    same = gram(make(X), kernel=kernel, gamma=0.3, degree=2, coef0=0.7, out=out)
    assert same is out
    np.testing.assert_allclose(same, same.T, rtol=1e-12)


def test_gram_keeps_float32_and_takes_functions_and_values(rows):
    X, Y = rows
    X32 = X.astype(np.float32)
    assert gram(X32, gamma=1.0).dtype == np.float32
    assert gram(X32, Y, gamma=1.0).dtype == np.float64
    np.testing.assert_array_equal(gram(X, Y, kernel=lambda a, b: 2 * a @ b.T), 2 * X @ Y.T)
    np.testing.assert_array_equal(gram(X @ Y.T, kernel="precomputed"), X @ Y.T)
    assert (np.diag(gram(1e3 * X, gamma=1.0)) == 1).all()
    with pytest.raises(ValueError, match="must return the values of all pairs"):
        gram(X, Y, kernel=lambda a, b: np.ones(3))
    with pytest.raises(ValueError, match="kernel must be one of"):
        gram(X, Y, kernel="cosine-ish")


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.25])
def test_gamma_is_that_of_svc(rows, gamma):
    X = np.abs(rows[0]) * (np.abs(rows[0]) > 0.5)
    y = np.arange(30) % 2
    for data in (X, sparse.csr_array(X), X.astype(np.float32)):
        expected = SVC(gamma=gamma).fit(data, y)._gamma
        assert gamma_value(gamma, data) == pytest.approx(expected, rel=1e-5)
    assert gamma_value("scale", np.ones((3, 2))) == 1.0
    for wrong in ("auto-ish", -1, True):
        with pytest.raises(ValueError, match="gamma must be"):
            gamma_value(wrong, X)


def test_refusals_name_the_bytes():
    assert gram_bytes(10, 20, np.float32) == 800
    assert available_bytes() > 2**20
    refuse_what_does_not_fit(1000, "Something", 1000)
    with pytest.raises(MemoryError, match=r"^Something needs 1,001 bytes; the limit is 1,000\."):
        refuse_what_does_not_fit(1001, "Something", 1000)
    with pytest.raises(MemoryError, match="n_parts"):
        refuse_what_does_not_fit(gram_bytes(10**8), "The Gram matrix")
