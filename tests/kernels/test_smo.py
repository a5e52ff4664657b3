"""SMO takes the oracle's steps, and reaches what scikit-learn's SVC reaches."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.svm import SVC

from kernels.oracles_smo import objective, rbf
from kernels.oracles_smo import smo as oracle
from tf_largebatch.kernels import _smo
from tf_largebatch.kernels._functions import gram

pytestmark = pytest.mark.tensorflow


def problem(m=120, seed=0, noise=0.6):
    random = np.random.default_rng(seed)
    X = random.normal(size=(m, 3))
    y = np.where(X[:, 0] * X[:, 1] + noise * random.normal(size=m) > 0, 1.0, -1.0)
    return rbf(X, X, 0.5), y


def to_the_end(stacks, **options):
    """Calls until all have ended, as the engine does."""
    found = _smo.smo(stacks, **options)
    while found["_going"].numpy().any():
        found = _smo.smo(stacks | found, **options)
    return {name: value.numpy() for name, value in found.items()}


def solve(K, y, C=1.0, tol=1e-3, max_iter=-1, alpha=None):
    """One problem, as a stack of one."""
    stacks = {"K": K[None], "y": y[None, :, None], "C": np.broadcast_to(C, y.shape)[None, :, None]}
    if alpha is not None:
        stacks["alpha"] = alpha[None, :, None]
    import tensorflow as tf

    found = to_the_end({n: tf.constant(a) for n, a in stacks.items()}, tol=tol, max_iter=max_iter)
    return {"alpha": found.pop("alpha")[0, :, 0]} | {n: v[0, 0] for n, v in found.items()}


RUNS = {
    "plain": {"PLAIN_TURNS": 10**6},
    "XLA takes over": {"PLAIN_TURNS": 25},
    "XLA at once": {"COMPILED_ROWS": 1},
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("seed", [0, 1])
def test_takes_the_oracles_steps(seed, run, monkeypatch):
    """After each of its steps the same multipliers, so the same pairs."""
    for name, value in RUNS[run].items():
        monkeypatch.setattr(_smo, name, value)
    K, y = problem(seed=seed)
    C = np.where(y > 0, 1.0, 0.5)
    *_, pairs = oracle(K, y, C)
    assert len(pairs) > 60
    for steps in [*range(40), len(pairs), len(pairs) + 1]:
        alpha, b, _, chosen = oracle(K, y, C, max_iter=steps)
        found = solve(K, y, C, max_iter=steps)
        assert found["n_iter"] == len(chosen)
        np.testing.assert_allclose(found["alpha"], alpha, atol=1e-12, err_msg=f"step {steps}")
        assert found["b"] == pytest.approx(b, abs=1e-11)
    assert found["gap"] <= 2e-3
    assert found["objective"] == pytest.approx(objective(K, y, alpha), rel=1e-12)


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
def test_equals_scikit_learns_svc(C):
    K, y = problem()
    found = solve(K, y, C, tol=1e-6)
    svc = SVC(C=C, kernel="precomputed", tol=1e-6).fit(K, y)
    alpha = np.zeros(len(y))
    alpha[svc.support_] = np.abs(svc.dual_coef_[0])
    assert found["objective"] == pytest.approx(objective(K, y, alpha), rel=1e-6)
    decisions = K @ (found["alpha"] * y) - found["b"]
    np.testing.assert_allclose(decisions, svc.decision_function(K), atol=1e-3)
    assert (found["alpha"] * y).sum() == pytest.approx(0, abs=1e-11 * C)
    assert found["alpha"].min() >= 0 and found["alpha"].max() <= C


def test_a_stack_is_its_problems_each_alone():
    """Of different sizes and lengths, two signs a matrix; those that have ended stand still."""
    import tensorflow as tf

    cases = [problem(m, seed) for seed, m in enumerate((90, 40, 64))]
    n = 96
    K, y, C = np.zeros((4, n, n)), np.zeros((4, n, 2)), np.zeros((4, n, 2))
    for slot, (matrix, signs) in enumerate(cases):
        m = len(signs)
        K[slot, :m, :m] = matrix
        y[slot, :m] = np.stack([signs, np.where(np.arange(m) % 3, 1, -1)], 1)
        C[slot, :m] = 1
    stacks = {"K": tf.constant(K), "y": tf.constant(y), "C": tf.constant(C)}
    found = to_the_end(stacks, tol=1e-3, max_iter=-1)
    assert len(set(found["n_iter"].ravel())) > 4
    for slot, (matrix, signs) in enumerate(cases):
        m = len(signs)
        for t in (0, 1):
            alone = solve(matrix, y[slot, :m, t])
            np.testing.assert_allclose(found["alpha"][slot, :m, t], alone["alpha"], atol=1e-12)
            assert not found["alpha"][slot, m:].any()
            for name in ("b", "n_iter", "objective"):
                assert found[name][slot, t] == pytest.approx(alone[name], abs=1e-10)
    assert not found["n_iter"][3].any() and not found["b"][3].any()  # an empty slot


def test_carried_multipliers_climb_on():
    K, y = problem()
    half = solve(K, y, max_iter=40)
    whole = solve(K, y, alpha=half["alpha"])
    straight = solve(K, y)
    assert whole["objective"] > half["objective"]
    assert whole["n_iter"] == straight["n_iter"] - 40
    np.testing.assert_allclose(whole["alpha"], straight["alpha"], atol=1e-10)
    assert solve(K, y, alpha=straight["alpha"])["n_iter"] == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_class_is_a_constant(sign):
    K, _ = problem()
    found = solve(K, np.full(len(K), sign))
    assert not found["alpha"].any() and found["b"] == -sign and found["gap"] == 0


def test_equal_rows_and_indefinite_kernels_end():
    """eta isn't above 0 for a pair of equal rows of two classes."""
    random = np.random.default_rng(0)
    X = np.repeat(random.normal(size=(20, 2)), 2, axis=0)
    y = np.tile([1.0, -1.0], 20)
    found = solve(rbf(X, X, 1.0), y, C=3.0)
    np.testing.assert_allclose(found["alpha"], 3.0)
    X, y = random.normal(size=(60, 2)), np.sign(random.normal(size=60))
    found = solve(np.tanh(2 * X @ X.T - 1), y, max_iter=5000)
    assert np.isfinite(found["alpha"]).all() and found["n_iter"] > 0


