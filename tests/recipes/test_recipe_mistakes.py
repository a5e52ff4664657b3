"""What a mistake in a recipe's file or in one row is told."""

import math

import pytest

from recipe_files import MINIMAL, write
from tf_largebatch.recipes import Recipe, load

OBSERVED = '[[published]]\nreference = "r"\ntitle = "t"\ncolumns = ["a", "b"]\nrows = [[1, 2]]\n'
MEASURED = '[[rows.measured]]\nseed = 1\nmetric = "m"\nvalue = 0.5\ncommand = "c"\n'


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("title", "titel", "unknown key 'titel'. Nearest: title"),
        ("[settings]", "[setings]", "unknown key 'setings'. Nearest: settings"),
        ('source = "S"', "", "source is missing"),
        ('source = "S"', "source = 3", "source must be a string. Received: source=3"),
        ("size = 8\n[set", "size = 9.5\n[set", "default_global_batch_size must be a whole number"),
        ("size = 8\n[set", 'size = "8"\n[set', "default_global_batch_size must be a whole number"),
        ("epochs = 2", "epoch = 2", r"\[settings\]: unknown key 'epoch'. Nearest: epochs"),
        ("epochs = 2", 'epochs = "2"', "number above 0. Received: epochs='2'. Write it without qu"),
        ("epochs = 2", "scaling = 'sqrt'", r"unknown key 'scaling'. It belongs in \[rule\]"),
        ("epochs = 2", "global_batch_size = 2", r"It belongs in \[\[rows\]\]"),
        ("epochs = 2", "not_in_source = ['epoch']", r"\[settings\]: unknown key 'epoch'"),
        ("scaling =", "scalling =", r"\[rule\]: unknown key 'scalling'. Nearest: scaling"),
        ('scaling = "sqrt"', "", r"\[rule\]: scaling is missing"),
        ('"sqrt"', '"root"', r"\[rule\]: scaling must be one of linear, sqrt, none"),
        ("base_global_batch_size = 8", "base_global_batch_size = 9", "of a row.*9. Rows: 8"),
        ("learning_rate = 0.1", "", r"\[rule\]: the 8 row must have a learning_rate"),
        ("[[rows]]\nglobal", "[[row]]\nglobal", "unknown key 'row'. Nearest: rows"),
        ("learning_rate =", "learning_rat =", r"\[\[rows\]\] number 1: unknown key 'lea"),
        ("learning_rate =", "lerning_rate =", "Nearest: .*learning_rate"),
        ("learning_rate = 0.1", "learning_rate = -0.1", r"\[\[rows\]\] number 1: learning_rate"),
        ("learning_rate = 0.1", "learning_rate = nan", "must be a finite number above 0.*nan"),
        ("global_batch_size = 8\nlear", "lear", r"\[\[rows\]\] number 1: global_batch_size is m"),
        ("= 0.5", "= 0.5\n[[rows]]\nglobal_batch_size = 8", "two rows have global_batch_size = 8"),
        ("= 0.5", "= 0.5\npublished = 3", "published must be a table"),
        ("= 0.5", "= 0.5\npublished = {top1 = [1]}", "published.top1 must be a number or a string"),
        ("= 0.5", "= 0.5\nprinted = {learning_rate = 1}", "printed.learning_rate must be a string"),
        ("= 0.5", "= 0.5\nnot_in_source = ['learning_rat']", "Nearest: learning_rate"),
        ("= 0.5", "= 0.5\n" + MEASURED.replace("seed", "sede"), "'sede'. Nearest: seed"),
        ("= 0.5", "= 0.5\n" + MEASURED.replace("seed = 1\n", ""), "measured.seed is missing"),
        ("= 0.5", "= 0.5\n" + OBSERVED.replace("rows", "row"), "'row'. Nearest: rows"),
        ("= 0.5", "= 0.5\n" + OBSERVED.replace("[1, 2]", "[1]"), "2 columns. Received: .1."),
        ("= 0.5", "= 0.5\n" + OBSERVED.replace('title = "t"\n', ""), "1: title is missing"),
        ("epochs = 2", "not_in_source = [['epochs']]", "not_in_source must be a string"),
        ("epochs = 2", "epochs = ", r"not TOML: .*line 6"),
        ("= 0.5", "= [0.5", r"not TOML: .*the end, line 13"),
        ("default_global_batch_size = 8", "default_global_batch_size = 0", "above 0"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path, old, new, words):
    assert MINIMAL.count(old) >= 1
    with pytest.raises(ValueError, match=f"(?s)own.toml: .*{words}"):
        load(write(tmp_path, MINIMAL.replace(old, new, 1)))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "own.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(ValueError, match=r"own\.toml: not UTF-8"):
        load(tmp_path / "own.toml")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"global_batch_size": 0}, "a whole number above 0. Received: global_batch_size=0"),
        ({"global_batch_size": 512.5}, "Received: global_batch_size=512.5. Nearest: 512, 513"),
        ({"global_batch_size": "512"}, "='512'. Write it without quotes"),
        ({"global_batch_size": True}, "Received: global_batch_size=True. The default is 256"),
        ({"global_batch_size": None}, "Received: global_batch_size=None"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": 10**400}, "learning_rate must be a finite number above 0"),
        ({"learning_rate": True}, "learning_rate must be a finite number above 0"),
        ({"epochs": -1}, "epochs must be a finite number above 0"),
        ({"total_updates": 0}, "total_updates must be a whole number above 0"),
        ({"epochs": 1, "total_updates": 2}, "give one of them. Received: epochs=1.0, total_upd"),
        ({"warmup_epochs": 1, "warmup_updates": 2}, "warmup_epochs and warmup_updates say the sam"),
        ({"epochs": 3, "warmup_epochs": 4}, "must not be longer than epochs.*=4, epochs=3"),
        ({"total_updates": 3, "warmup_updates": 4}, "must not be longer than total_updates"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number of at least 0"),
        ({"end_learning_rate": -1}, "end_learning_rate must be"),
        ({"momentum": 1}, r"momentum must be a finite number in \[0, 1\)"),
        ({"beta_1": 1.0}, r"beta_1 must be a finite number in \[0, 1\)"),
        ({"beta_2": -0.1}, r"beta_2 must be a finite number in \[0, 1\)"),
        ({"label_smoothing": 1}, "label_smoothing must be"),
        ({"decay_factor": 0}, r"decay_factor must be a finite number in \(0, 1\]"),
        ({"trust_ratio_clip": [2, 1]}, r"a pair \[low, high\].*Received: trust_ratio_clip=\[2, 1"),
        ({"weight_norm_clip": [1]}, "weight_norm_clip must be a pair"),
        ({"weight_norm_clip": [0, 1, 2]}, "weight_norm_clip must be a pair"),
        ({"weight_norm_clip": [0, "1"]}, "weight_norm_clip must be a pair"),
        ({"weight_norm_clip": [-1, 1]}, "weight_norm_clip must be a pair"),
        ({"optimizer": "lmab"}, "one of lamb, lars, .*Nearest: lamb"),
        ({"schedule": "step"}, "one of polynomial, .*The default is 'polynomial'"),
        ({"norm_ord": 1}, 'one of 1, 2, inf. Received: norm_ord=1. Write "1", with quotes'),
        ({"norm_ord": "3"}, "one of 1, 2, inf. Received: norm_ord='3'. Correct it"),
        ({"precision": "bfloat"}, "Nearest: .*bfloat16"),
        ({"nesterov": 1}, "nesterov must be true or false"),
        ({"resume": "true"}, "resume must be true or false.*without quotes"),
        ({"model": ""}, "model must be a string"),
        ({"exclude_from_weight_decay": "bias"}, r"a list of .*strings.*Write \['bias'\]"),
        ({"exclude_from_weight_decay": ["bias", 3]}, "a list of non-empty strings"),
        ({"decay_epochs": [30, 30]}, "decay_epochs must increase"),
        ({"decay_epochs": [0, 30]}, "decay_epochs must increase, from above 0"),
        ({"schedule": "piecewise"}, "Set decay_epochs"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"profile_updates": "5:5"}, "two whole numbers with 0 <= a < b"),
        ({"profile_updates": "-1:5"}, "two whole numbers with 0 <= a < b"),
        ({"profile_updates": "5"}, "two whole numbers with 0 <= a < b"),
        ({"steps_per_loop": 0}, "steps_per_loop must be a whole number above 0"),
    ],
)  # fmt: skip
def test_mistakes_in_a_row(values, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**values)
