"""SVMs in a tree of merges: Cascade SVM, DC-SVM and DC-Filter."""

import time
from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_random_state

from tf_largebatch.kernels._engine import BATCH_BYTES, padded
from tf_largebatch.kernels._functions import gram_bytes, refuse_what_does_not_fit
from tf_largebatch.kernels._svc import BaseKernelSVC
from tf_largebatch.kernels._tasks import solve_nodes
from tf_largebatch.kernels.ledger import Ledger
from tf_largebatch.kernels.partition import RandomPartition, make_partition


class TreeNode(NamedTuple):
    """One SVM of the tree, a column of thesis Table 2.5."""

    pass_number: int  # from 1
    layer: int  # from 1, where all P nodes work
    rank: int  # of the node that trains it, from 0
    n_samples: int
    n_support: int
    n_iter: int  # the most of its binary problems
    seconds: float
    objective: float  # of the dual, summed over its binary problems


class CascadeSVC(BaseKernelSVC):
    """Trains an SVM on each part, then on the union of two neighbours' samples, until one is left.

    What is passed on, with its multipliers, from which the next SVM starts: the support vectors
    (Cascade SVM of Graf et al. 2004; DC-Filter) or all samples (DC-SVM of Hsieh et al. 2014, whose
    last SVM is that of the whole problem). P parts make ceil(log2 P) + 1 layers; an odd one out
    waits for the next layer.

    The released code of the thesis carries multipliers but not what they make of f: SMO then climbs
    another hill, and the dual objective falls. Here f is computed from the multipliers, so the
    objective of a node is at least that of the nodes it merges.

    A part with one class has no support vectors, and nothing tells which of its samples matter:
    all are passed on.

    Args:
        n_parts: Number of parts P; at most the number of samples.
        partition: `"random"` (Cascade), `"kmeans"` (DC-SVM, DC-Filter), or another as of
            `PartitionedSVC`.
        passes: `"support_vectors"` or `"all"`. With "all" the last layer's Gram matrix is the whole
            one, which is refused beforehand where it would not fit.
        n_passes: Passes through the tree, at most. From the second on the last SVM's support
            vectors join all parts; it ends when they stay the same.
        C, kernel, gamma, degree, coef0, class_weight: As of `sklearn.svm.SVC`. A precomputed kernel
            has no features to find centres in: only with a random partition.
        multi_class: `"ovr"`: one class against the rest; `"ovo"`: each pair of classes.
        tol: Training of a node ends with f_low <= f_high + 2 tol.
        max_iter: Of each binary problem of each node, at most 10,000,000; -1 for that many.
        strategy: None: one device. A `tf.distribute.Strategy`: each replica trains a group of a
            layer's nodes. It isn't pickled with the model.
        batch_bytes: As of `PartitionedSVC`; 0 gives each node its own time in `layers_`.
        memory_limit_bytes: Of the Gram matrices in memory; None: what is available.
        verbose: Above 0: a line for each layer, each batch of its nodes, and now and then while one
            is trained for long.
        random_state: Of the partitioner: int, RandomState or None.

    Attributes:
        classes_: (n_classes,).
        partition_: The fitted partitioner.
        layers_: A list of `TreeNode` for each layer of each pass.
        support_: (n_SV,) numbers of the support vectors; `support_vectors_`: their rows.
        dual_coef_: (k, n_SV) alpha_i y_i for each of k binary problems; `intercept_`: (k,).
        n_iter_: (k,) SMO's iterations in the last node.
        models_: The one trained model, as a list.
        ledger_: `Ledger` of what P nodes with a part each would send.
        fit_times_: Seconds: `"partition"`, `"train"`.

    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(400, noise=0.2, random_state=0)
    >>> model = CascadeSVC(4, random_state=0).fit(X, y)
    >>> [len(layer) for layer in model.layers_], model.score(X, y)
    ([4, 2, 1], 0.955)
    """

    def __init__(
        self, n_parts=8, *, partition="random", passes="support_vectors", n_passes=1, C=1.0,
        kernel="rbf", gamma="scale", degree=3, coef0=0.0, multi_class="ovr", class_weight=None,
        tol=1e-3, max_iter=-1, strategy=None, batch_bytes=BATCH_BYTES, memory_limit_bytes=None,
        verbose=0, random_state=None,
    ):  # fmt: skip
        self.n_parts = n_parts
        self.partition = partition
        self.passes = passes
        self.n_passes = n_passes
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.multi_class = multi_class
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.strategy = strategy
        self.batch_bytes = batch_bytes
        self.memory_limit_bytes = memory_limit_bytes
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X, y):
        """Trains.

        Args:
            X: (n_samples, n_features), dense or CSR; with a precomputed kernel (n_samples,
                n_samples).
            y: (n_samples,) classes.

        Raises:
            ValueError: If a parameter or the data are not as described, or y has one class.
            MemoryError: If the largest node's Gram matrix would not fit.
        """
        X, codes = self._start_fit(X, y)
        is_random = self.partition == "random" or isinstance(self.partition, RandomPartition)
        if self.kernel == "precomputed" and not is_random:
            raise ValueError(
                "With a precomputed kernel there are no features to find centres in: use "
                f"partition='random'. Received: partition={self.partition!r}."
            )
        if self.passes == "all":
            refuse_what_does_not_fit(
                gram_bytes(padded(X.shape[0]), dtype=X.dtype),
                f"The last layer's Gram matrix of all {X.shape[0]} samples",
                self.memory_limit_bytes,
            )
        self._set_gamma(X)
        self.ledger_, self.layers_ = Ledger(), []
        samples = self._samples(X, codes)
        began = time.perf_counter()
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.partition_ = make_partition(
            self.partition, n_parts=self.n_parts, random_state=seed
        ).fit(X, codes)
        self.fit_times_ = {"partition": time.perf_counter() - began}
        labels = self.partition_.labels_
        row_sets = [np.flatnonzero(labels == p) for p in range(len(self.partition_.sizes_))]
        for part, rows in enumerate(row_sets[1:], start=1):  # part 0 stays on the root
            self._send("distribute", "samples and labels", samples, rows, None, 0, part)
        began = time.perf_counter()
        last = None
        for pass_number in range(1, self.n_passes + 1):
            before = None if last is None else last.rows[last.is_support]
            last = self._climb(samples, row_sets, last, pass_number)
            if before is not None and np.array_equal(before, last.rows[last.is_support]):
                break
        self.fit_times_["train"] = time.perf_counter() - began
        self._set_model(last, samples)
        self._warn_of_gaps([last])
        return self

    def _climb(self, samples, row_sets, last, pass_number):
        """One pass through the tree; the last node."""
        if last is None:
            starts = None
        else:
            kept = np.flatnonzero(last.is_support)
            row_sets, starts = zip(
                *(
                    self._joined(samples, rows, last, kept, part)
                    for part, rows in enumerate(row_sets)
                ),
                strict=True,
            )
        ranks, layer = list(range(len(row_sets))), 1
        while True:
            nodes = solve_nodes(
                samples, row_sets, alpha=starts, tol=self.tol, max_iter=self.max_iter,
                strategy=self.strategy, ledger=self.ledger_, batch_bytes=self.batch_bytes,
                memory_limit_bytes=self.memory_limit_bytes, verbose=self.verbose,
            )  # fmt: skip
            self._note(nodes, ranks, layer, pass_number)
            if len(nodes) == 1:
                return nodes[0]
            row_sets, starts = self._merged(samples, nodes, ranks)
            ranks, layer = ranks[::2], layer + 1

    def _joined(self, samples, rows, last, kept, part):
        """A part's rows with the last support vectors, and their multipliers: a feasible start."""
        self._send("train", "support vectors to all parts", samples, last.rows[kept],
                   last.alpha[kept], 0, part)  # fmt: skip
        union = np.union1d(rows, last.rows[kept])
        alpha = np.zeros((len(union), last.alpha.shape[1]))
        alpha[np.searchsorted(union, last.rows[kept])] = last.alpha[kept]
        return union, alpha

    def _merged(self, samples, nodes, ranks):
        """Rows and starts of the next layer: each second node sends to the one before it."""
        passed = []
        for node in nodes:
            keep = np.full(len(node.rows), True) if self.passes == "all" else node.is_support
            for task in np.flatnonzero(~(node.alpha > 0).any(0)):
                keep = keep | (samples.signs[node.rows, task] != 0)
            passed.append((node.rows[keep], node.alpha[keep]))
        row_sets, starts = [], []
        for left in range(0, len(nodes), 2):
            if left + 1 == len(nodes):
                rows, alpha = nodes[left].rows, nodes[left].alpha
            else:
                rows, alpha = self._pair(samples, passed, ranks, left)
            row_sets.append(rows)
            starts.append(alpha)
        return row_sets, starts

    def _pair(self, samples, passed, ranks, left):
        (rows, alpha), (other_rows, other_alpha) = passed[left : left + 2]
        what = "all samples" if self.passes == "all" else "support vectors"
        self._send("train", what, samples, other_rows, other_alpha, ranks[left + 1], ranks[left])
        union = np.union1d(rows, other_rows)
        start = np.zeros((len(union), alpha.shape[1]))
        start[np.searchsorted(union, rows)] += alpha
        start[np.searchsorted(union, other_rows)] += other_alpha
        if len(union) < len(rows) + len(other_rows):
            start /= 2  # samples in both: the mean keeps to the box and to sum(alpha y) = 0
        return union, start

    def _send(self, phase, what, samples, rows, alpha, source, target):
        labels = samples.signs[rows].astype(np.float64)[:, :1]
        arrays = [samples.X[rows], labels] + ([] if alpha is None else [alpha])
        self.ledger_.send(phase, what, *arrays, source=source, target=target)

    def _note(self, nodes, ranks, layer, pass_number):
        self.layers_.append([
            TreeNode(
                pass_number, layer, rank, len(node.rows), int(node.is_support.sum()),
                int(node.n_iter.max()), node.seconds, float(node.objective.sum()),
            )
            for rank, node in zip(ranks, nodes, strict=True)
        ])  # fmt: skip
        if self.verbose:
            noted = self.layers_[-1]
            print(
                f"[kernels] pass {pass_number}, layer {layer}: {len(noted)} nodes, "
                f"{sum(node.n_samples for node in noted)} samples, "
                f"{sum(node.n_support for node in noted)} support vectors, at most "
                f"{max(node.n_iter for node in noted)} iterations",
                flush=True,
            )

    def _check_parameters(self):
        super()._check_parameters()
        self._check_number("n_passes", low=1, whole=True)
        self._check_choice("passes", ("support_vectors", "all"))
