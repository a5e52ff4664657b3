"""The scaling models of the thesis: words sent, isoefficiency, nodes in use, the time of a part.

Symbols of Table 2.2: m samples, n features a sample, P nodes, s support vectors, I iterations of
SMO, k iterations of K-means, W the problem in flops, t_s and t_w the times of a message's start and
of a word, in flops.

**How Table 2.6 counts words.** A word is 4 bytes; all real numbers are doubles, and rows are sent
as CSR. That is found by solving for the printed coefficients, and explains all but Dis-SMO's:

| what | words |
|---|---|
| a feature's value, a label, a multiplier, a centre's coordinate | 2 |
| a column index, a row pointer, a part's number | 1 |
| a sample of n features | 3n |
| its label and row pointer | 3 |

Then all samples with labels are `3mn + 3m` (Cascade's first term); CP-SVM sends them twice, to the
root and back to their clusters, with a part's number each: `6mn + 7m`; K-means' centres are `2kPn`;
support vectors are `3sn`; all samples going down DC-SVM's layers, with label, pointer and
multiplier, are `3mn + 5m`. What goes down is counted once, whatever the number of layers, and
support vectors without their multipliers.

Dis-SMO's 26 words an iteration and node are the thesis's, as printed. With its n = 13 they are also
2n, two rows in single words, as in Equation 2.9: the table can't tell which. (With its 335,186
operations of 101 bytes, Table 2.7 has 37 words an iteration and node.)
"""

import math
from typing import NamedTuple

WORD_BYTES = 4
FLOAT_WORDS = 2  # a double
INDEX_WORDS = 1
# What Dis-SMO exchanges an iteration and node, as printed.
DIS_SMO_WORDS = 26


class ScalingRow(NamedTuple):
    """A row of Table 2.4: what W must grow as, so that efficiency stays."""

    method: str
    communication: str
    computation: str


# Table 2.4.
ISOEFFICIENCY = (
    ScalingRow("1D Mat-Vec-Mul", "Ω(P²)", "Θ(P²)"),
    ScalingRow("2D Mat-Vec-Mul", "Ω(P)", "Θ(P)"),
    ScalingRow("Distributed-SMO", "Ω(P³)", "Ω(P²)"),
    ScalingRow("Cascade", "Ω(P³)", "O(Σ_k n L_k V_{k-1} 2^k)"),
    ScalingRow("DC-SVM", "Ω(P³)", "O(Σ_k n L_k m 2^k)"),
)
COMMUNICATION = ("dis_smo", "cascade", "dc_svm", "dc_filter", "cp_svm", "ca_svm")


def communication_words(method, *, m, n, P, s=0, k=0, n_iter=0):
    """Words that a method sends in training, by Table 2.6.

    Args:
        method: One of `COMMUNICATION`.
        m, n, P: Samples, features a sample (nonzeros, where X is sparse), nodes.
        s: Support vectors; for Cascade and DC-Filter.
        k: Iterations of K-means; for DC-SVM, DC-Filter and CP-SVM.
        n_iter: I, iterations of SMO; for Dis-SMO.

    Returns:
        Words of `WORD_BYTES`, a number.

    Raises:
        ValueError: If the table has no such method.

    The text's "about 8.4 MB" for Cascade, which are MiB:

    >>> words = communication_words("cascade", m=48000, n=13, P=8, s=4474)
    >>> round(words * WORD_BYTES / 2**20, 2)
    8.36
    """
    sample = n * (FLOAT_WORDS + INDEX_WORDS)
    label_and_pointer = FLOAT_WORDS + INDEX_WORDS
    scattered = m * (sample + label_and_pointer)  # 3mn + 3m
    k_means = k * P * n * FLOAT_WORDS
    clustered = 2 * scattered + m * INDEX_WORDS + k_means  # 6mn + 7m + 2kPn
    words = {
        "dis_smo": DIS_SMO_WORDS * n_iter * P + 2 * P * m + 4 * m * n,
        "cascade": scattered + s * sample,
        "dc_svm": clustered + m * (sample + label_and_pointer + FLOAT_WORDS),
        "dc_filter": clustered + s * sample,
        "cp_svm": clustered,
        "ca_svm": 0,
    }
    if method not in words:
        raise ValueError(f"method must be one of {COMMUNICATION}. Received: method={method!r}.")
    return words[method]


