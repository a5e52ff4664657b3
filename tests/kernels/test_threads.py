"""BLAS has one thread inside, and all of them afterwards."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tf_largebatch.kernels import _functions
from tf_largebatch.kernels._functions import gram
from tf_largebatch.kernels._threads import one_thread


def blas_threads():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


@pytest.fixture
def three_threads():
    """A number that isn't what the machine happens to have."""
    with threadpool_limits(3, user_api="blas"):
        if blas_threads() != {3}:
            pytest.skip("this BLAS has no choice of threads")
        yield


def test_nested(three_threads):
    with one_thread():
        assert blas_threads() == {1}
        with one_thread():
            pass
        assert blas_threads() == {1}
    assert blas_threads() == {3}


def test_other_threads_leave_the_number_alone(three_threads):
    """Else who sets it beside them, as scikit-learn does, might give back what they had set."""
    seen = []

    def enter():
        with one_thread():
            seen.append(blas_threads())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [{3}]


@pytest.mark.parametrize("features, threads", [(3, {1}), (60_000, {3})])
def test_small_products_have_one_thread(three_threads, features, threads, monkeypatch):
    seen = []

    def products(X, Y, **options):
        seen.append(blas_threads())
        return X @ Y.T

    monkeypatch.setattr(_functions, "pairwise_kernels", products)
    gram(np.ones((50, features)), kernel="linear")
    assert seen == [threads]


def test_a_users_function_keeps_the_threads(three_threads):
    seen = []

    def kernel(X, Y):
        seen.append(blas_threads())
        return X @ Y.T

    gram(np.ones((50, 3)), kernel=kernel)
    assert seen == [{3}]


def test_threads_come_back_from_an_error(three_threads):
    with pytest.raises(ValueError, match="finite"):
        gram(np.full((3, 2), 1e200), kernel="linear")
    assert blas_threads() == {3}
