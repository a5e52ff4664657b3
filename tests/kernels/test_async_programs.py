"""Asy-GCD's threads: lost updates are seen, the cache is an LRU, an error ends all."""

import collections
import functools
import importlib.util
import pathlib
import time
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from tf_largebatch.kernels import _async, _async_columns, _async_state
from tf_largebatch.kernels.box_qp import solve_box_qp

pytest.importorskip("numba")


def problem(n=200):
    random = np.random.default_rng(0)
    A = random.normal(size=(n, 2 * n))
    return A @ A.T / (2 * n), random.normal(size=n)


RACY = """

def _add_in_two_steps(array, i, amount):
    before = array[i]
    give_way()
    array[i] = before + amount


_PARTS = (*_PARTS, _add_in_two_steps)
"""


@functools.cache
def racy_programs(folder):
    """The same programs, but for one line: g is read and written in two steps, not in one."""
    text = pathlib.Path(_async.__file__).read_text(encoding="utf-8")
    line = "fetch_add(g, j, d * q[j])"
    assert text.count(line) == 1
    text = text.replace(line, "_add_in_two_steps(g, j, d * q[j])")
    before, _, after = text.partition("@functools.cache\ndef compiled()")
    path = folder / "racy_programs.py"
    path.write_text(f"{before}{RACY}\n\n@functools.cache\ndef compiled(){after}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("racy_programs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compiled()


def lost(**arguments):
    """How far the gradient that the updates kept up is from Qx + p."""
    Q, p = problem()
    with pytest.warns(ConvergenceWarning):
        result = solve_box_qp(
            Q, p, -1.0, 1.0, tol=1e-300, max_updates=400, n_threads=2, sync="atomic",
            max_staleness=None, hold_back=0, **arguments,
        )  # fmt: skip
    return result.gradient_error


def test_racy_writes_lose_updates_and_atomic_ones_do_not(monkeypatch, tmp_path):
    assert max(lost() for _ in range(5)) < 1e-10
    programs = racy_programs(tmp_path)
    monkeypatch.setattr(_async, "compiled", lambda: programs)
    # On a busy machine one thread may be done before the other has begun: not in all of many runs.
    assert any(lost() > 1e-5 for _ in range(100))


def test_the_cache_forgets_what_was_used_longest_ago():
    random = np.random.default_rng(0)
    X = random.normal(size=(30, 3))
    source = _async_state.kernel_source(
        X, kernel="linear", gamma=0, degree=0, coef0=0, constant=0.0
    )
    fixed, each = _async_state.column_bytes(30, 12)
    cache = _async_state.make_cache(source, 30, 12, 3, fixed + 5 * each + each - 1)
    assert _async_state.cache_nbytes(cache) == fixed + 5 * each
    kept, misses = collections.OrderedDict(), 0
    for i in random.integers(0, 9, 3000):
        i = int(i)
        misses += i not in kept
        kept[i] = None
        kept.move_to_end(i)
        if len(kept) > 5:
            kept.popitem(last=False)
        # The functions run in Python, too.
        np.testing.assert_allclose(
            _async_columns.column(source, cache, i, 10, 22), X[10:22] @ X[i], atol=1e-14
        )
        assert set(np.flatnonzero(cache.slot_of >= 0)) == set(kept)
    assert cache.counts.tolist() == [3000 - misses, misses]


def test_an_error_in_one_thread_ends_the_others(monkeypatch):
    def program(source, cache, iterate, shared, t, *_):
        if t == 1:
            raise RuntimeError("thread 1 broke")
        while not shared.stop[0]:
            time.sleep(0.001)

    programs = SimpleNamespace(log=program, gradient=_async.compiled().gradient)
    monkeypatch.setattr(_async, "compiled", lambda: programs)
    with pytest.raises(RuntimeError, match="thread 1 broke"):
        solve_box_qp(*problem(20), -1.0, 1.0, n_threads=3)


def test_the_programs_hold_no_lock_of_the_interpreter():
    for program in vars(_async.compiled()).values():
        assert program.targetoptions["nogil"] and program.targetoptions["nopython"]


def test_the_log_wraps_around_many_times():
    """More updates in one round than the log has slots."""
    Q, p = problem(60)
    with pytest.warns(ConvergenceWarning):
        result = solve_box_qp(
            Q, p, -9.0, 9.0, tol=1e-300, max_updates=20 * _async.RING, n_threads=3,
            selection="random", max_staleness=None, updates_per_round=10**6,
        )  # fmt: skip
    assert result.gradient_error < 1e-10


def test_a_missing_numba_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    with pytest.raises(ImportError, match=r"the extra \[async\]"):
        _async.compiled.__wrapped__()


def test_the_exponential_is_right_to_the_last_digits():
    import numba

    @numba.njit
    def exponentials(x):
        out = np.empty_like(x)
        for j in range(x.size):
            out[j] = _async_columns._exponential(x[j])
        return out

    _async.compiled()
    random = np.random.default_rng(0)
    x = -np.concatenate(
        [random.uniform(0, 20, 5000), 10 ** random.uniform(-300, 2.85, 5000), [0.0, 707.99]]
    )
    ours, exact = exponentials(x), np.exp(x)
    assert (np.abs(ours - exact) <= 2 * np.spacing(exact)).all()
    assert (exponentials(np.array([-708.1, -745.0, -1e300])) == 0).all()


def test_no_round_believes_what_the_last_one_said(monkeypatch):
    """A thread that was quiet may have work again: the gradient is computed anew in between."""
    seen = []

    def program(source, cache, iterate, shared, t, *_):
        seen.append((shared.quiet[t * _async.PAD], shared.wants[t * _async.PAD]))
        shared.quiet[t * _async.PAD] = shared.tail[0] + 1
        shared.wants[t * _async.PAD] = 0

    programs = SimpleNamespace(log=program, gradient=_async.compiled().gradient)
    monkeypatch.setattr(_async, "compiled", lambda: programs)
    with pytest.warns(ConvergenceWarning):
        solve_box_qp(*problem(20), -1.0, 1.0, n_threads=2)
    assert len(seen) > 4 and set(seen) == {(0, np.inf)}