def problem_size(overhead, efficiency):
    """The W that keeps `efficiency` (in (0, 1)) under an overhead T_o in flops: Equation 2.8.

    >>> problem_size(overhead=1e6, efficiency=0.8)
    4000000.0
    """
    if not 0 < efficiency < 1:
        raise ValueError(f"efficiency must lie in (0, 1). Received: efficiency={efficiency}.")
    return overhead / (1 / efficiency - 1)


def dis_smo_time(m, n, P, *, t_s, t_w):
    """Time of one iteration of distributed SMO on P nodes, in flops: Equation 2.9.

    >>> dis_smo_time(48000, 13, 1, t_s=0, t_w=0) - 2 * 48000 * 13  # what one node has to do more
    192015.0
    """
    log_P = math.log2(P)
    communication = 14 * log_P * t_s + (2 * n * log_P + 4 * P**2) * t_w
    return communication + (2 * m * n + 4 * m) / P + 2 * P + n


def dis_smo_overhead(m, n, P, *, t_s, t_w):
    """T_o = P T_p - W of one iteration of distributed SMO, in flops, W = 2mn: Equation 2.10.

    Its 4P³ t_w is what makes Table 2.4's W = Ω(P³).

    >>> round(dis_smo_overhead(10**5, 10, 2048, t_s=0, t_w=1)
    ...       / dis_smo_overhead(10**5, 10, 1024, t_s=0, t_w=1), 2)
    7.99
    """
    log_P = math.log2(P)
    communication = 14 * P * log_P * t_s + (2 * n * P * log_P + 4 * P**3) * t_w
    return communication + 4 * m + 2 * P**2 + n * P


def cascade_communication(n, V):
    """The sum in Cascade's isoefficiency function of communication: Equation 2.11, without its Θ.

    With all V_k = m it is DC-SVM's.

    Args:
        n: Features a sample.
        V: V_1 ... V_{1 + log2 P}: the samples that leave each layer, all its nodes together, as the
            thesis numbers them: V_1 = m.

    >>> cascade_communication(13, [48000, 5532, 5050, 4699])  # Table 2.5's numbers, 8 nodes
    1113600
    """
    log_P = len(V) - 1
    layers = sum(n * 2**k * V[k - 1] for k in range(2, log_P + 1))
    return layers + 4**log_P * V[-1]


def cascade_computation(n, V, L, *, m, n_iter):
    """The sum in Cascade's isoefficiency function of computation: Equation 2.12, without its Θ.

    Args:
        n: Features a sample.
        V: V_1 ... V_{1 + log2 P}, as above.
        L: L_1 ... L_{1 + log2 P}: iterations of the layer's slowest node.
        m, n_iter: Samples, and I, iterations of SMO on all of them.

    >>> cascade_computation(1, [8, 4], [10, 6], m=8, n_iter=5)  # 6 * 8 * 4 - 2 * 5 * 8
    112
    """
    return n * (sum(L[k - 1] * V[k - 2] * 2**k for k in range(2, len(V) + 1)) - 2 * n_iter * m)


def mean_nodes(layer_times, layer_nodes):
    """Nodes in use, the mean over the time of a layered run: Equation 2.13.

    >>> round(mean_nodes([5.49, 1.58, 3.34, 9.69], [8, 4, 2, 1]), 1)  # Table 2.5
    3.3
    """
    weighted = sum(time * nodes for time, nodes in zip(layer_times, layer_nodes, strict=True))
    return weighted / sum(layer_times)


def part_time(serial_time, P, *, exponent=3):
    """Time of one of P even parts, t(n; P) = t(n; 1) / P³: thesis, section 3.7.

    Args:
        serial_time: t(n; 1), of the exact solve of all n samples.
        P: Number of parts; each has n / P samples and a node of its own.
        exponent: Of the solve's time in n: 3 for KRR's Cholesky in theory. SMO's time, iterations
            that grow as n by the time of one, has about 2 (section 2.5).

    >>> part_time(512.0, 8), part_time(512.0, 8, exponent=2)
    (1.0, 8.0)
    """
    return serial_time / P**exponent


def efficiency(serial_time, parallel_time, P):
    """t(n; 1) / (P t(n; P)): sections 2.5 and 3.7.

    Above 1 where all parts together need less work than the whole: P² by `part_time`'s law with
    exponent 3. The thesis says what to make of it: one node that solves the parts in turn is then
    the serial baseline, and against that it is 1.

    >>> efficiency(512.0, part_time(512.0, 8), 8)
    64.0
    """
    return serial_time / (P * parallel_time)
