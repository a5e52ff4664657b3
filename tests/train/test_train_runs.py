"""train.py as a user meets it: what it prints, trains and leaves behind."""

import csv
import json

import keras
import pytest

from train_results import SHORT, result

pytestmark = pytest.mark.tensorflow


def test_a_run_leaves_what_it_says(finished):
    folder, out, err = finished
    assert err == ""
    found = result(out)
    assert found["status"] == "done"
    assert found["updates"] == 11
    assert 0 <= found["accuracy"] <= 1
    assert found["best"] >= found["accuracy"] - 1e-6
    files = {p.name for p in folder.iterdir()}
    assert files == {
        "config.json", "log.csv", "tensorboard", "checkpoints", "best.keras", "final.keras",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert (config["seed"], config["epochs"], config["optimizer"]) == (3, 2.0, "lamb")
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"loss", "accuracy", "learning_rate", "val_accuracy"} <= rows[0].keys()
    assert list((folder / "tensorboard").rglob("events.*"))
    model = keras.models.load_model(folder / "final.keras")
    assert model.optimizer.iterations == 11
    assert "Model lenet5: 61,706 parameters" in out
    assert "learning rate x sqrt(16), warmup epochs x 16" in out


def test_eval_only_and_init_from(run, finished, tmp_path):
    first, trained = finished.folder, result(finished.out)
    code, out, _ = run("--eval_only", f"--model_dir={first}")
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


def test_target_metric_stops_and_a_resumed_run_stops_at_once(run, tmp_path):
    flags = [*SHORT, "--target_metric=0.01", f"--model_dir={tmp_path / 'r'}"]
    code, out, _ = run(*flags)
    assert code == 0
    assert result(out)["status"] == "stopped early"
    assert result(out)["reached_target_at_epoch"] == 1
    _, again, _ = run(*flags, "--resume")
    assert result(again) == result(out)


def test_max_updates_leaves_the_schedule(run, tmp_path):
    run(*SHORT, f"--model_dir={tmp_path / 'r'}", "--max_updates=6")
    row = next(csv.DictReader((tmp_path / "r" / "log.csv").read_text().splitlines()))
    # That of the epoch's last update, number 5: the decay still ends at update 11.
    assert float(row["learning_rate"]) == pytest.approx(0.012 * (1 - 5 / 11), rel=1e-5)


def test_profile(run, tmp_path):
    code, _, _ = run(
        *SHORT, "--max_updates=5", "--profile_updates=2:4", f"--model_dir={tmp_path / 'r'}"
    )
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


def test_dry_run_of_keras_optimizers_shows_exclusions(run):
    _, out, _ = run("--dry_run", "--optimizer=adamw")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if "/" in line}
    assert lines["conv1/kernel"][2] == "yes"
    assert lines["conv1/bias"][2] == "no"


def test_dry_run_prints_the_cost(run):
    code, out, _ = run("--dry_run", "--epochs=60")
    assert code == 0
    assert "Cost: 416,520 multiply-adds an example, forward; 246,824 bytes of weights" in out
    assert "reduces gradients 337 times, 246,824 bytes each, 0.08318 GB in all" in out


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


def test_the_schedule_of_the_flags_trains(run, tmp_path):
    """What each of them makes of its flags: tests/training/test_from_recipe.py."""
    flags = ["--schedule=piecewise", "--decay_epochs=1,1.5", f"--model_dir={tmp_path / 'r'}"]
    code, _, _ = run(*SHORT, *flags)
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "r" / "log.csv").read_text().splitlines()))
    assert float(rows[-1]["learning_rate"]) == pytest.approx(0.012 * 0.01, abs=1e-8)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_every_precision_trains(run, tmp_path, precision):
    code, out, _ = run(
        "--progress=none", "--global_batch_size=719", "--epochs=1", "--warmup_epochs=0",
        f"--precision={precision}", f"--model_dir={tmp_path / 'r'}",
    )  # fmt: skip
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


def test_a_run_is_evaluated_on_the_devices_of_the_command(run, tmp_path):
    """Not on those that it was trained on, which may be several hosts."""
    code, out, _ = run(
        *SHORT, "--num_replicas=2", "--max_updates=2", f"--model_dir={tmp_path / 'r'}"
    )
    assert code == 0
    path = tmp_path / "r" / "config.json"
    config = json.loads(path.read_text())
    config |= {"workers": ["192.0.2.1:1", "192.0.2.2:1"], "strategy": "multi_worker"}
    path.write_text(json.dumps(config))
    code, evaluated, err = run("--eval_only", f"--model_dir={tmp_path / 'r'}")
    assert (code, err) == (0, "")
    assert result(evaluated)["loss"] == pytest.approx(result(out)["loss"], abs=1e-5)
