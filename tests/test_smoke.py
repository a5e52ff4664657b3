"""Each recipe's small run, on data that is on every machine, learns: far above chance."""

import json
import pathlib
import subprocess
import sys

import pytest

from tf_largebatch.recipes import load, names

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What seed 0 must reach, held out. Chance is an accuracy of 0.1 on digits and 0.125 on crops; of
# the most frequent token among BERT's masked ones 0.046, among the language model's 0.069; a BLEU
# of 4.7 word for word; an F1 of 30 among a paragraph's facts, of 50 for the right kind of fact.
REACHED = {
    "alexnet_bn_lars": ("accuracy", 0.5),
    "alexnet_lars": ("accuracy", 0.45),
    "bert_lamb": ("masked_lm_accuracy", 0.1),
    "bert_lamb_mixed": ("masked_lm_accuracy", 0.09),
    "bert_lars": ("masked_lm_accuracy", 0.08),
    "bert_squad": ("f1", 60.0),
    "davidnet_lamb": ("accuracy", 0.75),
    "gnmt_lars": ("bleu", 40.0),
    "lenet_lamb": ("accuracy", 0.95),
    "lstm_lm_legw": ("accuracy", 0.17),
    "mnist_lstm_legw": ("accuracy", 0.85),
    "resnet50_lamb": ("accuracy", 0.5),
    "resnet50_lars": ("accuracy", 0.5),
}
IN_TURN = ("bert_lamb_mixed", "bert_squad")  # the second starts from the first


def small_run(name, *flags):
    """Runs it as a user does, and checks what it reached."""
    done = subprocess.run(
        [sys.executable, "train.py", f"--recipe={name}", "--smoke", "--progress=none", *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert result["status"] == "done"
    metric, threshold = REACHED[name]
    assert result[metric] >= threshold
    return result


def test_each_small_run_has_its_mark():
    assert {name for name in names() if load(name).smoke} == set(REACHED)


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REACHED if name not in IN_TURN])
def test_the_small_run_learns(name, tmp_path):
    small_run(name, f"--model_dir={tmp_path / 'run'}")


@pytest.mark.tensorflow
@pytest.mark.slow
def test_pretraining_in_two_phases_and_then_fine_tuning(tmp_path):
    pretrained = tmp_path / "pretrained"
    first = small_run("bert_lamb_mixed", f"--model_dir={pretrained}")
    assert set(first["phases"]) == {"1", "2"}
    for phase in first["phases"].values():
        assert phase["masked_lm_accuracy"] >= REACHED["bert_lamb_mixed"][1]
        assert phase["perplexity"] < 400  # 2,048 tokens; by their frequencies alone about 700
    flags = [f"--init_from={pretrained}", f"--model_dir={tmp_path / 'run'}"]
    small_run("bert_squad", *flags)
    assert (tmp_path / "run" / "vocabulary.txt").read_text() == (
        pretrained / "vocabulary.txt"
    ).read_text()


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
    with pytest.raises(ValueError, match="Recipe simclr_lars has no smoke run"):
        load("simclr_lars").smoke_run()
