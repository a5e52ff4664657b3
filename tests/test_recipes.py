"""The published tables: what they print, what the rules derive, and what a mistake is told."""

import ast
import dataclasses
import math
import pathlib
import subprocess
import sys

import pytest

from tf_largebatch import recipes
from tf_largebatch.recipes import Recipe, load, names

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCHES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
MODELS = "bert_large lenet5 lenet_caffe mnist_lstm alexnet alexnet_bn resnet50 davidnet gnmt"
MODELS = {*MODELS.split(), "bert_large_spans", "lstm_lm", "simclr_resnet50"}
DATA = "digits mnist cifar10 imagenet2012 wikipedia_books squad lm_folder wmt16"
DATA = {*DATA.split()}

MINIMAL = """
title = "T"
source = "S"
default_global_batch_size = 8
[settings]
epochs = 2
[rule]
base_global_batch_size = 8
scaling = "sqrt"
[[rows]]
global_batch_size = 8
learning_rate = 0.1
warmup_epochs = 0.5
"""


def write(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def published(name, key):
    return [row.published[key] for row in load(name).rows]


# What the papers print, copied here a second time.


def test_the_files():
    assert names() == sorted(
        "alexnet_bn_lars alexnet_lars bert_lamb bert_lamb_mixed bert_lars bert_squad "
        "davidnet_lamb gnmt_lars lenet_digits lenet_lamb lstm_lm_legw mlperf_bert_lamb "
        "mlperf_resnet50_lars mnist_lstm_legw resnet50_lamb resnet50_lars simclr_lars".split()
    )


@pytest.mark.parametrize("name", names())
def test_every_row_resolves(name):
    table = load(name)
    for row in table.rows:
        resolved = table.row(row.recipe.global_batch_size)
        assert resolved.recipe == row.recipe
        assert resolved.how.startswith("printed row")
        assert not resolved.derived
        assert row.recipe.recipe == name
        assert row.recipe.model in MODELS
        assert row.recipe.data in DATA
        for key in resolved.missing:
            assert f"left open: {', '.join(resolved.missing)}" in resolved.how, key
        # What neither the source prints nor we chose is said to be open, never passed over.
        length = row.recipe.epochs or row.recipe.total_updates
        assert row.recipe.learning_rate or "learning_rate" in resolved.missing
        assert length or "epochs" in resolved.missing
    assert table.row().recipe.global_batch_size == table.default_global_batch_size
    assert str(table).startswith(f"{name}: ")


@pytest.mark.parametrize("name", [n for n in names() if load(n).rule])
def test_printed_rows_equal_the_rows_that_the_rule_derives(name):
    table = load(name)
    size = table.rule.base_global_batch_size
    base = next(row for row in table.rows if row.recipe.global_batch_size == size)
    alone = dataclasses.replace(table, rows=(base,))
    for row in table.rows:
        if row.recipe.optimizer != base.recipe.optimizer:
            continue  # the momentum baseline of resnet50_lars
        derived = alone.row(row.recipe.global_batch_size).recipe
        for key in "learning_rate warmup_epochs warmup_updates total_updates epochs".split():
            value = getattr(row.recipe, key)
            expected = value if value is None else pytest.approx(value, rel=1e-9)
            assert getattr(derived, key) == expected, key


def test_printed_rows_by_hand():
    """The same in plain arithmetic, without the table's rule."""
    for k, batch in ((batch // 512, batch) for batch in BATCHES):
        bert, resnet = (load(name).row(batch).recipe for name in ("bert_lamb", "resnet50_lamb"))
        assert bert.learning_rate == pytest.approx(6.25e-4 * math.sqrt(k), rel=1e-9)
        assert (bert.total_updates * k, bert.warmup_updates) == (1_000_000, 3125)
        assert resnet.learning_rate == pytest.approx(0.005 * math.sqrt(k), rel=1e-9)
        assert (resnet.epochs, resnet.warmup_epochs) == (90, 0.3125 * k)


def test_printed_formulas_are_the_values():
    checked = 0
    for row in (row for name in names() for row in load(name).rows):
        for key, text in row.printed.items():
            value = eval(text.replace("^", "**"), {"__builtins__": {}})
            if key == "warmup_ratio":
                assert value * row.recipe.total_updates == pytest.approx(row.recipe.warmup_updates)
                checked += 1
            elif key == "learning_rate":
                assert value == pytest.approx(row.recipe.learning_rate, rel=1e-9)
                checked += 1
    assert checked == 7 + 7 + 7 + 4 + 2 + 1


def test_published_results():
    assert published("bert_lamb", "f1") == [91.752, 91.761, 91.946, 91.137, 91.263, 91.345, 91.475]
    exact = [85.090, 85.260, 85.355, 84.172, 84.901, 84.816, 84.939]
    assert published("bert_lamb", "exact_match") == exact
    lars = [90.717, 90.369, 90.748, 90.537, 90.548, 89.589, "diverged"]
    assert published("bert_lars", "f1") == lars
    top1 = [0.7696, 0.7706, 0.7711, 0.7692, 0.7689, 0.7666, 0.7642]
    top5 = [0.9335, 0.9349, 0.9353, 0.9332, 0.9331, 0.9322, 0.9308]
    assert published("resnet50_lamb", "top1") == top1
    assert published("resnet50_lamb", "top5") == top5
    for level, top1 in {
        "no_augmentation": [0.730, 0.727, 0.727, 0.726, 0.700],
        "weak": [0.753, 0.753, 0.753, 0.754, 0.732],
        "heavy": [0.763, 0.766, 0.767, 0.764, 0.751],
    }.items():
        assert published("resnet50_lars", f"top1_{level}") == top1
    assert published("alexnet_lars", "top1") == [0.583, 0.584, 0.583]
    assert published("alexnet_bn_lars", "top1") == [0.602, 0.604, 0.604, 0.585]
    assert published("gnmt_lars", "samples_per_second") == [997.8, 3637]
    assert published("lstm_lm_legw", "perplexity") == [82.7]
    assert published("bert_squad", "f1") + published("bert_squad", "exact_match") == [90.9, 84.1]
    adamw = next(o for o in load("bert_lamb").published if o.reference == "Table 6.9")
    f1 = ["diverged"] * 3 + [86.034, 88.540, "diverged", 85.231, 88.110, 85.653]
    assert [row[-1] for row in adamw.rows] == f1


def test_mlperf_rows():
    resnet = {  # batch: epochs, updates, rate, warmup epochs, momentum, weight decay
        1632: (35.0, 27476, 7.4, 2, 0.9, 5e-5),
        4096: (40.0, 12511, 10, 5, 0.9, 2e-4),
        8192: (42.0, 6568, 17, 5, 0.9, 2e-4),
        32768: (56.0, 2189, 21.2, 16, 0.94, 2.5e-5),
        65536: (84.5, 1652, 24.699, 31, 0.9518, 1e-4),
    }
    assert load("mlperf_resnet50_lars").batch_sizes == tuple(resnet)
    for row in load("mlperf_resnet50_lars").rows:
        r = row.recipe
        epochs, updates, rate, warmup, momentum, decay = resnet[r.global_batch_size]
        assert (r.epochs, row.published["updates"]) == (epochs, updates)
        assert epochs * 1281167 / r.global_batch_size == pytest.approx(updates, abs=0.6)
        assert (r.learning_rate, r.warmup_epochs, r.weight_decay) == (rate, warmup, decay)
        assert r.momentum == pytest.approx(momentum, abs=1e-5)
        assert (r.power, r.end_learning_rate, r.epsilon) == (2, 1e-4, 1e-7)
        assert (r.label_smoothing, r.target_metric, r.decay_from) == (0.1, 0.759, "warmup_end")
        assert r.exclude_from_weight_decay == ("batch_normalization", "bias", "bn")
    bert = {  # batch: million samples, updates, rate, beta_1, beta_2
        256: (2.55, 9972, 3.5e-4, 0.9, 0.999),
        4608: (2.79, 606, 3.5e-3, 0.62, 0.9),
        8192: (4.19, 512, 2.88e-3, 0.88, 0.88),
        16384: (5.50, 336, 3.3e-3, 0.75, 0.9),
    }
    assert load("mlperf_bert_lamb").batch_sizes == tuple(bert)
    for row in load("mlperf_bert_lamb").rows:
        r = row.recipe
        samples, updates, rate, beta_1, beta_2 = bert[r.global_batch_size]
        assert row.published["updates"] == updates < r.total_updates
        assert row.published["samples"] == pytest.approx(samples * 1e6, abs=6e3)
        assert row.published["samples"] / r.global_batch_size == pytest.approx(updates, abs=0.6)
        assert r.learning_rate == pytest.approx(rate, rel=2e-3)
        assert (r.beta_1, r.beta_2) == (beta_1, beta_2)


def test_linear_rules():
    for batch in 256, 512, 1000, 8192:
        recipe = load("simclr_lars").row(batch).recipe
        assert recipe.learning_rate == pytest.approx(0.3 * batch / 256, rel=1e-9)
        assert (recipe.warmup_epochs, recipe.weight_decay) == (10, 1e-6)
    for batch in 1024, 8192, 65536:
        recipe = load("resnet50_lars").row(batch).recipe
        assert recipe.learning_rate == pytest.approx(0.2 * batch / 256, rel=1e-9)
        assert recipe.warmup_epochs == 5
    how = load("resnet50_lars").row(1024).how
    assert "from the 16K row: learning rate x 0.0625, warmup epochs unchanged" in how
    assert load("resnet50_lars").row(256).recipe.optimizer == "sgd"
    assert load("resnet50_lars").row(256).recipe.trust_coefficient is None


def test_mixed_batch_phases():
    table = load("bert_lamb_mixed")
    recipe = table.row().recipe
    assert recipe.sequence_lengths == (128, 512)
    assert recipe.phase_batch_sizes == (65536, 32768)
    assert sum(recipe.phase_proportions) == recipe.total_updates == 8599
    assert {"phase_learning_rates", "phase_warmup_updates"} <= set(table.row().not_in_source)
    assert table.rows[0].published["f1"] == 90.584


# How a row comes about.


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


# Files of one's own, and the mistakes in them.


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


# One row.


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


def test_a_row_is_frozen_and_normalised():
    row = Recipe(learning_rate=1, decay_epochs=[30, 60], trust_ratio_clip=[0, 50])
    assert isinstance(row.learning_rate, float)
    assert (row.decay_epochs, row.trust_ratio_clip) == ((30.0, 60.0), (0.0, 50.0))
    assert hash(row) == hash(row.replace())
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.learning_rate = 2.0
    table = load("bert_lamb")
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.rule.scaling = "linear"
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.rows = ()
    with pytest.raises(TypeError):
        table.rows[0].published["f1"] = 100


def test_replace():
    row = Recipe(epochs=90, warmup_epochs=5)
    assert row.replace(total_updates=7).epochs is None
    assert row.replace(warmup_updates=7).warmup_epochs is None
    assert row.replace(total_updates=None).epochs == 90
    with pytest.raises(ValueError, match="'learning_rat' is no recipe key. Nearest: learning_rate"):
        row.replace(learning_rat=1)
    with pytest.raises(ValueError, match="give one of them"):
        row.replace(epochs=1, total_updates=7)


def test_every_key_explains_itself():
    for field in dataclasses.fields(Recipe):
        assert field.metadata["help"].endswith("."), field.name
        assert field.default is not dataclasses.MISSING, field.name
        if "choices" in field.metadata and field.default is not None:
            assert field.default in field.metadata["choices"]


# The floor: the standard library and `scaling`, which imports only `math`.


def test_imports():
    for path in sorted(pathlib.Path(recipes.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) else []
            for module in imported:
                own = (
                    module.startswith("tf_largebatch.recipes") or module == "tf_largebatch.scaling"
                )
                assert own or module.split(".")[0] in sys.stdlib_module_names, (path.name, module)


def test_loading_needs_neither_keras_nor_tensorflow():
    program = f"""
import sys, types
package = types.ModuleType("tf_largebatch")  # in place of __init__.py, which imports everything
package.__path__ = [{str(ROOT / "tf_largebatch")!r}]
sys.modules["tf_largebatch"] = package
from tf_largebatch import recipes
print(recipes.load("bert_lamb").row(32768).recipe.learning_rate)
print([name for name in ("keras", "tensorflow", "numpy") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["0.005", "[]"]
