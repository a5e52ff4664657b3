"""One thread for BLAS while products are small and TensorFlow's threads wait for them.

BLAS and TensorFlow have a thread a core each, and those that wait spin: small products beside
TensorFlow's own take up to several times as long with all threads as with one.
"""

import contextlib
import functools
import threading

from threadpoolctl import ThreadpoolController

# Below it a product is done before its threads have met.
FLOPS_FOR_THREADS = 2e8


@contextlib.contextmanager
def one_thread():
    """NumPy's and SciPy's BLAS have one thread inside, and afterwards as many as before.

    In the main thread, from the outermost call; elsewhere it does nothing. For the number is the
    process's: of two threads that each set it and give back what they found, the last one may leave
    the other's. (Others' limits, scikit-learn's among them, can still do that to each other.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries():
    """The libraries that are loaded; finding them takes milliseconds."""
    return ThreadpoolController()
