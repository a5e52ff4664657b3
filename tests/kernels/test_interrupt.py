"""Ctrl-C ends a fit that would go on for minutes, whoever runs it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.mark.parametrize("way", ["one device", "strategy"])
def test_ctrl_c_ends_a_long_fit(way):
    """It is sent when XLA's calls have begun, and `verbose` has said so."""
    job = pathlib.Path(__file__).with_name("interrupted_fit_job.py")
    process = subprocess.Popen(
        [sys.executable, str(job), way],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert all("[kernels] going on after" in line for line in lines), errors[-2000:]
    assert "KeyboardInterrupt" in errors and "ended" not in rest
    assert process.returncode != 0
    assert time.monotonic() - sent < 30
