"""BLAS has one thread inside, and all of them afterwards."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

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


def test_threads_that_overlap(three_threads):
    """One leaves while the other is inside: the number is what it was before both."""
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def second():
        with one_thread():
            second_is_in.set()
            first_is_out.wait(10)

    thread = threading.Thread(target=second)
    with one_thread():
        thread.start()
        assert second_is_in.wait(10)
        assert blas_threads() == {1}
    first_is_out.set()
    thread.join()
    assert blas_threads() == {3}


@pytest.mark.parametrize("features, threads", [(3, {1}), (60_000, {3})])
def test_small_products_have_one_thread(three_threads, features, threads):
    seen = []

    def kernel(X, Y):
        seen.append(blas_threads())
        return X @ Y.T

    gram(np.ones((50, features)), kernel=kernel)
    assert seen == [threads]


def test_threads_come_back_from_an_error(three_threads):
    with pytest.raises(ValueError, match="finite"):
        gram(np.full((3, 2), 1e200), kernel="linear")
    assert blas_threads() == {3}
