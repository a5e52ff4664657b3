"""train.py as a user meets it: what it prints, leaves behind, refuses, and goes on with."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow
ROOT = pathlib.Path(__file__).resolve().parents[1]
SHORT = ["--progress=none", "--epochs=2", "--warmup_epochs=0.5"]


@pytest.fixture(scope="module")
def program():
    """The module, with its flags defined once."""
    import train

    if "dry_run" in train.FLAGS and "model" not in train.FLAGS:
        train.define_recipe_flags()
    return train


@pytest.fixture
def run(program, capsys):
    """Runs train.py in this process; returns its exit code, stdout and stderr."""

    def call(*arguments):
        program.FLAGS.unparse_flags()
        for name in program.FLAGS:
            program.FLAGS[name].unparse()
        code = program.main(program.FLAGS(["train.py", *map(str, arguments)]))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def result(out):
    line = out.strip().splitlines()[-1]
    assert line.startswith("RESULT ")
    return json.loads(line.removeprefix("RESULT "))


def weights(model_dir):
    return keras.models.load_model(pathlib.Path(model_dir) / "final.keras").get_weights()


def test_a_run_leaves_what_it_says(run, tmp_path):
    code, out, err = run(*SHORT, "--seed=3", f"--model_dir={tmp_path / 'r'}")
    assert (code, err) == (0, "")
    found = result(out)
    assert found["status"] == "done"
    assert found["updates"] == 11
    assert 0 <= found["accuracy"] <= 1
    assert found["best"] >= found["accuracy"] - 1e-6
    files = {p.name for p in (tmp_path / "r").iterdir()}
    assert files == {
        "config.json", "log.csv", "tensorboard", "checkpoints", "best.keras", "final.keras",
    }  # fmt: skip
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert (config["seed"], config["epochs"], config["optimizer"]) == (3, 2.0, "lamb")
    rows = list(csv.DictReader((tmp_path / "r" / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"loss", "accuracy", "learning_rate", "val_accuracy"} <= rows[0].keys()
    assert list((tmp_path / "r" / "tensorboard").rglob("events.*"))
    model = keras.models.load_model(tmp_path / "r" / "final.keras")
    assert model.optimizer.iterations == 11
    assert "Model lenet5: 61,706 parameters" in out
    assert "learning rate x sqrt(16), warmup epochs x 16" in out


def test_stopping_and_resuming_ends_with_the_same_weights(run, tmp_path):
    flags = [*SHORT, "--global_batch_size=128", "--checkpoint_every=5"]
    run(*flags, f"--model_dir={tmp_path / 'straight'}")
    halves = [*flags, f"--model_dir={tmp_path / 'halves'}"]
    code, out, _ = run(*halves, "--max_updates=8")
    assert (code, result(out)["status"], result(out)["updates"]) == (0, "stopped early", 8)
    code, out, _ = run(*halves, "--resume")
    assert "from update 8" in out
    assert (code, result(out)["status"], result(out)["updates"]) == (0, "done", 22)
    pairs = zip(weights(tmp_path / "straight"), weights(tmp_path / "halves"), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    logs = [(tmp_path / d / "log.csv").read_text() for d in ("straight", "halves")]
    rows = [list(csv.DictReader(text.splitlines())) for text in logs]
    assert [r["epoch"] for r in rows[1]] == ["0", "1"]
    for one, other in zip(*rows, strict=True):
        assert one["loss"] == other["loss"]
        assert one["accuracy"] == other["accuracy"]


def test_resume_on_an_empty_folder_starts_afresh(run, tmp_path):
    code, out, _ = run(*SHORT, f"--model_dir={tmp_path}", "--resume")
    assert (code, result(out)["status"]) == (0, "done")


def test_eval_only_and_init_from(run, tmp_path):
    first = tmp_path / "first"
    _, out, _ = run(*SHORT, f"--model_dir={first}")
    trained = result(out)
    code, out, _ = run(*SHORT, f"--model_dir={first}", "--eval_only")
    assert code == 0
    assert result(out)["accuracy"] == trained["accuracy"]
    for source in (first, first / "final.keras"):
        code, out, _ = run(*SHORT, f"--init_from={source}", "--eval_only")
        assert code == 0
        assert result(out)["accuracy"] == trained["accuracy"]
    code, out, _ = run(
        *SHORT, f"--init_from={first}", f"--model_dir={tmp_path / 'second'}", "--max_updates=1"
    )
    # The rate of update 0 is zero: what is evaluated is the warm start.
    assert result(out)["accuracy"] == trained["accuracy"]


def test_target_metric_stops(run, tmp_path):
    code, out, _ = run(*SHORT, "--target_metric=0.01", f"--model_dir={tmp_path / 'r'}")
    assert code == 0
    assert result(out)["status"] == "stopped early"
    assert result(out)["reached_target_at_epoch"] == 1


def test_max_updates_leaves_the_schedule(run, tmp_path):
    run(*SHORT, f"--model_dir={tmp_path / 'r'}", "--max_updates=6")
    row = next(csv.DictReader((tmp_path / "r" / "log.csv").read_text().splitlines()))
    # That of the epoch's last update, number 5: the decay still ends at update 11.
    assert float(row["learning_rate"]) == pytest.approx(0.012 * (1 - 5 / 11), rel=1e-5)


def test_profile(run, tmp_path):
    code, _, _ = run(*SHORT, "--profile_updates=2:4", f"--model_dir={tmp_path / 'r'}")
    assert code == 0
    assert list((tmp_path / "r" / "profile").rglob("*.xplane.pb"))


def test_dry_run_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("--dry_run")
    assert code == 0
    assert "61,706 parameters" in out
    assert "337 updates of 256 examples (60 epochs), warmup 18 updates" in out
    assert "peak rate 0.012" in out
    assert "conv1/bias" in out
    assert not list(tmp_path.iterdir())


def test_list_recipes(run):
    code, out, _ = run("--list_recipes")
    assert code == 0
    assert "bert_lamb" in out
    assert "lenet_digits" in out


@pytest.mark.parametrize(
    "optimizer", ["lamb", "lars", "nlamb", "nnlamb", "sgd", "adamw", "muon", "keras_lamb", "adam",
                  "adagrad"]
)  # fmt: skip
def test_every_optimizer_trains(run, tmp_path, optimizer):
    code, out, err = run(
        *SHORT, f"--optimizer={optimizer}", "--learning_rate=0.01", f"--model_dir={tmp_path / 'r'}"
    )
    assert (code, err) == (0, "")
    assert result(out)["optimizer"] == optimizer
    if optimizer != "lamb":
        assert f"Optimizer {optimizer} instead of lamb" in out


@pytest.mark.parametrize("schedule", ["polynomial", "cosine", "piecewise", "constant"])
def test_every_schedule_trains(run, tmp_path, schedule):
    code, _, _ = run(
        *SHORT, f"--schedule={schedule}", "--decay_epochs=1,1.5", f"--model_dir={tmp_path / 'r'}"
    )
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "r" / "log.csv").read_text().splitlines()))
    falls = {"polynomial": 1 / 11, "cosine": (1 + np.cos(np.pi * 10 / 11)) / 2}
    expected = {k: 0.012 * v for k, v in {**falls, "piecewise": 0.01, "constant": 1}.items()}
    assert float(rows[-1]["learning_rate"]) == pytest.approx(expected[schedule], abs=1e-8)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_every_precision_trains(run, tmp_path, precision):
    code, out, _ = run(*SHORT, f"--precision={precision}", f"--model_dir={tmp_path / 'r'}")
    assert code == 0
    assert result(out)["status"] == "done"
    model = keras.models.load_model(tmp_path / "r" / "final.keras")
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    assert {v.dtype for v in model.trainable_variables} == {dtype}


def test_flags_reach_the_optimizer(run, tmp_path):
    run(
        *SHORT, "--max_updates=1", f"--model_dir={tmp_path / 'r'}", "--beta_1=0.8", "--norm_ord=1",
        "--nobias_correction", "--trust_ratio_clip=0,5", "--clipnorm=1", "--weight_decay=0.5",
        "--exclude_from_weight_decay=fc1,logits", "--exclude_from_layer_adaptation=",
        "--label_smoothing=0.2",
    )  # fmt: skip
    model = keras.models.load_model(tmp_path / "r" / "final.keras")
    config = model.optimizer.get_config()
    assert config["beta_1"] == 0.8
    assert config["norm_ord"] == 1
    assert config["bias_correction"] is False
    assert config["trust_ratio_clip"] == (0.0, 5.0)
    assert config["clipnorm"] == 1.0
    assert config["weight_decay"] == 0.5
    assert config["exclude_from_weight_decay"] == ["fc1", "logits"]
    assert config["exclude_from_layer_adaptation"] == []
    assert model.loss.label_smoothing == 0.2


def test_recipes_for_models_yet_to_come_say_so(run):
    code, _, err = run("--recipe=simclr_lars", "--dry_run")
    assert code == 2
    assert "simclr_lars needs the model simclr_resnet50" in err
    assert "lenet_digits" in err


REFUSED = {
    "unknown recipe": (["--recipe=bertlamb"], "bert_lamb"),
    "unknown row": (["--recipe=mlperf_bert_lamb", "--global_batch_size=300"], "300"),
    "unknown model": (["--model=lenet6"], "lenet5"),
    "unknown data": (["--data=digit"], "digits"),
    "zero batch": (["--global_batch_size=0"], "global_batch_size"),
    "negative batch": (["--global_batch_size=-4"], "global_batch_size"),
    "zero rate": (["--learning_rate=0"], "learning_rate"),
    "negative rate": (["--learning_rate=-1"], "learning_rate"),
    "nan rate": (["--learning_rate=nan"], "learning_rate"),
    "zero epochs": (["--epochs=0"], "epochs"),
    "negative epochs": (["--epochs=-1"], "epochs"),
    "beta_1 of 1": (["--beta_1=1"], "beta_1"),
    "beta_2 below 0": (["--beta_2=-0.1"], "beta_2"),
    "momentum of 1": (["--optimizer=lars", "--momentum=1"], "momentum"),
    "batch larger than the data": (["--global_batch_size=2048"], "1437 examples"),
    "warmup longer than training": (["--epochs=1", "--warmup_epochs=2"], "warmup"),
    "key of another optimizer": (["--trust_coefficient=0.1"], "lamb takes no trust_coefficient"),
    "clip that is no pair": (["--trust_ratio_clip=1"], "trust_ratio_clip"),
    "clip that is no number": (["--trust_ratio_clip=a,b"], "'a'"),
    "pattern that is no regex": (["--exclude_from_weight_decay=("], "valid regular expressions"),
    "pattern but for case": (["--exclude_from_weight_decay=CONV1"], "matches no variable"),
    "no init_from": (["--init_from=nowhere.keras"], "nowhere.keras"),
    "eval_only of nothing": (["--eval_only"], "--eval_only"),
    "resume of nothing": (["--resume"], "--model_dir"),
    "percent for a share": (["--target_metric=97"], "0.975"),
    "profile beyond the run": (["--profile_updates=400:401"], "337 updates"),
    "profile range": (["--profile_updates=4"], "profile_updates"),
    "stray argument": (["now"], "Received: now"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(run, tmp_path, monkeypatch, case):
    """One clear sentence, exit code 2, nothing written."""
    arguments, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    code, _, err = run("--progress=none", *arguments)
    assert code == 2
    assert err.startswith("train.py: ")
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--optimizer=lamp"], "lamp"),
        (["--epochs=many"], "many"),
        (["--epoch=3"], "epochs"),
        (["--schedule=linear"], "polynomial"),
        (["--scaling=cubic"], "sqrt"),
        (["--precision=float8"], "mixed_bfloat16"),
    ],
)
def test_flag_values_that_absl_refuses(program, arguments, words):
    from absl import flags

    program.FLAGS.unparse_flags()
    with pytest.raises(flags.Error, match=words):
        program.FLAGS(["train.py", *arguments])


def test_model_dir_that_is_a_file(run, tmp_path):
    file = tmp_path / "f"
    file.write_text("mine")
    code, _, err = run(*SHORT, f"--model_dir={file}")
    assert code == 2
    assert "which is a file" in err
    assert file.read_text() == "mine"


def test_model_dir_that_cannot_be_written(run, tmp_path, monkeypatch):
    """Root may write anywhere, so that the refusal of the system itself is played."""
    from tf_largebatch.training import run_folder

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_folder.os, "makedirs", refuse)
    code, _, err = run(*SHORT, f"--model_dir={tmp_path / 'r'}")
    assert code == 2
    assert "can't be read or written" in err
    assert "Permission denied" in err


def test_model_dir_that_holds_another_run(run, tmp_path):
    folder = tmp_path / "r"
    run(*SHORT, "--max_updates=1", f"--model_dir={folder}")
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    code, _, err = run(*SHORT, f"--model_dir={folder}")
    assert code == 2
    assert "Pass --resume" in err
    code, _, err = run(*SHORT, "--seed=5", f"--model_dir={folder}", "--resume")
    assert code == 2
    assert "another configuration" in err
    assert "seed 0 -> 5" in err
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_foreign_folder_is_not_taken_for_a_run(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    code, _, err = run(*SHORT, f"--model_dir={tmp_path}", "--resume")
    assert code == 2
    assert "holds no run to resume" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_damaged_checkpoints(run, tmp_path):
    folder = tmp_path / "r"
    run(*SHORT, "--max_updates=4", "--checkpoint_every=2", f"--model_dir={folder}")
    newest = max((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="Damaged checkpoints are passed over"):
        code, out, _ = run(*SHORT, f"--model_dir={folder}", "--resume", "--max_updates=4")
    assert code == 0
    assert "from update 2" in out
    for path in (folder / "checkpoints").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    code, _, err = run(*SHORT, f"--model_dir={folder}", "--resume")
    assert code == 2
    assert "is damaged or cut short" in err


def test_misspelt_key_in_a_recipe_file(run, tmp_path):
    path = tmp_path / "mine.toml"
    source = ROOT / "tf_largebatch" / "recipes" / "lenet_digits.toml"
    path.write_text(source.read_text().replace("weight_decay =", "weigth_decay ="))
    code, _, err = run(f"--recipe={path}")
    assert code == 2
    assert "weigth_decay" in err
    assert "weight_decay" in err


def test_divergence_stops_with_a_message(run, tmp_path):
    code, _, err = run(
        *SHORT, "--optimizer=sgd", "--learning_rate=1e30", f"--model_dir={tmp_path / 'r'}"
    )
    assert code == 3
    assert "training diverged" in err
    assert "at update" in err
    assert not (tmp_path / "r" / "final.keras").exists()
    for path in (tmp_path / "r").rglob("*.npz"):
        with np.load(path) as file:
            assert all(np.isfinite(file[k]).all() for k in file.files if file[k].dtype.kind == "f")


def test_evaluation_that_is_not_finite_is_divergence(run, tmp_path):
    """One huge step: the loss before it is finite, and there is none after it."""
    code, out, err = run(
        "--progress=none", "--optimizer=sgd", "--learning_rate=1e38", "--warmup_epochs=0",
        "--global_batch_size=1437", "--epochs=2", "--max_updates=1",
        f"--model_dir={tmp_path / 'r'}",
    )  # fmt: skip
    assert code == 3
    assert "training diverged" in err
    assert "RESULT" not in out
    assert not (tmp_path / "r" / "final.keras").exists()
    assert not (tmp_path / "r" / "best.keras").exists()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_kill_around_the_checkpoint_at_an_epochs_end(run, tmp_path, monkeypatch, cut):
    """Logs, best and TensorBoard points are those of a run that wasn't killed."""
    from tf_largebatch.training import checkpoint

    flags = [*SHORT, "--global_batch_size=479", "--checkpoint_every=1", "--epochs=3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, out, _ = run(*flags, f"--model_dir={whole}")
    save = checkpoint.save

    def die(*arguments, update, **options):
        if update == 6 and cut == "before":
            raise SystemExit(9)
        save(*arguments, update=update, **options)
        if update == 6:
            raise SystemExit(9)

    monkeypatch.setattr(checkpoint, "save", die)
    with pytest.raises(SystemExit):
        run(*flags, f"--model_dir={killed}")
    monkeypatch.undo()
    (killed / "checkpoints" / "unfinished-1-update-00000007.npz").write_bytes(b"half")
    _, again, _ = run(*flags, f"--model_dir={killed}", "--resume")
    assert result(again)["best"] == result(out)["best"]
    assert result(again)["accuracy"] == result(out)["accuracy"]
    assert not list(killed.rglob("unfinished-*"))
    logs = [list(csv.reader((d / "log.csv").read_text().splitlines())) for d in (whole, killed)]
    speed = logs[0][0].index("examples_per_second")
    for one, other in zip(*logs, strict=True):
        assert one[:speed] + one[speed + 1 :] == other[:speed] + other[speed + 1 :]
    assert epoch_points(killed) == epoch_points(whole) == [0, 1, 2]


def epoch_points(folder):
    import tensorflow as tf

    steps = []
    for path in sorted((folder / "tensorboard" / "train").glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            steps += [event.step for value in event.summary.value if value.tag == "epoch_loss"]
    return steps


def test_resuming_a_finished_run_changes_nothing(run, tmp_path):
    flags = [*SHORT, "--global_batch_size=128", f"--model_dir={tmp_path / 'r'}"]
    _, first, _ = run(*flags)
    log = (tmp_path / "r" / "log.csv").read_text()
    _, again, _ = run(*flags, "--resume")
    assert result(again) == result(first)
    assert (tmp_path / "r" / "log.csv").read_text() == log


def test_resuming_after_the_target_stops_at_once(run, tmp_path):
    flags = [*SHORT, "--target_metric=0.05", f"--model_dir={tmp_path / 'r'}"]
    _, first, _ = run(*flags)
    _, again, _ = run(*flags, "--resume")
    assert result(again) == result(first)


def test_resuming_with_another_layout_says_so(run, tmp_path):
    flags = [*SHORT, f"--model_dir={tmp_path / 'r'}"]
    run(*flags, "--max_updates=4")
    _, out, _ = run(*flags, "--resume", "--micro_batch_size=64")
    assert "the same but for rounding" in out


def test_dry_run_of_keras_optimizers_shows_exclusions(run):
    _, out, _ = run("--dry_run", "--optimizer=adamw")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "/" in line}
    assert lines["conv1/kernel"][2] == "yes"
    assert lines["conv1/bias"][2] == "no"


def process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-u", "train.py", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(tmp_path, number, code):
    flags = ["--progress=line", "--epochs=2000", f"--model_dir={tmp_path / 'r'}"]
    with process(*flags) as running:
        for line in running.stdout:
            if "Epoch 3/" in line:
                os.kill(running.pid, number)
                break
        rest = running.stdout.read()
        assert running.wait(60) == code
    assert f"Stopped by {number.name} after update" in rest
    assert f"--model_dir={tmp_path / 'r'} --resume" in rest
    assert list((tmp_path / "r" / "checkpoints").glob("update-*.npz"))
    assert not list((tmp_path / "r").rglob("unfinished-*"))


def test_bad_flag_on_the_command_line(tmp_path):
    with process("--epoch=3") as running:
        out = running.stdout.read()
        assert running.wait(60) == 2
    assert "train.py: Unknown command line flag 'epoch'" in out
    assert "Traceback" not in out


def test_a_run_is_evaluated_on_the_devices_of_the_command(run, tmp_path):
    """Not on those that it was trained on, which may be several hosts."""
    code, out, _ = run(*SHORT, "--num_replicas=2", f"--model_dir={tmp_path / 'r'}")
    assert code == 0
    path = tmp_path / "r" / "config.json"
    config = json.loads(path.read_text())
    config |= {"workers": ["192.0.2.1:1", "192.0.2.2:1"], "strategy": "multi_worker"}
    path.write_text(json.dumps(config))
    code, evaluated, err = run("--eval_only", f"--model_dir={tmp_path / 'r'}")
    assert (code, err) == (0, "")
    assert result(evaluated)["loss"] == pytest.approx(result(out)["loss"], abs=1e-5)


def test_workers_must_share_a_folder(run, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    code, _, err = run("--workers=127.0.0.1:1001,127.0.0.1:1002", "--worker_index=0")
    assert code == 2
    assert "give --model_dir: one folder that all of them see" in err


def test_dry_run_prints_the_cost(run):
    code, out, _ = run("--dry_run", "--epochs=60")
    assert code == 0
    assert "Cost: 416,520 multiply-adds an example, forward; 246,824 bytes of weights" in out
    assert "reduces gradients 337 times, 246,824 bytes each, 0.08318 GB in all" in out
