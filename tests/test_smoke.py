"""Each recipe's small run, on data that is on every machine, learns: far above chance."""

import json
import pathlib
import subprocess
import sys

import pytest

from tf_largebatch.recipes import load, names

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Held-out accuracy that seed 0 must reach: chance is 0.1 on digits, 0.125 on crops.
REACHED = {
    "alexnet_bn_lars": 0.5,
    "alexnet_lars": 0.45,
    "davidnet_lamb": 0.75,
    "lenet_lamb": 0.95,
    "mnist_lstm_legw": 0.85,
    "resnet50_lamb": 0.5,
    "resnet50_lars": 0.5,
}


def test_each_small_run_has_its_mark():
    assert {name for name in names() if load(name).smoke} == set(REACHED)


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_the_small_run_learns(name, tmp_path):
    command = [sys.executable, "train.py", f"--recipe={name}", "--smoke", "--progress=none"]
    done = subprocess.run(
        [*command, f"--model_dir={tmp_path / 'run'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert result["status"] == "done"
    assert result["accuracy"] >= REACHED[name]


def write(tmp_path, smoke):
    path = tmp_path / "own.toml"
    path.write_text(
        'title = "T"\nsource = "S"\ndefault_global_batch_size = 8\n'
        f"[[rows]]\nglobal_batch_size = 8\nlearning_rate = 0.1\nepochs = 2\n{smoke}"
    )
    return path


def test_a_small_run_is_the_default_row_with_other_keys(tmp_path):
    table = load(write(tmp_path, '[smoke]\ndata = "digits"\nglobal_batch_size = 16\n'))
    resolved = table.smoke_run()
    expected = table.row().recipe.replace(data="digits", global_batch_size=16)
    assert resolved.recipe == expected
    assert "chosen by this project" in resolved.how


@pytest.mark.parametrize(
    "smoke, words",
    [
        ("[smoke]\nlearning_rat = 1.0\n", r"\[smoke\]: unknown key 'learning_rat'. Nearest"),
        (
            "[smoke]\nlearning_rate = -1.0\n",
            r"\[smoke\]: learning_rate must be a finite number above 0",
        ),
        ("smoke = 3\n", "must be a table"),
    ],
)
def test_a_wrong_small_run_is_refused(tmp_path, smoke, words):
    text = write(tmp_path, "").read_text()
    path = tmp_path / "own.toml"
    path.write_text(smoke + text if smoke.startswith("smoke") else text + smoke)
    with pytest.raises(ValueError, match=words):
        load(path)


def test_a_table_without_one_says_so():
    with pytest.raises(ValueError, match="Recipe bert_lamb has no smoke run"):
        load("bert_lamb").smoke_run()
