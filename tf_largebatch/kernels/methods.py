"""The methods of thesis chapters 2-4 by name, each one row of data: an estimator and its arguments.

What tells the methods apart is how samples are split, whether parts pass anything on, and who
answers for a new sample:

>>> make("bkrr2", n_parts=4, alpha=0.1)
PartitionedKernelRidge(alpha=0.1, n_parts=4, partition='kbalance')
"""

import importlib
from typing import NamedTuple


class Method(NamedTuple):
    """One method: `make(name)` is `estimator(**parameters)`."""

    name: str
    estimator: str  # the class's name in tf_largebatch.kernels
    parameters: dict
    source: str
    # What measures it: "score"; or "oracle_score", where the method looks at the true y and is a
    # bound, no predictor.
    score: str = "score"
    ours: bool = False  # beside the 9 and 8 methods that the thesis compares


# Where each estimator lives, so that a name costs the import of its own module only.
ESTIMATORS = {
    "PartitionedSVC": "partitioned_svc",
    "CascadeSVC": "cascade",
    "DistributedSVC": "distributed_svc",
    "PartitionedKernelRidge": "partitioned_ridge",
    "DistributedKernelRidge": "distributed_ridge",
    "AsyncGCDSVC": "async_svc",
}


def _routed(name, partition, source, combine="nearest", **more):
    parameters = {"partition": partition, "combine": combine}
    return Method(name, "PartitionedSVC", parameters, source, **more)


def _layers(name, partition, passes, source):
    return Method(name, "CascadeSVC", {"partition": partition, "passes": passes}, source)


def _ridge(name, partition, combine, source, score="score"):
    parameters = {"partition": partition, "combine": combine}
    return Method(name, "PartitionedKernelRidge", parameters, source, score)


_CLASSIFIERS = (
    Method(
        "smo", "PartitionedSVC", {"n_parts": 1, "partition": "random"}, "thesis 2.2, Algorithm 1"
    ),
    Method("dis_smo", "DistributedSVC", {}, "thesis 2.2 and 2.3; Cao and Keerthi 2006"),
    _layers("cascade", "random", "support_vectors", "thesis 2.2, Figure 2.1; Graf et al. 2004"),
    _layers("dc_svm", "kmeans", "all", "thesis 2.2; Hsieh, Si and Dhillon 2013"),
    _layers("dc_filter", "kmeans", "support_vectors", "thesis 2.3"),
    _routed("cp_svm", "kmeans", "thesis 2.4, Figure 2.2"),
    _routed("bkm_svm", "balanced_kmeans", "thesis 2.4, Algorithm 4"),
    _routed("fcfs_svm", "fcfs", "thesis 2.4, Algorithm 3"),
    _routed("ca_svm", "random", "thesis 2.4, Algorithm 5"),
    # Ours: K-balance is the thesis's for ridge regression; averaging is DC-KRR's way.
    _routed("kbalance_svm", "kbalance", "thesis 3.4, Algorithm 9, for SVM", ours=True),
    _routed("ca_svm_average", "random", "as ca_svm, all models' mean", "average", ours=True),
    Method("asy_gcd", "AsyncGCDSVC", {"selection": "greedy"}, "thesis 4", ours=True),
    Method("pscd", "AsyncGCDSVC", {"selection": "random"}, "thesis 4; random i", ours=True),
)
_REGRESSORS = (
    Method("dkrr", "DistributedKernelRidge", {}, "thesis 3.3, Figure 3.3"),
    _ridge("dc_krr", "random", "average", "thesis 3.3, Algorithm 8; Zhang et al. 2013"),
    _ridge("kkrr", "kmeans", "average", "thesis 3.4, Figure 3.4"),
    _ridge("kkrr2", "kmeans", "nearest", "thesis 3.4"),
    _ridge("kkrr3", "kmeans", "nearest", "thesis 3.4", "oracle_score"),
    _ridge("bkrr", "kbalance", "average", "thesis 3.4, Algorithm 9"),
    _ridge("bkrr2", "kbalance", "nearest", "thesis 3.4, Algorithm 10"),
    _ridge("bkrr3", "kbalance", "nearest", "thesis 3.4, Algorithm 11", "oracle_score"),
)
METHODS = {method.name: method for method in (*_CLASSIFIERS, *_REGRESSORS)}


def make(name, **parameters):
    """The unfitted estimator of a method.

    Args:
        name: A key of `METHODS`.
        **parameters: More of the estimator's arguments; those that make the method what it is can't
            be changed.

    Raises:
        ValueError: If there is no such method, or `parameters` contradict it.
        TypeError: If the estimator has no such argument.
        ImportError: If its extra isn't installed.

    >>> make("ca_svm", partition="kmeans")
    Traceback (most recent call last):
      ...
    ValueError: 'ca_svm' is PartitionedSVC with partition='random', combine='nearest'. Received:
    partition='kmeans'. Leave it out, or use the estimator itself.
    """
    if name not in METHODS:
        raise ValueError(f"name must be one of {list(METHODS)}. Received: name={name!r}.")
    method = METHODS[name]
    for key, value in parameters.items():
        if key in method.parameters and value != method.parameters[key]:
            fixed = ", ".join(f"{k}={v!r}" for k, v in method.parameters.items())
            raise ValueError(
                f"{name!r} is {method.estimator} with {fixed}. Received: {key}={value!r}. Leave it "
                "out, or use the estimator itself."
            )
    return estimator_class(method.estimator)(**{**method.parameters, **parameters})


def estimator_class(name):
    """The class of this name, from `ESTIMATORS`.

    >>> estimator_class("PartitionedSVC").__name__
    'PartitionedSVC'
    """
    return getattr(importlib.import_module(f"{__package__}.{ESTIMATORS[name]}"), name)
