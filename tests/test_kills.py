"""Killed at any moment and started again by the same command: nothing is lost, bit for bit."""

import csv
import pathlib
import random
import subprocess
import sys

import keras
import numpy as np
import pytest

import models  # noqa: F401 (these two register what the saved models hold)
import tf_largebatch  # noqa: F401

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
ROOT = pathlib.Path(__file__).resolve().parents[1]
SETTINGS = {
    "lamb": ["--optimizer=lamb"],
    "lars": ["--optimizer=lars", "--learning_rate=1.0"],
    "nlamb, two replicas": ["--optimizer=nlamb", "--num_replicas=2"],
    "nnlamb, micro-batches": ["--optimizer=nnlamb", "--micro_batch_size=32"],
    "lamb, float16": ["--optimizer=lamb", "--precision=mixed_float16"],
}
# Two phases of BERT: 100 updates in epochs 1 to 4, the last one cut short, then 50 in 5 and 6.
PHASES = [
    "--recipe=bert_lamb_mixed", "--smoke", "--data=topics", "--sequence_lengths=16,32",
    "--global_batch_size=64", "--phase_batch_sizes=64,32", "--phase_proportions=2,1",
    "--total_updates=150", "--learning_rate=0.01", "--phase_learning_rates=0.01,0.007",
    "--warmup_updates=10", "--phase_warmup_updates=10,5", "--checkpoint_every=7",
    "--model_options=dropout=0.1,max_sequence_length=32", "--progress=line", "--resume",
]  # fmt: skip
KILLS = 4  # a setting: 20 in all


DIGITS = [
    "--progress=line", "--epochs=40", "--checkpoint_every=7", "--global_batch_size=128", "--resume",
]  # fmt: skip


def start(model_dir, flags):
    command = [sys.executable, "-u", "train.py", f"--model_dir={model_dir}", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_after(process, lines):
    """Kills once so many epochs have been reported; returns whether it was still running."""
    for line in process.stdout:
        if line.startswith("Epoch"):
            lines -= 1
            if lines == 0:
                process.kill()
    return process.wait() == -9


def state(model_dir):
    model = keras.models.load_model(model_dir / "final.keras")
    arrays = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    return arrays, rows_of(model_dir)


def rows_of(model_dir):
    rows = list(csv.DictReader((model_dir / "log.csv").read_text().splitlines()))
    for row in rows:
        row.pop("examples_per_second")
    return rows


@pytest.mark.parametrize("setting", SETTINGS)
def test_killed_runs_end_as_if_they_had_not_been(tmp_path, setting):
    flags = [*DIGITS, *SETTINGS[setting]]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(whole, flags) as process:
        out = process.stdout.read()
    assert process.returncode == 0, out
    dice = random.Random(setting)
    kills = 0
    while kills < KILLS:
        with start(killed, flags) as process:
            assert kill_after(process, dice.randint(2, 8)), "ended before it was killed"
        kills += 1
    with start(killed, flags) as process:
        out = process.stdout.read()
    assert process.returncode == 0, out
    assert ", from update" in out
    # For the loss scale, which load_model would leave out under another policy:
    keras.config.set_dtype_policy("mixed_float16" if "float16" in setting else "float32")
    assert_same(whole, killed)


def assert_same(whole, killed):
    (arrays, rows), (other_arrays, other_rows) = state(whole), state(killed)
    for one, other in zip(arrays, other_arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    assert rows == other_rows


def test_killed_on_either_side_of_the_switch_between_phases(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(whole, PHASES) as process:
        out = process.stdout.read()
    assert process.returncode == 0, out
    for epoch in ("Epoch 3/", "Epoch 5/", "Epoch 6/"):  # before, at the switch, behind it
        with start(killed, PHASES) as process:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if line.startswith(epoch):
                    process.kill()
            assert process.wait() == -9, "".join(seen)
    with start(killed, PHASES) as process:
        out = process.stdout.read()
    assert process.returncode == 0, out
    assert ", from update 1" in out  # of 150
    # Not final.keras, in which Keras leaves out the state of the dropout's seeds.
    arrays, others = (
        dict(np.load(folder / "checkpoints" / "update-00000150.npz")) for folder in (whole, killed)
    )
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
    assert rows_of(whole) == rows_of(killed)