def test_float32_stays_float32():
    K, y = problem()
    found = solve(K.astype(np.float32), y.astype(np.float32), np.float32(1))
    exact = solve(K, y)
    assert found["alpha"].dtype == np.float32
    assert found["objective"] == pytest.approx(exact["objective"], rel=1e-4)


def gap_of(K, y, C, alpha):
    """f_low - f_high by float64 sums."""
    alpha = alpha.astype(float)
    f = (alpha * y) @ K.astype(float) - y
    up = np.where(y > 0, alpha < C, alpha > 0)
    down = np.where(y > 0, alpha > 0, alpha < C)
    return f[down].max() - f[up].min()


@pytest.mark.parametrize("shift, C", [(1000, 1.0), (5, 1e3)], ids=["ends", "goes on and on"])
def test_float32s_gap_is_the_true_one(shift, C):
    """Values of K of 3e6, of which one rounding is 0.2; and sums of many roundings."""
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 3))
    y = np.where(X[:, 0] + 0.3 * random.normal(size=300) > 0, 1, -1).astype(np.float32)
    X = (X + shift).astype(np.float32)
    K = X @ X.T
    found = solve(K, y, np.float32(C), max_iter=7000)
    true = gap_of(K, y, C, found["alpha"])
    assert found["gap"] == pytest.approx(true, rel=1e-3, abs=1e-5)
    assert abs((found["alpha"].astype(float) * y).sum()) < 1e-5 * C
    if C == 1:
        assert true <= 2e-3 * (1 + 1e-3)


def test_a_multiplier_too_small_for_its_partner_does_not_end_a_problem():
    """float32: a pair's step may be lost in the larger of the two, while other pairs can go on."""
    X, codes = make_classification(300, 10, class_sep=2, random_state=0)
    y = 2.0 * codes - 1
    exact, single = (
        solve(
            gram(X.astype(t), kernel="linear"),
            y.astype(t),
            C=np.dtype(t).type(1000),
            max_iter=40_000,
        )
        for t in ("f8", "f4")
    )
    assert single["n_iter"] == exact["n_iter"] == 40_000  # else it ended after 16,000
    assert single["objective"] == pytest.approx(exact["objective"], rel=0.02)


def test_many_sizes_without_a_warning_of_retracing():
    import logging

    import tensorflow as tf

    said, logger = [], tf.get_logger()
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    try:
        for m in range(20, 140, 15):
            K, y = problem(m)
            solve(K, y)
    finally:
        logger.removeHandler(handler)
    assert not [line for line in said if "retracing" in line]


def test_max_iter_may_be_any_number():
    K, y = problem()
    without = solve(K, y)
    for many in (2**31 - 1, 2**31, 10**15):
        assert solve(K, y, max_iter=many)["n_iter"] == without["n_iter"] > 0
    assert solve(K, y, max_iter=0)["n_iter"] == 0


def test_f_by_blocks_of_rows(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(_smo, "WIDE_ROWS", 50)
    K, y = problem()
    alpha = np.random.default_rng(0).random(120)
    for dtype in (np.float32, np.float64):
        arrays = (tf.constant(a.astype(dtype)) for a in (K, y[None], (alpha * y)[None]))
        arrays = (a[tf.newaxis] for a in arrays)
        np.testing.assert_allclose(_smo.f_of(*arrays)[0, 0], (alpha * y) @ K - y, rtol=1e-5)
