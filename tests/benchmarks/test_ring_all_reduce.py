"""The rings sum as NumPy does, on every device, and send what can be counted by hand."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import _traffic

pytest.importorskip("jax")

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOB = pathlib.Path(__file__).with_name("ring_job.py")
ALGORITHMS = ("ring", "torus", "torus_in_halves")
CASES = [((2, 2), 1), ((2, 2), 37), ((2, 4), 37), ((4, 4), 37), ((3, 3), 5), ((1, 4), 6)]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """What the job wrote; it needs a process of its own, before JAX has made its devices."""
    path = tmp_path_factory.mktemp("ring") / "found.npz"
    done = subprocess.run(
        [sys.executable, JOB, path], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("grid, elements", CASES)
def test_every_device_has_the_sum(job, algorithm, grid, elements):
    key = f"{algorithm} {grid} {elements}"
    whole = job[f"{key} whole inputs"].astype("float64")
    assert whole.shape == (grid[0] * grid[1], elements) and np.ptp(whole, axis=0).all()
    expected = np.tile(whole.sum(axis=0), (len(whole), 1))
    np.testing.assert_array_equal(job[f"{key} whole"], expected)
    normal = job[f"{key} normal inputs"].astype("float64")
    found = job[f"{key} normal"]
    # Adding p numbers in any order rounds p - 1 times, each by at most half a last place.
    bound = (len(normal) - 1) * 2.0**-24 * np.abs(normal).sum(axis=0)
    assert (np.abs(found - normal.sum(axis=0)) <= bound * (1 + 1e-6)).all()
    assert (found == found[0]).all()  # one device adds each chunk, so that all agree


# Rounds, hops, and in bytes of 4: the longest sequence, and what a device sends; by hand. On a row
# or column of d devices a scatter or a gather of m numbers is d - 1 rounds of m / d.
BY_HAND = {
    ("ring", (2, 2)): (6, 6, 6 * 24, 6 * 24),
    ("torus", (2, 2)): (4, 4, 2 * 48 + 2 * 24, 2 * 48 + 2 * 24),
    ("torus_in_halves", (2, 2)): (4, 4, 2 * 24 + 2 * 12, 2 * (2 * 24 + 2 * 12)),
    ("ring", (2, 4)): (14, 14, 14 * 12, 14 * 12),
    ("torus", (2, 4)): (8, 8, 6 * 24 + 2 * 12, 6 * 24 + 2 * 12),
    # Along the rows of 4: six rounds of the first half's quarter, six of the other one's eighth.
    ("torus_in_halves", (2, 4)): (12, 12, 6 * 12 + 6 * 6, 6 * 12 + 6 * 6 + 2 * 24 + 2 * 6),
    ("ring", (4, 4)): (30, 30, 30 * 32, 30 * 32),
    ("torus", (4, 4)): (12, 12, 6 * 128 + 6 * 32, 6 * 128 + 6 * 32),
    ("torus_in_halves", (4, 4)): (12, 12, 6 * 64 + 6 * 16, 2 * (6 * 64 + 6 * 16)),
    # The snake through 3 x 3 closes by a step across two links; five numbers make chunks of one.
    ("ring", (3, 3)): (16, 32, 16, 16),
    ("torus", (3, 3)): (8, 8, 4 * 2 + 4 * 1, 4 * 2 + 4 * 1),
    ("ring", (1, 4)): (6, 6, 6 * 2, 6 * 2),
    ("torus", (1, 4)): (6, 6, 6 * 2, 6 * 2),
}


@pytest.mark.parametrize("algorithm, grid", BY_HAND)
def test_the_counts_are_those_made_by_hand(job, algorithm, grid):
    rounds, hops, sequence, sent = BY_HAND[algorithm, grid]
    counted = json.loads(str(job["said"]))["counted"][f"{algorithm} {grid}"]
    assert counted == [rounds, hops, 4 * sequence, 4 * sent]


def test_the_script_says_what_is_wrong(job):
    said = json.loads(str(job["said"]))
    assert said["right"] == []
    (formula,) = said["formula"]
    assert "ring on 2x2: counted Traffic(rounds=6" in formula and "rounds=4" in formula
    assert said["sums"][0] == "torus on 2x2: 8 whole numbers"


PROGRAM = """HloModule by_hand, num_partitions=4

%body (p: f32[8]) -> f32[8] {
  ROOT %p = f32[8]{0} parameter(0)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %s = bf16[8]{0} collective-permute(%h), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %t = f32[8]{0} collective-permute(%a), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %u = f32[8]{0} fusion(%t), kind=kLoop, calls=%body
  %v = f32[2,3]{1,0} collective-permute(%u), channel_id=1, source_target_pairs={{0,2},{1,3}}
  %w = f32[] collective-permute(%z), channel_id=1, source_target_pairs={{0,3}}
}
"""


def test_chains_and_shared_links_are_counted():
    """The longest chain is t, v. Links along x: s and t, and w, which crosses both dimensions."""
    counted = _traffic.count(PROGRAM, 2, 2)
    assert counted == (3, 4, 32 + 24, 16 + 32 + 24 + 4)
    # In a row the same numbers mean other places: 0 and 3 are neighbours, 0 and 2 are not.
    assert _traffic.count(PROGRAM, 1, 4) == (4, 5, 16 + 32 + 24 + 4, 76)


@pytest.mark.parametrize(
    "before, after, words",
    [
        ("bf16[8]{0} collective-permute(%h)", "bf16[8]{0} all-reduce(%h)", "all-reduce"),
        (
            "ROOT %p = f32[8]{0} parameter(0)",
            "ROOT %q = f32[8]{0} collective-permute(%p)",
            "4 such",
        ),
        ("f32[2,3]{1,0} collective-permute(", "f32[2,3]{1,0} collective-permute-start(", "3 such"),
    ],
)
def test_what_cannot_be_counted_is_refused(before, after, words):
    assert before in PROGRAM
    with pytest.raises(ValueError, match=words):
        _traffic.count(PROGRAM.replace(before, after), 2, 2)
