"""The tables say what the seconds do; and, slow, processes that really train."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from benchmarks import _scaling_report as report
from benchmarks import scaling

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = argparse.Namespace(
    replicas=[1, 2, 4], workers=[2], strong_batch=512, weak_batch=256, rounds=3, updates=10
)
# (wall, processor) seconds of three rounds; the machine was half as fast in the last.
FOUND = {
    ("1 replica", "strong"): [(0.8, 0.8), (0.8, 0.8), (1.6, 0.8)],
    ("2 replicas", "strong"): [(0.5, 0.9), (0.5, 0.9), (1.0, 0.9)],
    ("4 replicas", "strong"): [(0.5, 1.0), (0.5, 1.0), (1.0, 1.0)],
    ("2 workers", "strong"): [(0.4, 0.8), (0.4, 0.8), (0.8, 0.8)],
    ("1 replica, all cores", "strong"): [(0.4, 0.8)] * 3,
    ("1 replica", "weak"): [(0.4, 0.4), (0.4, 0.4), (0.8, 0.4)],
    ("2 replicas", "weak"): [(0.5, 1.0), (0.5, 1.0), (1.0, 1.0)],
    ("4 replicas", "weak"): [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0)],
    ("2 workers", "weak"): [(0.4, 0.8), (0.4, 0.8), (0.8, 0.8)],
    ("1 replica, all cores", "weak"): [(0.2, 0.4)] * 3,
    ("batches", "batch 16"): [(0.01, 0.01)] * 3,
    ("batches", "batch 256"): [(0.02, 0.02), (0.04, 0.02), (0.05, 0.02)],
    ("parameters", "LAMB 10"): [(440e-9, 0.0)] * 3,
    ("parameters", "keras Lamb 10"): [(880e-9, 0.0)] * 3,
}


def test_strong_and_weak_scaling_are_ratios_within_a_round():
    setups = scaling.setups(FLAGS, [0, 1])
    assert setups["4 replicas"] == (4, 0, 2) and setups["2 workers"] == (2, 2, 2)
    rows = {row[0]: row[1:] for row in report.scaling_rows(FOUND, "strong", setups, 512)}
    assert rows["2 replicas"] == [
        2, 256, "500.0 (500.0 - 750.0)", "1,024", "1.60 (1.60 - 1.60)", "80%", "80%",
        "1.12 (1.12 - 1.12)",
    ]  # fmt: skip
    assert rows["4 replicas"][4:7] == ["1.60 (1.60 - 1.60)", "40%", "80%"]
    weak = {row[0]: row[1:] for row in report.scaling_rows(FOUND, "weak", setups, 256)}
    # Twice the images in 1.25 times the time.
    assert weak["2 replicas"] == [
        2, 256, "500.0 (500.0 - 750.0)", "1,024", "1.60 (1.60 - 1.60)", "80%", "80%",
        "1.25 (1.25 - 1.25)",
    ]  # fmt: skip
    assert weak["4 replicas"][1:3] == [256, "1,000.0 (1,000.0 - 1,500.0)"]
    assert weak["2 workers"][4:6] == ["2.00 (2.00 - 2.00)", "100%"]


def test_growing_batches_and_parameters():
    assert report.batch_rows(FOUND)[1] == [
        256, "40.00 (30.00 - 45.00)", "6,400", "4.00 (3.00 - 4.50)"
    ]  # fmt: skip
    assert report.parameter_rows(FOUND) == [
        ["440", "1.00 (1.00 - 1.00)", "2.00 (2.00 - 2.00)", "0.50 (0.50 - 0.50)"]
    ]


def test_the_page_and_the_figure(tmp_path):
    pytest.importorskip("matplotlib")
    setups = scaling.setups(FLAGS, [0, 1])
    page = report.page(FOUND, setups, FLAGS, 2)
    assert "The machine has 2 cores" in page and "| 2 workers | 2 | 256 |" in page
    report.draw(FOUND, setups, FLAGS, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.multi_worker
def test_replicas_and_workers_are_measured(tmp_path):
    pytest.importorskip("matplotlib")
    sizes = [
        "--rounds=2",
        "--strong_batch=32",
        "--weak_batch=16",
        "--updates=2",
        f"--out={tmp_path}",
    ]
    lists = ["--replicas", "1", "2", "--batches", "16", "--widths", "8"]
    done = subprocess.run(
        [sys.executable, "benchmarks/scaling.py", *sizes, *lists], cwd=ROOT, text=True,
        capture_output=True, env={**scaling._environment()}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "scaling.csv").read_text().splitlines()
    for name in ("1 replica", "2 replicas", "2 workers"):
        assert sum(line.startswith(f"{name},strong,") for line in lines) == 2
    assert (tmp_path / "scaling.md").exists() and (tmp_path / "scaling.png").exists()


def test_a_process_that_fails_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "JOB", tmp_path / "missing.py")
    with scaling.contextlib.ExitStack() as stack:
        process = scaling.Process(stack, [{}], [[0]])
        with pytest.raises(RuntimeError, match=r"missing\.py"):
            _ = process.names
