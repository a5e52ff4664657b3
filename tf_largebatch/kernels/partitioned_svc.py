"""SVMs of partitions that know nothing of each other: CP-, BKM-, FCFS- and CA-SVM."""

import time

import numpy as np
from sklearn.utils.validation import check_random_state

from tf_largebatch.kernels._engine import BATCH_BYTES
from tf_largebatch.kernels._local_data import read_parts
from tf_largebatch.kernels._svc import BaseKernelSVC
from tf_largebatch.kernels._tasks import solve_nodes
from tf_largebatch.kernels.ledger import Ledger
from tf_largebatch.kernels.partition import RandomPartition, make_partition


class PartitionedSVC(BaseKernelSVC):
    """Splits the samples, trains an SVM on each part, and lets the nearest part's SVM predict.

    With P even parts a Gram matrix has 1/P² of the entries and an SVM about 1/P of the iterations
    of the whole problem's, and training sends nothing (thesis, section 2.4, Algorithm 5). It fails
    where one boundary runs through all parts, as in `sklearn.datasets.make_classification`: each
    part then sees 1/P of the evidence for the same thing.

    Args:
        n_parts: Number of parts P; at most the number of samples.
        partition: `"kmeans"` (CP-SVM), `"balanced_kmeans"` (BKM-SVM), `"fcfs"` (FCFS-SVM),
            `"random"` (CA-SVM), `"kbalance"`, or an unfitted partitioner of `partition`, which
            keeps its own n_parts and random_state.
        combine: `"nearest"`: the SVM of the part whose centre is nearest; `"average"`: the mean of
            all parts' decisions.
        C, kernel, gamma, degree, coef0, class_weight: As of `sklearn.svm.SVC`. A precomputed kernel
            has no features to find centres in: only a random partition, with combine="average".
        multi_class: `"ovr"`: one class against the rest; `"ovo"`: each pair of classes.
        tol: Training of a part ends with f_low <= f_high + 2 tol.
        max_iter: Of each binary problem of each part, at most 10,000,000; -1 for that many. Ctrl-C
            ends a long fit.
        strategy: None: one device. A `tf.distribute.Strategy`: each replica trains a group of
            parts. It isn't pickled with the model.
        batch_bytes: Small parts are trained together, as many as fit in so many bytes. 0: one at a
            time, which gives each its own time in `fit_times_`.
        memory_limit_bytes: Of the Gram matrices in memory; None: what is available.
        verbose: Above 0: a line for each batch of parts, and now and then while one is trained for
            long.
        random_state: Of the partitioner: int, RandomState or None.

    Attributes:
        classes_: (n_classes,).
        partition_: The fitted partitioner.
        models_: A trained part each: `support`, `vectors`, `coef`, `intercept`.
        support_: Numbers of all support vectors, part after part; `n_support_`: (n_parts,) of each.
        part_n_iter_: (n_parts, k): SMO's iterations for each of the k binary problems; 0 where a
            part has one class only.
        n_iter_: The most that a part takes for all its binary problems: what P machines take.
        ledger_: `Ledger` of what P nodes with a part each would send.
        fit_times_: Seconds: `"partition"`, `"train"`, and `"parts"`, (n_parts,). What P machines
            would need is the partition and the largest of the parts.

    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(400, noise=0.2, random_state=0)
    >>> model = PartitionedSVC(4, partition="balanced_kmeans", random_state=0).fit(X, y)
    >>> model.partition_.sizes_, model.score(X, y)
    (array([100, 100, 100, 100]), 0.9375)
    """

    def __init__(
        self, n_parts=8, *, partition="kmeans", combine="nearest", C=1.0, kernel="rbf",
        gamma="scale", degree=3, coef0=0.0, multi_class="ovr", class_weight=None, tol=1e-3,
        max_iter=-1, strategy=None, batch_bytes=BATCH_BYTES, memory_limit_bytes=None, verbose=0,
        random_state=None,
    ):  # fmt: skip
        self.n_parts = n_parts
        self.partition = partition
        self.combine = combine
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
        """Trains on samples that lie on one host, which are sent to the parts (casvm1).

        Args:
            X: (n_samples, n_features), dense or CSR, float32 or float64; with a precomputed kernel
                (n_samples, n_samples). With float32 the Gram matrices are float32.
            y: (n_samples,) classes.

        Raises:
            ValueError: If a parameter or the data are not as described, or y has one class.
            MemoryError: If the largest part's Gram matrix would not fit.
        """
        X, codes = self._start_fit(X, y)
        self._check_precomputed(self.partition)
        self._set_gamma(X)
        self.ledger_ = Ledger()
        began = time.perf_counter()
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.partition_ = make_partition(
            self.partition, n_parts=self.n_parts, random_state=seed
        ).fit(X, codes)
        self.fit_times_ = {"partition": time.perf_counter() - began}
        labels = self.partition_.labels_
        row_sets = [np.flatnonzero(labels == p) for p in range(len(self.partition_.sizes_))]
        samples = self._samples(X, codes)
        for part, rows in enumerate(row_sets[1:], start=1):  # part 0 stays on the root
            self.ledger_.send(
                "distribute", "samples and labels", X[rows], y_words(codes[rows]), source=0,
                target=part,
            )  # fmt: skip
        nodes = self._train(samples, row_sets)
        self.models_ = [node.expansion(samples) for node in nodes]
        self._finish(nodes)
        return self

    def fit_parts(self, parts, *, classes=None, n_features=None):
        """Trains on samples that already lie in P parts (casvm2): nothing of them is sent.

        Args:
            parts: One for each part: (X, y), dense or CSR; or the path of an svmlight file. With a
                strategy over several workers each reads and uses the parts of its own replicas
                only, part p being replica p * n_replicas // P's, and others may be None.
            classes: All classes; None: the union of the parts' labels, which the workers tell each
                other.
            n_features: Columns of X; None: the largest of the parts', likewise.

        `partition` and `n_parts` aren't used. With `gamma="scale"` three sums of each part are
        told, too. Centres and support vectors are collected when training has ended.

        Raises:
            ValueError: As `fit`; or if the kernel is precomputed or class_weight is "balanced".
        """
        self._check_parameters()
        if self.kernel == "precomputed":
            raise ValueError(
                "fit_parts needs features. Received: kernel='precomputed'. Use fit with "
                "partition='random'."
            )
        if isinstance(self.class_weight, str):
            raise ValueError(
                "fit_parts knows no counts of classes over all parts. Received: class_weight="
                f"{self.class_weight!r}. Give a dict of classes and weights."
            )
        self.ledger_ = Ledger()
        began = time.perf_counter()
        local = read_parts(
            parts, classes=classes, n_features=n_features, gamma=self.gamma,
            strategy=self.strategy, ledger=self.ledger_,
        )  # fmt: skip
        self.classes_, self.gamma_ = local.classes, local.gamma
        self.n_features_in_ = local.n_features
        self._set_tasks(self.classes_)
        self.fit_times_ = {"partition": time.perf_counter() - began}
        samples = [self._samples(X, codes) for X, codes in zip(local.X, local.codes, strict=True)]
        row_sets = [np.arange(len(codes)) for codes in local.codes]
        nodes = self._train(samples, row_sets, groups=local.groups)
        self.partition_ = local.partition(self.ledger_)
        self.models_ = local.models(nodes, samples, self.ledger_)
        self._finish(nodes)
        return self

    def _train(self, samples, row_sets, **options):
        began = time.perf_counter()
        nodes = solve_nodes(
            samples, row_sets, tol=self.tol, max_iter=self.max_iter, strategy=self.strategy,
            ledger=self.ledger_, memory_limit_bytes=self.memory_limit_bytes, verbose=self.verbose,
            batch_bytes=self.batch_bytes, **options,
        )  # fmt: skip
        self.fit_times_["train"] = time.perf_counter() - began
        self.fit_times_["parts"] = np.array([node.seconds for node in nodes])
        return nodes

    def _finish(self, nodes):
        self.part_n_iter_ = np.array([node.n_iter for node in nodes])
        self.n_iter_ = int(self.part_n_iter_.sum(axis=1).max())
        self.n_support_ = np.array([len(model.support) for model in self.models_])
        self.support_ = np.concatenate([model.support for model in self.models_])
        for part, model in enumerate(self.models_[1:], start=1):
            self.ledger_.send(
                "collect", "models", model.support, model.coef, model.intercept, source=part,
                target=0,
            )  # fmt: skip
        if self.combine == "nearest":
            for part, center in enumerate(self.partition_.centers_[1:], start=1):
                self.ledger_.send("collect", "centres", center, source=part, target=0)
        self._warn_of_gaps(nodes)

    def _decide(self, X):
        kernel, n_tasks = self._kernel(), len(self._tasks.positive)
        if self.combine == "average":
            return sum(model.decide(X, kernel) for model in self.models_) / len(self.models_)
        decisions = np.empty((X.shape[0], n_tasks))
        part_of = self.partition_.predict(X)
        for part in np.unique(part_of):
            rows = np.flatnonzero(part_of == part)
            decisions[rows] = self.models_[part].decide(X[rows], kernel)
        return decisions

    def _check_parameters(self):
        super()._check_parameters()
        self._check_choice("combine", ("nearest", "average"))

    def _check_precomputed(self, partition):
        is_random = partition == "random" or isinstance(partition, RandomPartition)
        if self.kernel == "precomputed" and not (is_random and self.combine == "average"):
            raise ValueError(
                "With a precomputed kernel there are no features to find centres in: use "
                "partition='random' and combine='average'. Received: "
                f"partition={partition!r}, combine={self.combine!r}."
            )


def y_words(codes):
    """Labels as the parts receive them: float64, as the thesis's 2 words a label."""
    return np.asarray(codes, np.float64)
