"""The plan as a tool: its rows against sums done by hand, its tables, and what it refuses."""

import csv
import io
import json
import math
import os
import re
from pathlib import Path

import pytest

from tf_largebatch import plan
from tf_largebatch.plan import _model

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).resolve().parents[2]
LENET = {"parameters": 61_706, "multiply_adds": 416_520, "examples": 1437}


def run(capsys, *arguments):
    """Standard output of the tool, which must end well."""
    code = plan.main(list(arguments))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def rows_of(capsys, *arguments):
    found = json.loads(run(capsys, *arguments, "--format=json"))
    return found, {(row["global_batch_size"], row["devices"]): row for row in found["rows"]}


def test_a_recipe_by_its_rule(capsys):
    found, rows = rows_of(
        capsys, "--recipe=lenet_digits", "--batch_sizes=16,256", "--devices=1,4",
        "--time_per_flop=1e-12", "--alpha=1e-6", "--beta=1e-9", "--joules_per_operation=2e-11",
        "--tuning_runs=100,1",
    )  # fmt: skip
    assert found["model"][0]["parameters"] == LENET["parameters"]
    assert found["model"][0]["scaling_ratio"] == pytest.approx(2 * 416_520 / 61_706)
    assert list(rows) == [(16, 1), (256, 1), (16, 4), (256, 4)]
    gradients = 4 * LENET["parameters"]
    for (batch, devices), row in rows.items():
        updates = math.floor(60 * 1437 / batch + 0.5)
        assert row["updates"] == row["messages"] == updates
        assert row["bytes_moved"] == updates * gradients
        assert row["operations_per_byte_moved"] == pytest.approx(
            2 * 416_520 * batch / gradients, rel=1e-12
        )
        rate = rows[16, 1]["learning_rate"]
        assert row["learning_rate"] == pytest.approx(rate * math.sqrt(batch / 16))
        compute = batch / devices * 6 * 416_520 * 1e-12
        sums = {1: 0.0, 4: 4 * 1e-6 + 1.5 * gradients * 1e-9}[devices]
        assert row["communication_seconds_per_update"] == pytest.approx(sums)
        assert row["run_seconds"] == pytest.approx(updates * (compute + sums))
        assert row["weak_efficiency"] == pytest.approx(compute / (compute + sums))
        assert row["strong_efficiency"] == pytest.approx(row["weak_efficiency"])
        assert row["communication_share"] == pytest.approx(1 - row["weak_efficiency"])
        assert row["speedup_over_first"] == rows[16, 1]["run_seconds"] / row["run_seconds"]
        assert row["optimizer_bytes"] == 8 * LENET["parameters"]  # LAMB's two moments
        assert row["activation_bytes_estimate"] == 4 * 8494 * batch / devices
        runs = 100 if batch == 16 else 1
        assert row["computation_joules"] == pytest.approx(
            runs * updates * batch * 6 * 416_520 * 2e-11
        )
        sent = runs * updates * 2 * (devices - 1) * gradients * 15 * 1e-9
        assert row["communication_joules"] == pytest.approx(sent)
    assert rows[256, 1]["how"].startswith("derived from the 16 row")


def test_table_2_of_the_slides_from_the_command_line(capsys):
    """26 million parameters and 7.72e9 operations an image: 374 TB at batch 32."""
    text = run(
        capsys, "--parameters=26e6", "--multiply_adds=3.86e9", "--num_examples=1280000",
        "--epochs=90", "--batch_sizes=32,32768", "--devices=32",
    )  # fmt: skip
    [small, large] = [line.split() for line in text.splitlines() if (line.lstrip()[:2] in
                      ("32",) and "not known" in line) or "3,516" in line]  # fmt: skip
    assert small[0] == "32" and "3,600,000" in small and "374" in small and "TB" in small
    assert large[0] == "32,768" and "3,516" in large and "366" in large and "GB" in large


