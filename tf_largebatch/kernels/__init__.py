"""Kernel machines that train in parts: SVM and ridge regression of Yang You's thesis, chapters 2-4.

scikit-learn estimators, for data whose kernel matrix is too large, or too slow to solve whole.
Install the extra `[kernels]`; nothing here imports the deep-learning half. An estimator's module is
imported when it is first used: partitioners, theory and AsyncGCDSVC need no TensorFlow.

>>> from sklearn.datasets import make_moons
>>> X, y = make_moons(200, noise=0.2, random_state=0)
>>> METHODS["fcfs_svm"].parameters
{'partition': 'fcfs', 'combine': 'nearest'}
>>> FCFSPartition(8, random_state=0).fit(X).sizes_
array([25, 25, 25, 25, 25, 25, 25, 25])
"""

import importlib

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"The kernel methods need scikit-learn, which can't be imported ({error}). Install the "
        "extra: pip install 'tf-largebatch[kernels]'."
    ) from error

from tf_largebatch.kernels.methods import ESTIMATORS, METHODS, Method, estimator_class, make
from tf_largebatch.kernels.partition import (
    BalancedKMeansPartition,
    FCFSPartition,
    KBalancePartition,
    KMeansPartition,
    RandomPartition,
)

__all__ = [
    "METHODS",
    "AsyncGCDSVC",
    "BalancedKMeansPartition",
    "BoxQP",
    "CascadeSVC",
    "DistributedKernelRidge",
    "DistributedSVC",
    "FCFSPartition",
    "KBalancePartition",
    "KMeansPartition",
    "KernelMatrix",
    "Method",
    "PartitionedKernelRidge",
    "PartitionedSVC",
    "RandomPartition",
    "asy_gcd_condition",
    "make",
    "solve_box_qp",
]
# Imported when first used, beside the estimators.
_ELSEWHERE = {
    "BoxQP": "box_qp",
    "KernelMatrix": "box_qp",
    "asy_gcd_condition": "staleness",
    "solve_box_qp": "box_qp",
}


def __getattr__(name):
    if name in ESTIMATORS:
        return estimator_class(name)
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
