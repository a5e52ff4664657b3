"""What train.py refuses, in one clear sentence and with nothing written."""

import pytest

from train_results import ROOT, SHORT

pytestmark = pytest.mark.tensorflow


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
def test_flag_values_that_absl_refuses(main, arguments, words):
    from absl import flags

    with pytest.raises(flags.Error, match=words):
        main(*arguments)


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


def test_model_dir_that_holds_another_run(run, finished):
    folder = finished.folder
    before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
    code, _, err = run(*SHORT, f"--model_dir={folder}")
    assert code == 2
    assert "Pass --resume" in err
    code, _, err = run(*SHORT, "--seed=5", f"--model_dir={folder}", "--resume")
    assert code == 2
    assert "another configuration" in err
    assert "seed 3 -> 5" in err
    assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def test_foreign_folder_is_not_taken_for_a_run(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    code, _, err = run(*SHORT, f"--model_dir={tmp_path}", "--resume")
    assert code == 2
    assert "holds no run to resume" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_misspelt_key_in_a_recipe_file(run, tmp_path):
    path = tmp_path / "mine.toml"
    source = ROOT / "tf_largebatch" / "recipes" / "lenet_digits.toml"
    path.write_text(source.read_text().replace("weight_decay =", "weigth_decay ="))
    code, _, err = run(f"--recipe={path}")
    assert code == 2
    assert "weigth_decay" in err
    assert "weight_decay" in err


def test_workers_must_share_a_folder(run, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    code, _, err = run("--workers=127.0.0.1:1001,127.0.0.1:1002", "--worker_index=0")
    assert code == 2
    assert "give --model_dir: one folder that all of them see" in err