def test_without_a_row_and_a_rule_costs_are_known_and_the_rate_is_not(capsys):
    flags = ["--recipe=davidnet_lamb", "--parameters=6573120", "--multiply_adds=3.79e8"]
    _, rows = rows_of(capsys, *flags, "--batch_sizes=512,1000", "--devices=2")
    assert rows[512, 2]["learning_rate"] is not None
    unknown = rows[1000, 2]
    assert unknown["learning_rate"] is unknown["warmup_updates"] is None
    assert unknown["updates"] == 24 * 50_000 / 1000
    assert unknown["how"].startswith("no row and no rule: the length of the 512 row")
    assert "not known" in run(capsys, *flags, "--batch_sizes=1000")
    # A length in updates is that of as many examples.
    _, rows = rows_of(
        capsys, "--recipe=mlperf_bert_lamb", "--parameters=3e8", "--multiply_adds=1e11",
        "--batch_sizes=2304",
    )  # fmt: skip
    assert rows[2304, 1]["updates"] == 700 * 2


TWO_PHASES = """
title = "two phases"
source = "ours"
default_global_batch_size = 64
[settings]
model = "bert_tiny"
data = "wikipedia_books"
optimizer = "lars"
precision = "bfloat16"
learning_rate = 0.1
total_updates = 100
sequence_lengths = [32, 128]
phase_proportions = [9, 1]
[[rows]]
global_batch_size = 64
"""


def test_phases_are_added_up(capsys, tmp_path):
    pytest.importorskip("keras_hub")
    (tmp_path / "phases.toml").write_text(TWO_PHASES)
    found, rows = rows_of(
        capsys, f"--recipe={tmp_path / 'phases.toml'}", "--batch_sizes=64", "--devices=4",
        "--time_per_flop=1e-12", "--micro_batch_size=8",
    )  # fmt: skip
    short, long = (model["multiply_adds"] for model in found["model"])
    assert [model["sequence_length"] for model in found["model"]] == [32, 128]
    row = rows[64, 4]
    assert row["updates"] == 100
    assert row["operations_forward"] == 64 * 2 * (90 * short + 10 * long)
    compute = 16 * 6 * (0.9 * short + 0.1 * long) * 1e-12
    assert row["compute_seconds_per_update"] == pytest.approx(compute)
    parameters, activations = (found["model"][1][key] for key in ("parameters", "activations"))
    assert row["activation_bytes_estimate"] == 2 * 8 * activations  # the longer phase's
    assert (row["micro_batch_size"], row["accumulation"]) == (8, 2)
    # LARS's momentum in float32, and the digits that the bfloat16 weight has no room for.
    assert row["weight_bytes"] == 2 * parameters and row["optimizer_bytes"] == 8 * parameters
    assert row["gradient_bytes"] == 6 * parameters


@pytest.mark.parametrize("optimizer, bytes_per_parameter", [
    ("sgd", 0), ("lars", 4), ("adagrad", 4), ("muon", 4), ("lamb", 8), ("nlamb", 8), ("adamw", 8),
])  # fmt: skip
def test_the_optimizers_state(optimizer, bytes_per_parameter):
    found = _model.optimizer_bytes_per_parameter(optimizer, "float32")
    assert found == bytes_per_parameter


def test_the_momentum_of_sgd_is_a_slot():
    assert _model.optimizer_bytes_per_parameter("sgd", "float32", 0.9) == 4


LARGE = ("--parameters=336e6", "--multiply_adds=1.5e11", "--num_examples=100000000",
         "--epochs=40", "--batch_sizes=1024,16384,65536,1048576", "--devices=1024",
         "--network=tpu_v3_ici", "--device=tpu_v3", "--micro_batch_size=1")  # fmt: skip


def test_the_tables_fit_120_columns(capsys):
    text = run(capsys, *LARGE)
    assert max(map(len, text.splitlines())) <= 120
    for words in ("torus, halves", "One all-reduce of 1.34 GB", "1 x 1,024", "tpu_v3_ici"):
        assert words in text


