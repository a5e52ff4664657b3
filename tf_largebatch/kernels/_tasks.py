"""The binary problems that a multi-class SVM consists of, and SMO on them for sets of rows."""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight

from tf_largebatch.kernels._engine import Problem, solve_parts
from tf_largebatch.kernels._functions import CHUNK_BYTES, gram
from tf_largebatch.kernels._smo import smo


class Tasks(NamedTuple):
    """k binary problems: class `positive[t]` against class `negative[t]`, -1 for all others.

    Two classes are one problem. Classes are numbers from 0.
    """

    positive: np.ndarray  # (k,)
    negative: np.ndarray  # (k,)
    n_classes: int

    @classmethod
    def make(cls, n_classes, multi_class):
        """One-vs-rest ("ovr") or one-vs-one ("ovo").

        >>> Tasks.make(3, "ovo").positive, Tasks.make(3, "ovo").negative
        (array([0, 0, 1]), array([1, 2, 2]))
        """
        if n_classes == 2:
            return cls(np.array([1]), np.array([0]), 2)
        if multi_class == "ovr":
            return cls(np.arange(n_classes), np.full(n_classes, -1), n_classes)
        return cls(*np.triu_indices(n_classes, 1), n_classes)

    def signs(self, codes):
        """(n_samples, k) of 1, -1, and 0 where a sample takes no part.

        Args:
            codes: (n_samples,) numbers of the classes.
        """
        codes = np.asarray(codes)[:, np.newaxis]
        is_negative = (codes == self.negative) | ((self.negative < 0) & (codes != self.positive))
        return (codes == self.positive).astype(np.int8) - is_negative.astype(np.int8)

    def decide(self, decisions):
        """What `decision_function` returns, of the k problems' decisions (n_samples, k).

        (n_samples,) of two classes, above 0 for the second; else (n_samples, n_classes), the
        largest for the predicted one: one-vs-one by votes, ties by the sums of the decisions. A
        decision of 0, of a part without either class, is no vote.
        """
        if self.n_classes == 2:
            return decisions[:, 0]
        if self.negative[0] < 0:
            return decisions
        votes = np.zeros((len(decisions), self.n_classes))
        sums = np.zeros_like(votes)
        for t, (i, j) in enumerate(zip(self.positive, self.negative, strict=True)):
            votes[:, i] += decisions[:, t] > 0
            votes[:, j] += decisions[:, t] < 0
            sums[:, i] += decisions[:, t]
            sums[:, j] -= decisions[:, t]
        # Between -1/3 and 1/3: never as much as a vote.
        return votes + sums / (3 * (np.abs(sums) + 1))


def upper_bounds(codes, signs, C, class_weight):
    """(n_samples, k) bounds C_i of the multipliers; 0 where a sample takes no part.

    Args:
        codes: (n_samples,) numbers of the classes.
        signs: (n_samples, k), as `Tasks.signs`.
        C: Above 0.
        class_weight: (n_classes,) factors of C.
    """
    return (C * class_weight[codes])[:, np.newaxis] * (signs != 0)


def class_weights(class_weight, classes, y):
    """(n_classes,) factors of C: None, "balanced" or a dict of classes, as scikit-learn's.

    Raises:
        ValueError: If a weight isn't a finite number above 0.
    """
    weights = compute_class_weight(class_weight, classes=classes, y=y)
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            "class_weight must have finite numbers above 0: C times a class's weight bounds its "
            f"multipliers. Received: class_weight={class_weight!r}. Leave a class's samples out to "
            "train without it."
        )
    return weights


