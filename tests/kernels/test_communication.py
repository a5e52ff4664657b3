"""What is sent: CA-SVM's training holds no collective; the ledgers against Table 2.6."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_moons

from replicas import strategy_of
from tf_largebatch.kernels import (
    CascadeSVC,
    DistributedSVC,
    PartitionedSVC,
    RandomPartition,
    _engine,
)
from tf_largebatch.kernels.theory import communication_words

pytestmark = pytest.mark.tensorflow


def reachable(function):
    """All operations of a traced function and of the functions it calls: (op, device)."""
    graph = function.graph.as_graph_def(add_shapes=False)
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return [(node.op, node.device) for node in nodes]


def is_exchange(op):
    """Whether it adds or moves values between devices: collectives, sends, ReductionToOneDevice."""
    moves = ("Collective", "Nccl", "XlaAllReduce", "_Send", "_Recv", "Send", "Recv")
    return op.startswith(moves) or op in ("AddN", "AccumulateNV2")


class Traced:
    """A function that keeps what was traced of it, and with what."""

    def __init__(self, function):
        self.function, self.graphs, self.values = function, [], None

    def get_concrete_function(self, values):
        self.values = values
        self.graphs.append(self.function.get_concrete_function(values))
        return self.graphs[-1]


def test_training_of_parts_holds_no_collective(monkeypatch):
    """The graphs that a fit runs for the parts of two replicas, and a control."""
    import tensorflow as tf

    seen, real = [], _engine.on_replicas

    def on_replicas(solve, strategy):
        seen.append((solve, Traced(real(solve, strategy))))
        return seen[-1][1]

    monkeypatch.setattr(_engine, "on_replicas", on_replicas)
    X, y = make_moons(80, random_state=0)
    strategy = strategy_of(2)
    PartitionedSVC(4, partition="random", strategy=strategy, random_state=0).fit(X, y)
    ((solve, training),) = seen
    assert training.graphs
    for graph in training.graphs:
        ops = reachable(graph)
        assert sum("While" in op for op, _ in ops) >= 2  # SMO is in it, for both replicas
        assert {device[-5:] for op, device in ops if "Call" in op and device} == {"CPU:0", "CPU:1"}
        assert [op for op, _ in ops if is_exchange(op)] == []

    @tf.function
    def with_a_sum(stacks):
        found = strategy.run(solve, args=(stacks,))
        return strategy.reduce("SUM", found["b"], axis=None)

    control = reachable(with_a_sum.get_concrete_function(training.values))
    assert [op for op, _ in control if is_exchange(op)] == ["AddN"]


M, N, P = 480, 13, 8


@pytest.fixture(scope="module")
def samples():
    """Dense rows as CSR, as Table 2.6 counts them: 3 words a value, a pointer, a label of 2."""
    random = np.random.default_rng(0)
    X = random.normal(size=(M, N))
    y = (X[:, 0] * X[:, 1] + 0.3 * random.normal(size=M) > 0).astype(int)
    return sparse.csr_array(X), y


# Words of a sample with its label and row pointer; each message has one pointer more.
SAMPLE = 3 * N + 3
# The root keeps its own part, which the thesis's terms include.
SENT = M * (P - 1) / P


def test_ca_svm_in_place_sends_nothing(samples):
    X, y = samples
    found = PartitionedSVC().fit_parts([(X[p::P], y[p::P]) for p in range(P)])
    assert communication_words("ca_svm", m=M, n=N, P=P) == 0
    assert found.ledger_.words("distribute") == found.ledger_.words("train") == 0


@pytest.mark.parametrize("partition", [RandomPartition(P, random_state=0), "fcfs"])
def test_casvm1_and_fcfs_send_the_samples_once(samples, partition):
    """The first two terms of Cascade's formula, 3mn + 3m, less the root's share: exact."""
    X, y = samples
    found = PartitionedSVC(P, partition=partition, random_state=0).fit(X, y)
    assert found.ledger_.words("distribute") == SAMPLE * SENT + P - 1
    assert found.ledger_.words("train") == 0
    once = communication_words("cascade", m=M, n=N, P=P, s=0)
    assert once == SAMPLE * M


def test_cp_svm_sends_half_of_the_formula(samples):
    """K-means runs where the samples are: no scattering before it, and no sums of its centres."""
    X, y = samples
    found = PartitionedSVC(P, random_state=0).fit(X, y)
    sent = M - found.partition_.sizes_[0]
    assert found.ledger_.words("distribute") == SAMPLE * sent + P - 1
    assert found.ledger_.words() < communication_words("cp_svm", m=M, n=N, P=P, k=1)


def test_cascade_sends_the_formulas_first_terms_and_each_layers_support_vectors(samples):
    X, y = samples
    found = CascadeSVC(P, random_state=0).fit(X, y)
    assert found.ledger_.words("distribute") == SAMPLE * SENT + P - 1
    passed = [n.n_support for layer in found.layers_[:-1] for n in layer[1::2]]
    # The formula's 3sn leaves labels, pointers and multipliers out: 5 words a vector.
    assert found.ledger_.words("train") == (SAMPLE + 2) * sum(passed) + len(passed)


def test_dc_svm_sends_half_of_the_samples_a_layer(samples):
    """The formula counts what goes down once; through log2 P layers it is log2 P / 2 times that."""
    X, y = samples
    found = CascadeSVC(P, passes="all", random_state=0).fit(X, y)  # even parts: exact
    assert found.ledger_.words("train") == (SAMPLE + 2) * M * 3 / 2 + 7
    without_kmeans = communication_words("dc_svm", m=M, n=N, P=P, k=0)
    assert without_kmeans == 2 * SAMPLE * M + M + (SAMPLE + 2) * M


def test_dis_smo_sends_two_rows_an_iteration(samples):
    """Dense rows in doubles; the formula's 26 IP is 2n words a node where n = 13."""
    X, y = samples
    found = DistributedSVC(P).fit(X, y)
    turns = int(found.n_iter_[0]) + 1
    assert found.ledger_.words("distribute") == (SAMPLE * SENT) + P - 1
    rows = found.ledger_.words("train", "rows of the pair")
    assert rows == turns * (P - 1) * 2 * (N + 3) * 2
    assert found.ledger_.words("train", "extremes") == turns * P * (P - 1) * 4  # (2.9)'s 4P²
    assert rows > communication_words("dis_smo", m=0, n=N, P=P - 1, n_iter=turns)