def test_csv_has_the_same_figures(capsys):
    _, rows = rows_of(capsys, *LARGE)
    lines = list(csv.DictReader(io.StringIO(run(capsys, *LARGE, "--format=csv"))))
    assert len(lines) == len(rows) == 4
    for line, row in zip(lines, rows.values(), strict=True):
        assert float(line["run_seconds"]) == row["run_seconds"]
        for algorithm, seconds in row["all_reduce_seconds"].items():
            assert float(line[f"all_reduce_{algorithm}_seconds"]) == seconds
        assert line["learning_rate"] == "" and line["memory_bytes_estimate"] == ""


@pytest.mark.parametrize("suffix, begins", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(capsys, tmp_path, suffix, begins):
    pytest.importorskip("matplotlib")
    run(capsys, *LARGE, f"--plot={tmp_path}/plan.{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"plan.{suffix}"]
    assert (tmp_path / f"plan.{suffix}").read_bytes().startswith(begins)


def test_the_report_comes_before_the_figure_that_cant_be_written(capsys, tmp_path):
    """A measurement may have taken an hour."""
    pytest.importorskip("matplotlib")
    assert plan.main([*LARGE, f"--plot={tmp_path}/missing/plan.svg"]) == 2
    captured = capsys.readouterr()
    assert "Time, predicted" in captured.out and "missing" in captured.err


def test_a_reader_that_has_had_enough(capsys, monkeypatch):
    """As `head` has."""
    end, beginning = os.pipe()
    os.close(end)
    with open(beginning, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert plan.main(list(LARGE)) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_the_examples_of_help_keep_their_lines(capsys):
    with pytest.raises(SystemExit, match="0"):
        plan.main(["--help"])
    assert "8192,32768 \\\n        --devices=16" in capsys.readouterr().out


LENET_256 = "--recipe=lenet_digits --batch_sizes=256"
DENSE = "--num_examples=1000 --epochs=1 --batch_sizes=10"


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--batch_sizes=256", "Say what to plan"),
        ("--recipe=lenet_digits --model=lenet5 --batch_sizes=256", "Say what to plan"),
        ("--recipe=lenet_digit --batch_sizes=256", "Nearest: lenet_digits"),
        ("--recipe=lenet_digits --batch_sizes=0", "--batch_sizes must be a whole number of at"),
        ("--recipe=lenet_digits --batch_sizes=2048", "not be larger than the data, 1437 examples"),
        (f"{LENET_256} --devices=3", "by the 3 replicas. Received: 256. Nearest: 255, 258"),
        (f"{LENET_256} --devices=0", "--devices must be a whole number of at least 1"),
        (f"{LENET_256} --network=fdrr", "no network of this name.*Nearest: fdr"),
        (f"{LENET_256} --device=p10", "no device of this name.*Nearest: p100"),
        (f"{LENET_256} --alpha=0 --beta=1e-9", "--alpha must be a finite number above 0"),
        (f"{LENET_256} --alpha=1e-6 --beta=-1e-9", "--beta must be a finite number above 0"),
        (f"{LENET_256} --alpha=1e-6", "--alpha and --beta belong together"),
        (f"{LENET_256} --alpha=1e-6 --beta=1e-9 --network=fdr", "one alpha and one beta"),
        (f"{LENET_256} --utilization=40", "--utilization must lie above 0 and not above 1"),
        (f"{LENET_256} --epochs=0", "--epochs must be a finite number above 0"),
        (f"{LENET_256} --optimizer=sgd", "A recipe has its own optimizer"),
        (f"{LENET_256} --precision=float64", "precision must be one of"),
        (f"{LENET_256} --tuning_runs=1,2", "one for each batch size. Received: 2 for 1"),
        (f"{LENET_256} --micro_batch_size=100", "[Nn]earest micro_batch_size: 64, 128"),
        (f"{LENET_256} --plot=plan.gif", "must end in .png or .svg"),
        (f"{LENET_256} --train=setup/train.py", "--train must be the path of this project's"),
        (f"{LENET_256} --memory_limit_gib=1", "--memory_limit_gib belongs to --measure"),
        (f"{LENET_256} --time_per_flop=1e-12 --device=a100", "speed that is reached, whatever the"),
        (f"{LENET_256} --time_per_flop=1e-12 --utilization=0.3", "Leave out --device and"),
        (f"--parameters=9 --multiply_adds=9 --input_shape=9 {DENSE}", "no network is made"),
        (f"{LENET_256} --measure=16", "smallest and the largest micro-batch size, such as 16:512"),
        (f"{LENET_256} --measure=16:8", "smallest and the largest micro-batch size"),
        (f"{LENET_256} --measure=1:8 --utilization=0.3", "its speed. Leave .*--utilization"),
        (f"{LENET_256} --measure=1:8 --time_per_flop=1e-12", "Leave out --parameters, --time"),
        ("--recipe=gnmt_lars --batch_sizes=256", "isn't known for wmt16.*Give --num_examples"),
        ("--recipe=bert_lamb --batch_sizes=512 --sequence_length=9", "sequence lengths of its own"),
        ("--recipe=bert_lamb --batch_sizes=512 --measure=1:2", "runs of one sequence length"),
        ("--recipe=bert_lamb --batch_sizes=512 --parameters=3e8 --multiply_adds=1e10",
         "--multiply_adds is one number, and the run has examples of 128, 512 tokens"),
        ("--recipe=bert_lamb_mixed --batch_sizes=512", "Printed batch sizes: 65536"),
        ("--parameters=1e6 --batch_sizes=256", "--parameters needs --multiply_adds"),
        ("--model=lenet5 --batch_sizes=256 --epochs=1", "Give --num_examples"),
        (f"--model=lenet6 {DENSE}", "no model of this name.*Nearest: lenet5"),
        (f"--model=lenet5 {DENSE}", "takes input_shape and num_classes"),
        (f"--model=nowhere:build {DENSE}", "can be imported, as module:function"),
        (f"--model=:build {DENSE}", "as module:function. Received: :build"),
        (f"--model=json:dumps {DENSE}", "can be imported, as module:function"),
        (f"--model=os:getcwd {DENSE}", "must return a keras.Model. Received: os:getcwd"),
        (f"--model=lstm_lm --model_options vocabulary_size=50 units=4 {DENSE}", "sequence_length"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_a_sentence(capsys, flags, words):
    assert plan.main(flags.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("plan: ") and captured.err.count("\n") == 1
    assert re.search(words, captured.err)


OWN_MODEL = """
import keras
def build(units=3):
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(units)])
"""


def test_where_the_reference_networks_are_not_installed(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(_model, "_checkout", lambda: str(tmp_path))
    assert plan.main(LENET_256.split()) == 2
    error = capsys.readouterr().err
    assert "Pass --train path/to/train.py of a checkout; or --multiply_adds" in error
    run(capsys, *LENET_256.split(), f"--train={ROOT / 'train.py'}")


def test_a_model_of_your_own_where_they_are_not(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(_model, "_checkout", lambda: str(tmp_path))
    (tmp_path / "plan_bare_model.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--model=plan_bare_model:build", *DENSE.split(), "--multiply_adds=15"]
    found, rows = rows_of(capsys, *flags)
    assert found["model"][0]["parameters"] == 18 and found["model"][0]["activations"] is None
    assert rows[10, 1]["operations_forward"] == 100 * 10 * 2 * 15
    assert rows[10, 1]["memory_bytes_estimate"] is None


def test_a_model_of_your_own(capsys, tmp_path, monkeypatch):
    (tmp_path / "plan_own_model.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    found, rows = rows_of(
        capsys, "--model=plan_own_model:build", "--num_examples=100", "--epochs=2",
        "--batch_sizes=10", "--optimizer=sgd", "--model_options", "units=7",
    )  # fmt: skip
    assert found["model"][0]["parameters"] == 42 and found["model"][0]["multiply_adds"] == 35
    assert rows[10, 1]["updates"] == 20 and rows[10, 1]["optimizer_bytes"] == 0
