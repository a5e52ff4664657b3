"""Measured speed: the sweep with processes that answer as told, one trial here, and all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch import plan
from tf_largebatch.plan import _measurement

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).resolve().parents[2]
LENET = ["--recipe=lenet_digits", "--format=json"]


@pytest.fixture
def answers(monkeypatch):
    """What the process of each size answers: seconds, or (exit code, standard error), to fill.

    All but these processes is real. Returns (answers, the orders that were given).
    """
    found, orders = {}, []

    def run(command, *, input, env, **options):
        order = json.loads(input)
        orders.append(order | {"environment": env})
        answer = found[order["micro_batch_size"]]
        code, error = answer if isinstance(answer, tuple) else (0, "")
        output = "noise\n" + json.dumps({"seconds": answer}) if code == 0 else ""
        return subprocess.CompletedProcess(command, code, output, error)

    monkeypatch.setattr(_measurement.subprocess, "run", run)
    return found, orders


def planned(capsys, *flags):
    code = plan.main([*LENET, *flags])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


# Figure 5.6 of the thesis: the rate flattens towards 512, and 1,024 runs out of memory.
FIGURE_5_6 = {16: 0.16, 32: 0.17, 64: 0.20, 128: 0.30, 256: 0.51, 512: 0.95}


def test_the_sweep_ends_where_memory_does(answers, capsys):
    found, orders = answers
    error = "...\nResourceExhaustedError: OOM when allocating tensor with shape[1024,96,55,55]\n"
    found |= FIGURE_5_6 | {1024: (1, error)}
    result = planned(capsys, "--batch_sizes=1024", "--measure=16:4096", "--memory_limit_gib=12")
    states = {t["micro_batch_size"]: t["state"] for t in result["measured"]}
    assert states == dict.fromkeys(FIGURE_5_6, "measured") | {
        1024: "out of memory", 2048: "not tried", 4096: "not tried",
    }  # fmt: skip
    assert result["measured"][0]["examples_per_second"] == 100
    assert result["knee_micro_batch_size"] == 256  # 502 a second, of at best 539
    assert [order["micro_batch_size"] for order in orders] == [*FIGURE_5_6, 1024]
    assert {order["memory_limit_gib"] for order in orders} == {12}
    assert result["speed"] == "measured on this machine"
    [row] = result["rows"]  # what doesn't fit at once is taken in parts
    assert (row["micro_batch_size"], row["accumulation"]) == (512, 2)
    assert row["compute_seconds_per_update"] == pytest.approx(2 * 0.95)
    assert row["total_joules"] is None  # nobody has said what this machine draws


def test_a_larger_share_makes_more_than_linear_speed(answers, capsys):
    """Four devices with 16 and with 256 examples each; and one device against four."""
    answers[0].update(FIGURE_5_6)
    network = ["--alpha=1e-9", "--beta=1e-15"]
    found = planned(
        capsys, "--batch_sizes=64,1024", "--devices=1,4", "--measure=16:512", *network
    )["rows"]  # fmt: skip
    small_on_1, large_on_1, small_on_4, large_on_4 = found
    assert large_on_4["speedup_over_first"] / 4 > 1.5  # 4 devices, each faster, too
    assert small_on_4["strong_efficiency"] == pytest.approx(0.20 / (4 * 0.16), rel=1e-3)
    assert large_on_4["strong_efficiency"] == pytest.approx(2 * 0.95 / (4 * 0.51), rel=1e-3)
    assert small_on_4["weak_efficiency"] == pytest.approx(1, rel=1e-3)
    assert small_on_1["compute_seconds_per_update"] == pytest.approx(0.20)
    assert large_on_1["compute_seconds_per_update"] == pytest.approx(2 * 0.95)


def test_a_named_device_draws_its_watts_for_as_long_as_was_measured(answers, capsys):
    """A P100 has 300 W, whatever part of its peak these seconds are; and a price goes first."""
    answers[0].update(FIGURE_5_6)
    flags = ["--batch_sizes=1024", "--devices=4", "--measure=16:512", "--tuning_runs=3"]
    found = planned(capsys, *flags, "--device=p100")
    [row] = found["rows"]
    assert found["seconds_per_operation"] is None
    assert row["computation_joules"] == pytest.approx(3 * 300 * 4 * row["updates"] * 0.51)
    [row] = planned(capsys, *flags, "--device=p100", "--joules_per_operation=1e-11")["rows"]
    operations = 3 * row["operations_forward"]  # both ways
    assert row["computation_joules"] == pytest.approx(3 * operations * 1e-11)


@pytest.mark.parametrize("answer", [
    (-9, ""), (1, "std::bad_alloc"), (1, "MemoryError: Unable to allocate 8 GiB"),
])  # fmt: skip
def test_other_ways_to_run_out_of_memory(answers, capsys, answer):
    answers[0].update({8: 0.1, 16: answer})
    states = [t["state"] for t in planned(capsys, "--batch_sizes=64", "--measure=8:16")["measured"]]
    assert states == ["measured", "out of memory"]


def test_where_nothing_fits(answers, capsys):
    answers[0][8] = (-9, "")
    assert plan.main([*LENET, "--batch_sizes=64", "--measure=8:16"]) == 2
    assert "Not even a micro-batch of 8 fits in memory" in capsys.readouterr().err


def test_a_trial_that_breaks_is_no_result(answers, capsys):
    answers[0].update({8: 0.1, 16: (1, "Traceback ...\nTypeError: no such layer\n")})
    assert plan.main([*LENET, "--batch_sizes=64", "--measure=8:16"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err == "plan: The trial of micro-batch size 16 failed: TypeError: no such layer\n"
    )


def test_a_given_micro_batch_must_have_fitted(answers, capsys):
    answers[0].update({8: 0.1, 16: (-9, "")})
    flags = ["--batch_sizes=64", "--measure=8:16", "--micro_batch_size=16"]
    assert plan.main([*LENET, *flags]) == 2
    assert (
        "the largest one that was measured and fitted, 8. Received: 16" in capsys.readouterr().err
    )


def test_the_figure_shows_the_knee_and_the_end(answers, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    answers[0].update(FIGURE_5_6 | {1024: (-9, "")})
    flags = ["--batch_sizes=256,1024", "--measure=16:1024"]
    planned(capsys, *flags, f"--plot={tmp_path}/plan.svg")
    assert (tmp_path / "plan.svg").stat().st_size > 10_000
    assert plan.main([LENET[0], *flags]) == 0
    text = capsys.readouterr().out
    assert "the knee" in text and "out of memory" in text


def test_one_trial(monkeypatch):
    """The trainer's step on made-up numbers: several inputs and outputs, lengths left open."""
    import keras

    from tf_largebatch.plan import _trial

    monkeypatch.setattr(_trial, "CALL_SECONDS", 0.001)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    pixels = keras.Input((4,), name="pixels")
    x = keras.layers.Embedding(3, 4)(tokens) + keras.layers.Reshape((1, 4))(pixels)
    outputs = {
        "words": keras.layers.Dense(3, name="words")(x),
        "height": keras.layers.Dense(1, name="height")(x[:, 0]),
    }
    model = keras.Model({"tokens": tokens, "pixels": pixels}, outputs)
    source = _trial.Synthetic(model, 6)
    assert source.inputs["tokens"].shape == (16, 6) and source.labels["words"].shape == (16, 6)
    assert source.labels["height"].shape == (16, 1)
    model.compile(optimizer=keras.optimizers.SGD(1e-6), loss=source.losses)
    model.optimizer.build(model.trainable_variables)
    assert _trial.seconds_per_update(model, source, 5) > 0
    assert int(model.optimizer.iterations) > 4


WIDE = """
import keras
def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(65536), keras.layers.Dense(2)])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="--memory_limit_gib needs Linux")
def test_the_whole_of_it_in_processes(tmp_path):
    """A batch of 8,192 needs 2 GiB for the first layer's output alone; 2 GiB are given."""
    (tmp_path / "wide.py").write_text(WIDE)
    done = subprocess.run(
        [
            sys.executable, "-m", "tf_largebatch.plan", "--model=wide:build",
            "--num_examples=1000000", "--epochs=1", "--batch_sizes=64", "--measure=1024:8192",
            "--memory_limit_gib=2", "--format=json",
        ],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = [trial["state"] for trial in found["measured"]]
    fitted = states.count("measured")
    assert 1 <= fitted <= 3
    assert states[fitted:] == ["out of memory", *["not tried"] * (3 - fitted)]
    assert found["rows"][0]["compute_seconds_per_update"] > 0
