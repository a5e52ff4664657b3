"""Sharded updates equal the oracle on all devices, send and hold what can be counted by hand."""

import importlib.util

import numpy as np
import pytest

import oracles
from benchmarks import _sharded_job, sharded_update

# Elements: 2048 + 960 + 2048 + 32,768 + 64 + 3, of which two devices can't share the last.
SHAPES = {
    "query/kernel": (32, 8, 8),
    "odd/kernel": (15, 64),
    "output/kernel": (64, 32),
    "large/kernel": (256, 128),
    "output/bias": (64,),
    "head/bias": (3,),
}
ELEMENTS = 37891
CUT = 37888


@pytest.fixture(scope="module", params=["LAMB", "LARS"])
def found(request):
    """(optimizer's name, what a process with two devices finds, of one round)."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs JAX")
    return request.param, sharded_update.in_process("jax", request.param, 2, SHAPES, 1)


def test_all_programs_make_the_oracles_update(found):
    name, programs = found
    assert programs.keys() == {"replicated", "shardings", "reduce_scatter"}
    for one in programs.values():
        assert 0 < one["error"] < 1e-3
        assert len(one["seconds"]) == 1 and one["seconds"][0] > 0
    assert sharded_update.wrong(name, 2, SHAPES, programs) == []


def test_bytes_and_collectives_are_those_counted_by_hand(found):
    _, programs = found
    # On two devices an all-reduce of n bytes sends n, a scatter and a gather half of it each.
    # For the norms a number for each of four kernels, or two: each device may know all of |w|.
    scalars = 4 * 4
    assert programs["replicated"]["sent"] == 4 * ELEMENTS
    assert programs["replicated"]["collectives"] == {"all-reduce": 1}
    beyond = programs["reduce_scatter"]["sent"] - 4 * ELEMENTS
    assert beyond in (scalars, 2 * scalars)
    kinds = programs["reduce_scatter"]["collectives"]
    assert kinds.keys() == {"all-gather", "all-reduce", "reduce-scatter"}
    # Whether cut gradients are summed whole is the compiler's choice.
    assert programs["shardings"]["sent"] - 4 * ELEMENTS - beyond in (0, 2 * CUT)


def test_a_device_holds_half_of_the_slots_that_can_be_cut(found):
    name, programs = found
    slots = {"LAMB": 2, "LARS": 1}[name]
    counters = programs["replicated"]["state"] - 4 * slots * ELEMENTS
    assert 0 < counters < 20  # the number of updates, the learning rate
    for program in ("shardings", "reduce_scatter"):
        assert programs[program]["state"] - counters == 4 * slots * (CUT // 2 + 3)


def test_what_is_wrong_is_said(found):
    name, programs = found
    dear = programs["reduce_scatter"] | {"sent": 3 * programs["reduce_scatter"]["sent"]}
    off = programs["replicated"] | {"error": float("nan")}
    said = sharded_update.wrong(name, 2, SHAPES, {"reduce_scatter": dear, "replicated": off})
    assert len(said) == 2
    assert "reduce_scatter: sends 3.0" in said[0] and "replicated: off by nan" in said[1]


@pytest.mark.parametrize("name, oracle", [("LAMB", oracles.Lamb()), ("LARS", oracles.Lars())])
def test_the_scripts_numpy_form_is_the_algorithm(name, oracle):
    random = np.random.default_rng(0)
    ours = _sharded_job.InFloat64(name)
    weights = {"kernel": random.normal(size=(4, 3)), "bias": random.normal(size=5)}
    weights["zero/kernel"] = np.zeros(2)
    for _ in range(4):
        gradients = {key: random.normal(size=w.shape) for key, w in weights.items()}
        expected = {
            key: oracle.step(
                key, w, gradients[key], _sharded_job.RATES[name], decayed="bias" not in key,
                adapted="bias" not in key,
            )[0]
            for key, w in weights.items()
        }  # fmt: skip
        weights = ours.update(weights, gradients)
        for key, w in weights.items():
            np.testing.assert_allclose(w, expected[key], rtol=1e-12, atol=1e-15)


PROGRAM = """HloModule by_hand, num_partitions=4

%branch (p: f32[8]) -> f32[] {
  ROOT %r = f32[] all-reduce(%p), channel_id=1, to_apply=%add
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = (f32[8]{0}, /*index=1*/f32[2,2]{1,0}) all-reduce(%a, %c), channel_id=2, to_apply=%add
  %d = f32[2]{0} reduce-scatter(%a), channel_id=3, dimensions={0}, to_apply=%add
  ROOT %e = f32[8]{0} all-gather(%d), channel_id=4, dimensions={0}
}
"""


def test_collectives_of_a_program_are_counted():
    (kinds, sent), in_branches = _sharded_job.count(PROGRAM, 4)
    assert kinds == {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1}
    assert sent == 1.5 * 48 + 3 * 8 + 0.75 * 32
    assert in_branches == 1.5 * 4


@pytest.mark.parametrize("other", ["all-gather-start", "collective-broadcast"])
def test_what_cannot_be_counted_is_refused(other):
    with pytest.raises(ValueError, match=other):
        _sharded_job.count(PROGRAM.replace("all-gather(", f"{other}("), 4)


def test_the_gather_under_tf_distribute_gives_the_whole():
    """The job compares the gathered variables with their parts, and ends with an error if not."""
    seconds = sharded_update.in_process("mirrored", "LARS", 2, SHAPES, 2)
    ratios = sharded_update.ratios_of_mirrored(seconds)
    assert all(len(values) == 2 and np.isfinite(values).all() for values in ratios.values())
    assert min(ratios["gather"]) > 0
