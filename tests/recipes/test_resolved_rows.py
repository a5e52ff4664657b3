"""How a row comes about: printed, derived by the table's rule, of a file of one's own, or not."""

import math
import pathlib

import pytest

from recipe_files import MINIMAL, write
from tf_largebatch.recipes import load


def test_what_a_derived_row_says():
    resolved = load("lenet_digits").row(128)
    assert resolved.how == ("derived from the 16 row: learning rate x sqrt(8), warmup epochs x 8")
    assert resolved.derived
    assert resolved.recipe.learning_rate == pytest.approx(
        load("lenet_digits").row(16).recipe.learning_rate * math.sqrt(8)
    )
    bert = load("bert_lamb").row(3000)
    assert bert.recipe.total_updates == 170_667  # 1,000,000 x 512 / 3,000, to the nearest
    assert bert.recipe.warmup_updates == 3125
    assert bert.recipe.scaling == "sqrt"
    assert "total updates / 5.85938, warmup updates unchanged" in bert.how


def test_same_epochs_of_warmup_counted_in_updates(tmp_path):
    text = MINIMAL.replace("warmup_epochs = 0.5", "warmup_updates = 10\ntotal_updates = 100")
    text = text.replace('scaling = "sqrt"', 'scaling = "none"\nwarmup = "same_epochs"')
    recipe = load(write(tmp_path, text)).row(16).recipe
    assert (recipe.warmup_updates, recipe.total_updates, recipe.learning_rate) == (5, 50, 0.1)
    assert recipe.epochs is None  # the row's updates stand for the settings' epochs


def test_another_scaling_than_the_rules():
    table = load("resnet50_lamb")
    assert table.row(1024, scaling="linear").recipe.learning_rate == 0.01
    assert table.row(1024, scaling="none").recipe.learning_rate == 0.005
    assert table.row(1024, scaling="linear").derived
    assert not table.row(1024, scaling="sqrt").derived
    with pytest.raises(ValueError, match="follows no rule"):
        load("mlperf_bert_lamb").row(256, scaling="sqrt")
    with pytest.raises(ValueError, match="scaling must be one of linear, sqrt, none.*Nearest: sqr"):
        table.row(1024, scaling="sqr")


def test_no_row():
    with pytest.raises(ValueError, match="no rule to derive one.*5000.*Printed.* 256, 4608, 8192"):
        load("mlperf_bert_lamb").row(5000)
    with pytest.raises(ValueError, match="bert_lamb can't be carried to .*1048576.*3125.*Printed"):
        load("bert_lamb").row(1048576)
    for batch in 0, -8, 512.0, "512", True:
        with pytest.raises(ValueError, match="global_batch_size must be a whole number above 0"):
            load("bert_lamb").row(batch)


def test_unknown_recipe():
    with pytest.raises(ValueError, match=r"'bert_lmb'\. Nearest: bert_lamb.*names\(\) lists them"):
        load("bert_lmb")
    with pytest.raises(ValueError, match="No such recipe file.*nowhere.toml"):
        load("nowhere.toml")


@pytest.mark.parametrize("as_type", [str, pathlib.Path])
def test_own_file(tmp_path, as_type):
    table = load(as_type(write(tmp_path, MINIMAL)))
    assert table.name == table.row().recipe.recipe == "own"
    assert table.row(32).recipe == table.row(8).recipe.replace(
        global_batch_size=32, learning_rate=0.2, warmup_epochs=2.0
    )


def test_marks_and_measured(tmp_path):
    text = MINIMAL.replace("epochs = 2", 'epochs = 2\nnot_in_source = ["epochs", "momentum"]')
    text += 'not_in_source = ["warmup_epochs"]\n'
    text += '[[rows.measured]]\nseed = 1\nmetric = "top1"\nvalue = 0.5\ncommand = "train"\n'
    resolved = load(write(tmp_path, text)).row(8)
    assert resolved.not_in_source == ("warmup_epochs", "epochs", "momentum")
    assert resolved.missing == ("momentum",)
    assert load(write(tmp_path, text)).rows[0].measured[0]["value"] == 0.5
    # A length that the row prints is not under the settings' mark.
    row = load(write(tmp_path, text.replace("warmup_epochs = 0.5", "total_updates = 9"))).row(8)
    assert "epochs" not in row.not_in_source