class Expansion:
    """A trained part: decision(x) = sum_i coef_i K(x, x_i) + intercept, for each of k problems.

    Args:
        support: (n_SV,) numbers of the support vectors among the training samples.
        vectors: (n_SV, n_features), dense or CSR; with a precomputed kernel None.
        coef: (n_SV, k), alpha_i y_i.
        intercept: (k,), -b.
    """

    def __init__(self, support, vectors, coef, intercept):
        self.support, self.vectors = support, vectors
        self.coef, self.intercept = coef, intercept

    def decide(self, X, kernel):
        """(n_samples, k) decisions; `kernel`: the keyword arguments of `gram`."""
        decisions = np.empty((X.shape[0], self.coef.shape[1]))
        decisions[:] = self.intercept
        if not len(self.support):
            return decisions
        chunk = max(1, CHUNK_BYTES // (8 * len(self.support)))
        for start in range(0, X.shape[0], chunk):
            rows = X[start : start + chunk]
            if kernel["kernel"] == "precomputed":
                values = gram(rows[:, self.support], **kernel)
            else:
                values = gram(rows, self.vectors, **kernel)
            decisions[start : start + chunk] += values @ self.coef
        return decisions


class Samples(NamedTuple):
    """Training samples as the solver takes them."""

    X: object  # (n_samples, n_features), dense or CSR; precomputed: (n_samples, n_samples)
    signs: np.ndarray  # (n_samples, k)
    bounds: np.ndarray  # (n_samples, k)
    kernel: dict  # the keyword arguments of `gram`
    is_pairwise: bool  # whether the k problems are pairs of classes, and leave samples out

    @property
    def is_precomputed(self):
        """Whether X holds the kernel's values."""
        return self.kernel["kernel"] == "precomputed"

    def take(self, rows):
        """Some of the samples; a precomputed kernel keeps their rows and columns."""
        X = _square(self.X, rows) if self.is_precomputed else self.X[rows]
        return Samples(X, self.signs[rows], self.bounds[rows], self.kernel, self.is_pairwise)


class Node(NamedTuple):
    """What SMO found for one set of rows."""

    rows: np.ndarray  # (n_rows,)
    alpha: np.ndarray  # (n_rows, k)
    b: np.ndarray  # (k,)
    n_iter: np.ndarray  # (k,)
    gap: np.ndarray  # (k,) f_low - f_high
    seconds: float
    objective: np.ndarray | None = None  # (k,) of the dual, (2.1)

    @property
    def is_support(self):
        """(n_rows,) whether a row is a support vector of any of the k problems."""
        return (self.alpha > 0).any(1)

    def expansion(self, samples, rows=None):
        """The trained part, of the rows whose multipliers aren't 0.

        Args:
            samples: `Samples` that `self.rows`, or `rows`, count in.
        """
        keep = self.is_support
        rows = self.rows if rows is None else rows
        vectors = None if samples.is_precomputed else samples.X[rows[keep]]
        coef = self.alpha[keep] * samples.signs[rows[keep]]
        return Expansion(self.rows[keep], vectors, coef, -self.b)


def solve_nodes(
    samples, row_sets, *, tol, max_iter, alpha=None, **options
):  # fmt: skip
    """SMO for each set of rows, all binary problems of all sets in one call of the engine.

    One-vs-rest problems share their set's Gram matrix. A one-vs-one problem has a matrix of its
    own, of its two classes' rows: smaller than the whole one as soon as there are three classes.

    Args:
        samples: `Samples`, or a sequence with one for each set where each has its own.
        row_sets: Arrays of row numbers.
        alpha: None, or a feasible start for each set: (n_rows, k).
        options: Of `_engine.solve_parts`; `groups` counts the sets.

    Returns:
        A list of `Node`.
    """
    of_set = samples if isinstance(samples, list) else [samples] * len(row_sets)
    jobs = []  # (set, places of its rows, tasks)
    for s, rows in enumerate(row_sets):
        signs = of_set[s].signs[rows]
        if not of_set[s].is_pairwise:
            jobs.append((s, np.arange(len(rows)), np.arange(signs.shape[1])))
        else:
            jobs += [(s, np.flatnonzero(signs[:, t]), np.array([t])) for t in range(signs.shape[1])]
    groups = options.pop("groups", None)
    if groups is not None:
        groups = [[j for j, (s, _, _) in enumerate(jobs) if s in group] for group in groups]
    problems = []
    for s, places, tasks in jobs:
        start = None if alpha is None else alpha[s][np.ix_(places, tasks)]
        problems.append(_problem(of_set[s], row_sets[s][places], tasks, start))
    found = solve_parts(
        partial(smo, tol=tol, max_iter=max_iter), problems, groups=groups, **options
    )
    k = of_set[0].signs.shape[1]
    nodes = [
        Node(
            rows, np.zeros((len(rows), k)), np.zeros(k), np.zeros(k, int), np.zeros(k), 0.0,
            np.zeros(k),
        )
        for rows in row_sets
    ]  # fmt: skip
    for (s, places, tasks), result, seconds in zip(jobs, found, found.seconds, strict=True):
        node = nodes[s]
        if len(places):
            node.alpha[np.ix_(places, tasks)] = result["alpha"]
        for name in ("b", "n_iter", "gap", "objective"):
            getattr(node, name)[tasks] = result[name]
        nodes[s] = node._replace(seconds=node.seconds + float(seconds))
    return nodes


def _square(K, rows):
    """Rows and columns of a kernel matrix, without all columns of the rows in between."""
    return K[rows][:, rows] if sparse.issparse(K) else K[np.ix_(rows, rows)]


def _problem(samples, rows, tasks, start):
    """One set's or one pair's `Problem`; nothing of X is touched before it is made."""
    dtype = np.float32 if samples.X.dtype == np.float32 else np.float64

    def fill(out):
        if samples.is_precomputed:
            gram(_square(samples.X, rows), **samples.kernel, out=out)
        else:
            gram(samples.X[rows], **samples.kernel, out=out)

    def make():
        columns = np.ix_(rows, tasks)
        arrays = {
            "K": fill,
            "y": samples.signs[columns].astype(dtype),
            "C": samples.bounds[columns].astype(dtype),
        }
        if start is not None:
            arrays["alpha"] = start.astype(dtype)
        return arrays

    return Problem(make, len(rows), dtype)
