"""All ways to run the parts give the same, in the bytes of the largest part."""

import tracemalloc

import numpy as np
import pytest

from replicas import strategy_of
from tf_largebatch.kernels import _engine
from tf_largebatch.kernels._engine import Problem, batches, groups_of, padded, solve_parts

pytestmark = pytest.mark.tensorflow


def solve(stacks):
    """Row sums, counts of rows, and which rows are padding, as a solver that sees everything."""
    import tensorflow as tf

    valid = tf.cast(stacks["valid"], tf.float64)
    return {
        "sums": tf.reduce_sum(stacks["K"], 2, keepdims=True) + stacks["y"],
        "count": tf.reduce_sum(valid, 1),
        "padding": tf.reduce_sum(tf.abs(stacks["K"]) * (1 - valid)[:, :, None], [1, 2]),
    }


def problems(sizes, *, by_function=False):
    random = np.random.default_rng(0)
    made = []
    for m in sizes:
        K, y = random.normal(size=(m, m)), random.normal(size=(m, 1))

        def make(K=K, y=y):
            def fill(out):
                out[...] = K

            return {"K": fill if by_function else K, "y": y}

        made.append(Problem(make, m))
    return made


SIZES = [70, 3, 0, 33, 200, 64, 65, 31]


@pytest.mark.parametrize("replicas", [None, 1, 2, 4])
@pytest.mark.parametrize("batch_bytes", [0, 10**6])
def test_every_way_gives_the_same_in_order(replicas, batch_bytes):
    made = problems(SIZES, by_function=replicas == 2)
    strategy = None if replicas is None else strategy_of(replicas)
    found = solve_parts(solve, made, strategy=strategy, batch_bytes=batch_bytes)
    assert len(found) == len(found.seconds) == len(SIZES) and (found.seconds >= 0).all()
    for problem, result in zip(problems(SIZES), found, strict=True):
        arrays = problem()
        np.testing.assert_allclose(
            result["sums"], arrays["K"].sum(1, keepdims=True) + arrays["y"], rtol=1e-12, atol=1e-12
        )
        assert result["count"] == problem.n_samples and result["padding"] == 0


def test_fewer_problems_than_replicas():
    assert len(solve_parts(solve, problems([5]), strategy=strategy_of(4))) == 1
    assert solve_parts(solve, [], strategy=strategy_of(2)) == []


def test_groups_share_the_work():
    groups = groups_of(problems([100, 50, 50, 50, 50, 100]), 2)
    assert groups == [[0, 1, 3], [5, 2, 4]]


@pytest.mark.parametrize("batch_bytes", [0, 2**20, 2**26])
def test_batches_are_few_shapes_within_the_largest_parts_bytes(batch_bytes):
    random = np.random.default_rng(1)
    made = [Problem(None, m) for m in random.integers(1, 3000, 100)]
    planned = batches(made, range(100), batch_bytes)
    assert sorted(i for batch in planned for i in batch.indices) == list(range(100))
    largest = padded(max(problem.n_samples for problem in made))
    for batch in planned:
        assert len(batch.indices) <= batch.slots
        assert max(made[i].n_samples for i in batch.indices) <= batch.n_padded
        assert batch.slots * batch.n_padded**2 * 8 <= max(8 * largest**2, batch_bytes)
    shapes = {(batch.slots, batch.n_padded) for batch in planned}
    assert len(shapes) <= 2 * (1 + np.log2(3000 / 32))
    assert len(planned) == 100 or batch_bytes


def test_memory_is_that_of_the_largest_part():
    """Not of all: 12 parts, one at a time, whose matrices are 12 times as much together."""
    m = 1024

    def make():
        return {"K": lambda out: out.fill(1.0), "y": np.ones((m, 1))}

    made = [Problem(make, m) for _ in range(12)]
    solve_parts(solve, made[:1], batch_bytes=0)
    tracemalloc.start()
    try:
        solve_parts(solve, made, batch_bytes=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 8 * m * m <= peak < 1.2 * 8 * m * m


def test_what_does_not_fit_is_refused_before_anything_is_made():
    def make():
        raise AssertionError("made")

    made = [Problem(make, 2048)]
    with pytest.raises(MemoryError, match=r"2048 samples.* needs 33,554,432 bytes; the limit"):
        solve_parts(solve, made, memory_limit_bytes=10**6)
    with pytest.raises(AssertionError, match="made"):
        solve_parts(solve, made, memory_limit_bytes=34 * 10**6)


def test_verbose_says_how_far_it_is(capsys):
    solve_parts(solve, problems([40, 40, 40]), verbose=1, batch_bytes=0)
    assert capsys.readouterr().out.splitlines() == [
        f"[kernels] {done}/3 problems solved" for done in (1, 2, 3)
    ]


def test_stacks_share_their_memory_with_tensorflow():
    [problem] = problems([64])
    made = _engine._aligned_zeros((1, 64, 64), np.float64)
    assert made.ctypes.data % 64 == 0 and made.shape == (1, 64, 64)
    stacks = _engine._stack([problem], batches([problem], [0])[0])
    assert set(stacks) == {"K", "y", "valid"} and stacks["K"].shape == (1, 64, 64)
