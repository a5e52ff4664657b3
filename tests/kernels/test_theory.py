"""The thesis's printed figures from its formulas."""

import math

import pytest

from tf_largebatch.kernels import theory

# Table 2.6's subset of ijcnn on 8 nodes.
IJCNN = {"m": 48000, "n": 13, "P": 8, "s": 4474, "k": 7, "n_iter": 30297}
# As printed, in its order: the formula, and the prediction in MB, which are MiB.
TABLE_2_6 = {
    "dis_smo": (lambda m, n, P, s, k, n_iter: 26 * n_iter * P + 2 * P * m + 4 * m * n, 36, 36.49),
    "cascade": (lambda m, n, P, s, k, n_iter: 3 * m * n + 3 * m + 3 * s * n, 8.4, 8.36),
    "dc_svm": (lambda m, n, P, s, k, n_iter: 9 * m * n + 12 * m + 2 * k * P * n, 24, 23.63),
    "dc_filter": (
        lambda m, n, P, s, k, n_iter: 6 * m * n + 7 * m + 3 * s * n + 2 * k * P * n, 16.2, 16.24,
    ),
    "cp_svm": (lambda m, n, P, s, k, n_iter: 6 * m * n + 7 * m + 2 * k * P * n, 15.6, 15.57),
    "ca_svm": (lambda m, n, P, s, k, n_iter: 0, 0, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("method", theory.COMMUNICATION)
def test_table_2_6(method):
    formula, printed, exact = TABLE_2_6[method]
    words = theory.communication_words(method, **IJCNN)
    assert words == formula(**IJCNN)
    mebibytes = words * theory.WORD_BYTES / 2**20
    assert round(mebibytes, 2) == exact
    digits = 0 if isinstance(printed, int) else 1
    assert round(mebibytes, digits) == printed


def test_table_2_6_holds_for_other_sizes():
    other = {"m": 999, "n": 7, "P": 5, "s": 101, "k": 3, "n_iter": 1234}
    for method, (formula, _, _) in TABLE_2_6.items():
        assert theory.communication_words(method, **other) == formula(**other)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of .*'dis_smo'"):
        theory.communication_words("smo", m=1, n=1, P=1)


def test_table_2_5s_mean():
    nodes = theory.mean_nodes([5.49, 1.58, 3.34, 9.69], [8, 4, 2, 1])
    assert round(nodes, 1) == 3.3
    assert theory.mean_nodes([1, 1], [8, 2]) == 5


@pytest.mark.parametrize("P", [1, 2, 96, 1536])
def test_overhead_is_what_time_leaves(P):
    """Equation 2.10 from 2.9: T_o = P T_p - W."""
    m, n, costs = 128_000, 2000, {"t_s": 3000.0, "t_w": 4.0}
    overhead = P * theory.dis_smo_time(m, n, P, **costs) - 2 * m * n
    assert theory.dis_smo_overhead(m, n, P, **costs) == pytest.approx(overhead, rel=1e-9)


def growth(size):
    """The power of P that a function goes as, for large P."""
    return math.log2(size(2**21) / size(2**20))


def test_table_2_4s_powers_of_dis_smo():
    """4P³ words give Ω(P³), the computation's 2P² gives Ω(P²)."""

    def needed(t_w):
        return lambda P: theory.problem_size(
            theory.dis_smo_overhead(1000, 10, P, t_s=0, t_w=t_w), efficiency=0.5
        )

    assert growth(needed(1)) == pytest.approx(3, abs=1e-3)
    assert growth(needed(0)) == pytest.approx(2, abs=1e-3)
    row = next(r for r in theory.ISOEFFICIENCY if r.method == "Distributed-SMO")
    assert row == ("Distributed-SMO", "Ω(P³)", "Ω(P²)")


def test_cascades_communication_grows_as_the_cube():
    """With as many support vectors as nodes, the fewest that keep the nodes busy."""
    size = [theory.cascade_communication(1, [2**p] * (p + 1)) for p in (20, 21)]
    assert math.log2(size[1] / size[0]) == pytest.approx(3, abs=1e-3)


def test_problem_size_keeps_the_efficiency():
    for wanted in (0.1, 0.5, 0.9):
        W = theory.problem_size(1234.5, wanted)
        assert math.isclose(W / (W + 1234.5), wanted)
    with pytest.raises(ValueError, match=r"efficiency must lie in \(0, 1\)"):
        theory.problem_size(1.0, 1.0)


def test_section_3_7():
    """t(n; p) = t(n; 1) / p³, E = p²."""
    assert theory.part_time(64.0, 4) == 1.0
    assert theory.efficiency(64.0, theory.part_time(64.0, 4), 4) == 16.0


def test_section_2_5():
    """E of CA-SVM is P, iterations and their time both falling as 1 / P."""
    assert theory.efficiency(64.0, theory.part_time(64.0, 4, exponent=2), 4) == 4.0
