"""Parts that already lie with the workers: each reads its own and tells little before training."""

import os
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.datasets import load_svmlight_file
from sklearn.utils import check_X_y

from tf_largebatch.kernels._functions import gamma_value
from tf_largebatch.kernels._tasks import Expansion
from tf_largebatch.kernels._workers import gather_arrays, local_replicas
from tf_largebatch.kernels.partition import RandomPartition

# Of a trained part; the rows are dense "vectors" or the three arrays of CSR.
SENT = ("support", "coef", "intercept", "vectors", "data", "indices", "indptr")


class LocalParts(NamedTuple):
    """This worker's parts; those of others have no rows."""

    X: list  # (n_rows, n_features) each
    codes: list  # (n_rows,) numbers of the classes
    sizes: np.ndarray  # (n_parts,) rows of all parts
    classes: np.ndarray
    gamma: float
    n_features: int
    groups: list  # for each replica its parts
    mine: list  # this worker's parts
    strategy: object

    def partition(self, ledger):
        """A fitted partitioner: the parts as they lie, and their means from all workers."""
        found = gather_arrays(
            {f"{p}": np.asarray(self.X[p].mean(axis=0)).ravel() for p in self.mine},
            self.strategy, ledger=ledger, what="centres",
        )  # fmt: skip
        fitted = RandomPartition(len(self.sizes))
        fitted.centers_ = np.array([found[f"{p}"] for p in range(len(self.sizes))])
        fitted.sizes_ = self.sizes
        fitted.labels_ = np.repeat(np.arange(len(self.sizes)), self.sizes)
        fitted.n_features_in_ = self.n_features
        return fitted

    def models(self, nodes, samples, ledger):
        """All parts' `Expansion`s; their rows count through the parts, one after the other."""
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        arrays = {}
        for p in self.mine:
            model = nodes[p].expansion(samples[p])
            arrays[f"{p}/support"] = model.support + first[p]
            arrays[f"{p}/coef"], arrays[f"{p}/intercept"] = model.coef, model.intercept
            if sparse.issparse(model.vectors):
                for name in ("data", "indices", "indptr"):
                    arrays[f"{p}/{name}"] = getattr(model.vectors, name)
            else:
                arrays[f"{p}/vectors"] = model.vectors
        found = gather_arrays(arrays, self.strategy, ledger=ledger, what="support vectors")
        models = []
        for p in range(len(self.sizes)):
            part = {name: found.get(f"{p}/{name}") for name in SENT}
            if part["vectors"] is None:
                part["vectors"] = sparse.csr_array(
                    (part["data"], part["indices"], part["indptr"]),
                    shape=(len(part["support"]), self.n_features),
                )
            models.append(
                Expansion(part["support"], part["vectors"], part["coef"], part["intercept"])
            )
        return models


def read_parts(parts, *, classes, n_features, gamma, strategy, ledger):
    """Reads this worker's parts and agrees with the others on classes, columns and gamma.

    Args:
        parts: As of `PartitionedSVC.fit_parts`.
        classes, n_features: None where they are to be found out.
        gamma: As of `gamma_value`; "scale" needs the sums of all parts.
        strategy: None, or the workers' strategy.
        ledger: Books what is told as "partition".

    Returns:
        `LocalParts`.

    Raises:
        ValueError: If there are no parts, fewer than replicas, one of this worker's is missing or
            malformed, or a label isn't among the classes.
    """
    parts = list(parts)
    replicas = 1 if strategy is None else strategy.num_replicas_in_sync
    if len(parts) < replicas:
        raise ValueError(
            f"parts must have at least one part for each of the {replicas} replicas. Received: "
            f"{len(parts)} parts."
        )
    groups = [[] for _ in range(replicas)]
    for p in range(len(parts)):
        groups[p * replicas // len(parts)].append(p)
    mine = [p for replica in local_replicas(strategy) for p in groups[replica]]
    read = {p: _read(p, parts[p]) for p in mine}
    told = {}
    for p, (X, y) in read.items():
        data = np.asarray(X.data if sparse.issparse(X) else X, np.float64)
        moments = np.array([X.shape[0], data.sum(), (data * data).sum()])
        # As a list first: labels of strings may come as objects, which can't be sent.
        told |= {f"{p}/labels": np.array(np.unique(y).tolist()), f"{p}/moments": moments}
        told[f"{p}/columns"] = np.int64(X.shape[1])
        if p:
            ledger.send(
                "partition", "labels, columns and sums", told[f"{p}/labels"], moments,
                told[f"{p}/columns"], source=p, target=0,
            )  # fmt: skip
    told = gather_arrays(told, strategy, ledger=ledger, phase="partition", what="labels and sums")
    every = range(len(parts))
    if n_features is None:
        n_features = max(int(told[f"{p}/columns"]) for p in every)
    if classes is None:
        classes = np.concatenate([told[f"{p}/labels"] for p in every])
    classes = np.unique(classes)
    moments = np.array([told[f"{p}/moments"] for p in every])
    if isinstance(gamma, str) and gamma == "scale":
        count, total, squares = moments.sum(0)
        count *= n_features
        variance = squares / count - (total / count) ** 2
        gamma = 1.0 / (n_features * variance) if variance > 0 else 1.0
    else:
        gamma = gamma_value(gamma, np.empty((0, n_features)))
    X, codes = [], []
    for p in every:
        rows, labels = read.get(p, (np.empty((0, n_features)), classes[:0]))
        if not np.isin(labels, classes).all():
            raise ValueError(
                f"parts[{p}] has labels that are not among the classes. Received: "
                f"{np.setdiff1d(labels, classes)[:5]}; classes={classes}."
            )
        X.append(_widened(p, rows, n_features))
        codes.append(np.searchsorted(classes, labels))
    sizes = moments[:, 0].astype(int)
    return LocalParts(X, codes, sizes, classes, gamma, n_features, groups, mine, strategy)


def _read(p, part):
    """(X, y) of one part, checked."""
    if part is None:
        raise ValueError(
            f"parts[{p}] is this worker's and must be (X, y) or the path of an svmlight file. "
            "Received: None."
        )
    if isinstance(part, str | os.PathLike):
        part = load_svmlight_file(os.fspath(part))
    X, y = part
    return check_X_y(X, y, accept_sparse="csr", dtype=[np.float64, np.float32])


def _widened(p, X, n_features):
    """Sparse rows of a file end with the last column that occurs in it."""
    if X.shape[1] == n_features:
        return X
    if not sparse.issparse(X) or X.shape[1] > n_features:
        raise ValueError(
            f"parts[{p}] has {X.shape[1]} columns. Expected: {n_features}, as n_features or the "
            "other parts say."
        )
    return sparse.csr_array((X.data, X.indices, X.indptr), shape=(X.shape[0], n_features))
