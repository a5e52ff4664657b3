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
_TAKEN = threading.Lock()


@contextlib.contextmanager
def one_thread():
    """NumPy's and SciPy's BLAS have one thread inside, and afterwards as many as before.

    The number is the process's. So the first to enter sets it and gives it back, and who comes
    while it is inside, from another thread or nested, does nothing.
    """
    if not _TAKEN.acquire(blocking=False):
        yield
        return
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _TAKEN.release()


@functools.cache
def _libraries():
    """The libraries that are loaded; finding them takes milliseconds."""
    return ThreadpoolController()
