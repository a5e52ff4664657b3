"""train.py as a process: signals and the command line."""

import signal
import subprocess
import sys

import pytest

from train_results import ROOT, SHORT

pytestmark = pytest.mark.tensorflow


def process(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-u", "train.py", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def test_a_signal_saves_and_says_how_to_go_on(tmp_path):
    flags = ["--progress=line", "--epochs=2000", f"--model_dir={tmp_path / 'r'}"]
    with process(*flags) as running:
        for line in running.stdout:
            if "Epoch 3/" in line:
                running.terminate()
                break
        rest = running.stdout.read()
        assert running.wait(60) == 143
    assert_stopped_by("SIGTERM", rest, tmp_path / "r")


def test_an_interruption_saves_and_says_how_to_go_on(run, tmp_path, monkeypatch):
    """In this process: Ctrl+C while the first epoch is judged."""
    from tf_largebatch.training.trainer import Trainer

    evaluate = Trainer.evaluate

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(Trainer, "evaluate", interrupted)
    code, out, _ = run(*SHORT, f"--model_dir={tmp_path / 'r'}")
    assert code == 130
    assert_stopped_by("SIGINT", out, tmp_path / "r")


def assert_stopped_by(name, out, folder):
    assert f"Stopped by {name} after update" in out
    assert f"--model_dir={folder} --resume" in out
    assert list((folder / "checkpoints").glob("update-*.npz"))
    assert not list(folder.rglob("unfinished-*"))


def test_bad_flag_on_the_command_line(tmp_path):
    with process("--epoch=3") as running:
        out = running.stdout.read()
        assert running.wait(60) == 2
    assert "train.py: Unknown command line flag 'epoch'" in out
    assert "Traceback" not in out
