"""The study at work on a training script made up here: order, failures, signals, going on."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

from tf_largebatch.study import _command, _processes, _results

# As much of train.py as the study knows: flags, RESULT, log.csv, exit codes. The accuracy is best
# at a rate of 0.004. Told in a file "orders", beside it: which runs fail, diverge, or stop all.
SCRIPT = """
import json, math, os, pathlib, signal, sys, time
flags = dict(a.removeprefix("--").partition("=")[::2] for a in sys.argv[1:])
run = pathlib.Path(flags["model_dir"])
orders = json.loads((pathlib.Path(__file__).parent / "orders").read_text())
order = orders.get(run.name)
with open(pathlib.Path(__file__).parent / "calls", "a") as file:
    file.write(run.name + "\\n")
run.mkdir(exist_ok=True)
begun = (run / "checkpoints").exists()
(run / "config.json").write_text("{}")
(run / "checkpoints").mkdir(exist_ok=True)
(run / "best.keras").write_text("weights")
if order == "fail":
    print("train.py: something is wrong")
    sys.exit(2)
if order == "diverge":
    sys.exit(3)
if order == "stop" and not begun:
    def save(number, frame):
        (run / "checkpoints" / "saved").write_text("")
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    os.kill(os.getppid(), getattr(signal, orders["signal"]))
    while True:
        time.sleep(0.01)
accuracy = 0.99 - 0.1 * abs(math.log(float(flags["learning_rate"]) / 0.004))
batch, updates = int(flags["global_batch_size"]), 0
with open(run / "log.csv", "w") as file:
    file.write("epoch,loss,learning_rate,update,val_accuracy\\n")
    for epoch in range(2):
        updates = -(-(epoch + 1) * 100 // batch)
        file.write(f"{epoch},{2 - epoch},{flags['learning_rate']},{updates},{accuracy}\\n")
print("RESULT " + json.dumps({
    "status": "done", "metric": "accuracy", "accuracy": accuracy, "best": accuracy, "loss": 1.0,
    "updates": updates, "num_examples": 100, "resumed": begun,
    "threads": os.environ["TF_NUM_INTRAOP_THREADS"],
}))
"""
RATES = "--base_learning_rates=lamb=0.003,adamw=0.001"


@pytest.fixture
def study(tmp_path, monkeypatch, capsys):
    """Runs the study on the script; returns exit code, stdout, stderr."""
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setattr(_processes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(_command, "_report", lambda folder: print(f"reported {folder}"))
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments, orders=None):
        (tmp_path / "orders").write_text(json.dumps(orders or {}))
        (tmp_path / "calls").write_text("")
        given = ["--train", str(tmp_path / "script.py"), "--out", str(tmp_path / "out")]
        code = _command.main([*given, "--optimizers=lamb,adamw", *arguments])
        return code, *capsys.readouterr()

    call.calls = lambda: (tmp_path / "calls").read_text().split()
    call.folder = tmp_path / "out"
    return call


def rows(study, name="results"):
    with open(study.folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_leaves_its_row_its_curve_and_no_weights(study):
    code, out, err = study(RATES, "--batch_sizes=16,32", "--seeds=0,1", "--processes=2")
    assert (code, err) == (0, "")
    found = rows(study)
    assert len(found) == 8 and len({row["cell"] for row in found}) == 8
    assert {row["status"] for row in found} == {"done"}
    assert {(row["optimizer"], row["global_batch_size"], row["seed"]) for row in found} == {
        (optimizer, batch, seed)
        for optimizer in ("lamb", "adamw")
        for batch in ("16", "32")
        for seed in "01"
    }
    [row] = [row for row in found if row["cell"] == "untuned-lamb-b32-s1"]
    assert float(row["learning_rate"]) == pytest.approx(0.003 * 2**0.5)
    assert float(row["warmup_epochs"]) == pytest.approx(0.4)
    assert (row["updates"], row["epochs"]) == ("7", "60.0")
    assert 0.9 < float(row["value"]) < 0.99
    curve = [line for line in rows(study, "curves") if line["cell"] == row["cell"]]
    assert [line["update"] for line in curve] == ["4", "7"]
    assert [line["examples_seen"] for line in curve] == ["128", "224"]
    assert [line["epoch"] for line in curve] == ["1", "2"]
    assert curve[1]["val_metric"] == row["value"]
    left = {path.name for path in (study.folder / "runs" / row["cell"]).iterdir()}
    assert left == {"config.json", "log.csv"}
    info = json.loads((study.folder / "study.json").read_text())
    assert (info["metric"], info["num_examples"], info["seeds"]) == ("accuracy", 100, [0, 1])
    assert info["base_learning_rates"] == {"lamb": 0.003, "adamw": 0.001}
    assert "sqrt" in info["rules"]["adamw"]
    assert out.count(" in 0 s") == 8 and f"reported {study.folder}" in out
    result = _results.result_of((study.folder / "runs" / f"{row['cell']}.txt").read_text())
    assert int(result["threads"]) == max(1, _processes.cores() // 2)


def test_the_same_command_runs_nothing_twice_and_a_larger_one_only_what_is_new(study):
    study(RATES, "--batch_sizes=16")
    assert len(study.calls()) == 2
    before = rows(study)
    study(RATES, "--batch_sizes=16")
    assert study.calls() == []
    code, out, _ = study(RATES, "--batch_sizes=16,32", "--seeds=0,3", "--keep_models")
    assert code == 0
    assert len(study.calls()) == 6 and not set(study.calls()) & {row["cell"] for row in before}
    assert rows(study)[:2] == before
    assert (study.folder / "runs" / "untuned-lamb-b32-s3" / "best.keras").exists()
    assert "[8/8]" in out and "[3/8]" in out


def test_another_command_on_the_same_folder_is_refused(study):
    assert study(RATES, "--epochs=60")[0] == 0
    before = (study.folder / "study.json").read_text()
    for arguments, words in (
        ([RATES, "--epochs=30"], "another epochs. Received: 30.0, where it was 60.0"),
        ([RATES, "--epochs=60", "--batch_sizes=32"], "another batch_sizes. Received: 32, where"),
        ([RATES.replace("0.001", "0.002"), "--epochs=60"], "another base_learning_rates"),
        ([RATES, "--epochs=60", "--", "--jit"], "another train_flags. Received: --jit"),
        (["--base_learning_rates=lamb=0.003", "--epochs=60"], "another base_learning_rates"),
        ([RATES], "another epochs. Received: none, where it was 60.0"),
        ([RATES, "--epochs=60", "--data=digits"], "another data. Received: digits, where it was n"),
    ):
        code, _, err = study(*arguments)
        assert code == 2
        assert re.search(words, err), err
        assert study.calls() == [] and (study.folder / "study.json").read_text() == before


def test_a_searched_rate_cannot_be_replaced_later(study):
    assert study("--base_trials=3")[0] == 0
    code, _, err = study("--base_trials=3", "--base_learning_rates=adamw=0.001")  # found: 0.01
    assert code == 2
    assert "untuned-adamw-b16-s0" in err and "had another learning rate" in err


def test_base_rates_are_searched_for_with_the_tuning_seed_and_the_best_is_used(study):
    code, out, _ = study("--batch_sizes=64", "--base_trials=3", "--tuning_seed=77")
    assert code == 0
    found = rows(study)
    base = [row for row in found if row["group"] == "base"]
    assert len(base) == 6 and {(r["seed"], r["global_batch_size"]) for r in base} == {("77", "16")}
    # Tried were 0.0003, 0.003, 0.03 and 0.0001, 0.001, 0.01; the script likes 0.004 best.
    info = json.loads((study.folder / "study.json").read_text())
    assert info["base_learning_rates"] == pytest.approx({"lamb": 0.003, "adamw": 0.01})
    [lamb] = [r for r in found if r["cell"] == "untuned-lamb-b64-s0"]
    assert float(lamb["learning_rate"]) == pytest.approx(0.006)
    assert "The best rate of adamw at batch 16, 0.01, is the last of those tried" in out
    assert "best rate of lamb" not in out


def test_tuning_costs_all_the_same_and_the_winners_run_with_all_seeds(study):
    code, out, _ = study(
        RATES, "--batch_sizes=16,256", "--seeds=0,1", "--tune=grid", "--trials=3",
        "--tune_batch_sizes=256",
    )  # fmt: skip
    assert code == 0
    found = rows(study)
    trials = [row for row in found if row["group"] == "trial"]
    tuned = [row for row in found if row["group"] == "tuned"]
    assert len(trials) == 6 and {row["seed"] for row in trials} == {"1000"}
    assert len(tuned) == 4 and {row["seed"] for row in tuned} == {"0", "1"}
    for optimizer, best in (("lamb", 0.006), ("adamw", 0.004)):  # of 0.012 and 0.004, x 1, 1/2, 2
        rates = [float(r["learning_rate"]) for r in tuned if r["optimizer"] == optimizer]
        assert rates == pytest.approx([best, best])
    tuning = json.loads((study.folder / "study.json").read_text())["tuning"]
    assert (tuning["method"], tuning["trials"], tuning["batch_sizes"]) == ("grid", 3, [256])
    assert len(tuning["space"]["lamb"]["learning_rate at batch 256"]) == 7
    assert "[18/18]" in out


def test_a_diverged_run_is_recorded_and_not_run_again(study):
    orders = {"untuned-lamb-b16-s0": "diverge"}
    code, out, _ = study(RATES, orders=orders)
    assert code == 0
    [row] = [row for row in rows(study) if row["status"] == "diverged"]
    assert (row["cell"], row["value"]) == ("untuned-lamb-b16-s0", "")
    assert "untuned-lamb-b16-s0: diverged" in out
    study(RATES, orders=orders)
    assert study.calls() == []


def test_a_failed_run_is_told_and_tried_again(study):
    code, _, err = study(RATES, orders={"untuned-lamb-b16-s0": "fail"})
    assert code == 1
    assert "train.py: something is wrong" in err and "1 runs failed, untuned-lamb-b16-s0" in err
    assert {row["status"] for row in rows(study)} == {"done", "failed"}
    assert study(RATES)[0] == 0
    assert study.calls() == ["untuned-lamb-b16-s0"]
    assert {row["status"] for row in rows(study)} == {"done"}


def test_nothing_is_chosen_from_trials_that_failed(study):
    orders = {"base-adamw-b16-s1000-t1": "fail"}
    code, _, err = study("--base_trials=2", orders=orders)
    assert code == 1
    assert "1 trials failed, base-adamw-b16-s1000-t1 among them" in err
    assert not any("untuned" in name for name in study.calls())
    assert study("--base_trials=2")[0] == 0


def test_failures_in_a_row_end_the_study(study):
    failing = {
        f"untuned-{name}-b16-s{seed}": "fail" for name in ("lamb", "adamw") for seed in (0, 1)
    }
    code, _, err = study(RATES, "--seeds=0,1,2", orders=failing)
    assert code == 1
    assert "3 runs in a row have failed, with exit code 2" in err
    assert len(study.calls()) == 3


def test_base_rates_that_all_diverge_end_the_study(study):
    orders = {f"base-adamw-b16-s1000-t{i}": "diverge" for i in range(2)}
    code, _, err = study("--base_trials=2", "--base_learning_rates=lamb=0.003", orders=orders)
    assert code == 1
    assert "None of the 2 base rates of adamw trained to the end" in err


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_lets_the_runs_save_and_the_same_command_goes_on(study, name, code):
    stopping = "untuned-adamw-b16-s0"
    orders = {stopping: "stop", "signal": name}
    found, out, err = study(RATES, "--seeds=0,1", orders=orders)
    assert found == code
    assert f"stopped by {name}. The same command goes on" in err and "reported" not in out
    assert (study.folder / "runs" / stopping / "checkpoints" / "saved").exists()
    assert stopping not in {row["cell"] for row in rows(study)}
    assert study(RATES, "--seeds=0,1", orders=orders)[0] == 0
    assert "untuned-lamb-b16-s0" not in study.calls()
    output = (study.folder / "runs" / f"{stopping}.txt").read_text()
    assert _results.result_of(output)["resumed"] is True


def test_a_run_that_was_stopped_before_it_began_starts_afresh(study):
    folder = study.folder / "runs" / "untuned-lamb-b16-s0"
    assert study(RATES, orders={folder.name: "fail", "untuned-adamw-b16-s0": "fail"})[0] == 1
    (folder / "config.json").unlink()
    assert study(RATES)[0] == 0
    output = (study.folder / "runs" / "untuned-lamb-b16-s0.txt").read_text()
    assert _results.result_of(output)["resumed"] is False


def test_a_dry_run_writes_nothing_and_counts_everything(study):
    code, out, _ = study("--seeds=0,1", "--sweep=learning_rate", "--ablate=legw", "--dry_run")
    assert code == 0
    assert not study.folder.exists() and study.calls() == []
    # 2 x 5 base trials, 2 x 2 untuned, 2 x 2 without warmup, 2 x 7 of the sweep.
    assert "32 runs; 0 are finished." in out
    assert "isn't known before one of them has finished" in out
    assert "lamb: learning rate 0.003 at batch 16 x sqrt(batch / base batch)" in out
    study(RATES)
    _, out, _ = study(RATES, "--seeds=0,1", "--dry_run")
    assert "4 runs; 2 are finished." in out and re.search(r"They take about \d+ s", out)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--train=nowhere.py"], "The training script is missing. Received: nowhere.py"),
        (["--seeds=1,1000"], "--tuning_seed=1000, --seeds=1,1000. Choose another"),
        (["--base_learning_rates=sgd=0.1"], "must be of optimizers in the study. Received: sgd"),
        (["--ablate=depth"], "--ablate must be of bias_correction.*Received: depth"),
        (["--target=98"], "--target must be a fraction, at most 1. Received: 98"),
        (["--out="], "--out must name a folder"),
        (["--space=thesis"], "--space are of tuning.*without --tune"),
        (["--processes=0"], "--processes must be at least 1. Received: 0"),
        (["--batch_sizes=8192"], "warmup of lamb at batch 8192 must be shorter.*102.4 of 60"),
        (["--recipe=mlperf_bert_lamb", "--batch_sizes=512"], "Choose one: --scaling=sqrt"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_run(study, arguments, words):
    code, _, err = study(*arguments)
    assert code == 2
    assert re.search(words, err), err
    assert err.count("\n") == 1 and not study.folder.exists()


def test_a_folder_of_something_else_is_left_alone(study):
    study.folder.mkdir()
    (study.folder / "thesis.txt").write_text("")
    code, _, err = study(RATES)
    assert code == 2 and "holds thesis.txt and no study.json" in err
    assert [path.name for path in study.folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("flag", ["--batch_sizes=big", "--base_learning_rates=lamb=-1", "--tune=x"])
def test_flags_that_cannot_be_read_end_with_2(study, flag):
    with pytest.raises(SystemExit) as end:
        study(flag)
    assert end.value.code == 2


def test_a_second_study_in_the_same_folder_is_refused_while_the_first_is_at_work(study):
    pytest.importorskip("fcntl")
    assert study(RATES)[0] == 0
    with _processes.alone(study.folder / "study.lock"):
        code, _, err = study(RATES, "--seeds=0,1")
        assert code == 2 and "Another study is at work in this folder" in err
    assert study(RATES, "--seeds=0,1")[0] == 0


@pytest.mark.parametrize("name", ["results", "curves"])
def test_a_line_that_was_cut_is_named(study, name):
    assert study(RATES)[0] == 0
    path = study.folder / f"{name}.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:30]]))
    code, _, err = study(RATES)
    assert code == 2 and f"{name}.csv, line {len(lines)}, isn't a whole line" in err


def test_a_description_that_is_no_object_is_refused(study):
    study.folder.mkdir()
    (study.folder / "study.json").write_text("[]")
    code, _, err = study(RATES)
    assert code == 2 and "study.json can't be read: it must be an object" in err


def test_what_ended_raises_ends_the_other_processes(tmp_path):
    def task(name, code):
        return _processes.Task(name, [sys.executable, "-S", "-c", code], str(tmp_path / name))

    def ended(task, code, seconds):
        raise ValueError(f"{task.name} {code}")

    waiting = f"open({str(tmp_path / 'pid')!r}, 'w').write('x'); import time; time.sleep(60)"
    with pytest.raises(ValueError, match="quick 5"):
        _processes.run(
            [task("slow", waiting), task("quick", "raise SystemExit(5)")], processes=2, ended=ended
        )


def test_results_of_a_run_between_the_two_files_are_forgotten(tmp_path):
    results = _results.Results(tmp_path)
    row = dict.fromkeys(_results.COLUMNS, "") | {"cell": "a", "status": "done"}
    line = dict.fromkeys(_results.CURVE_COLUMNS, "") | {"cell": "a", "update": 3}
    results.add(row, [line])
    results.add(row | {"cell": "b"}, [line | {"cell": "b"}])
    text = Path(tmp_path / "results.csv").read_text().splitlines()
    Path(tmp_path / "results.csv").write_text("\n".join(text[:2]) + "\n")
    again = _results.Results(tmp_path)
    assert list(again.rows) == list(again.curves) == ["a"]
    assert again.is_finished("a") and not again.is_finished("b")
    assert again.curves["a"][0]["update"] == "3"
