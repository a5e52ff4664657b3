"""What the papers print, copied here a second time, against the tables and their rules."""

import dataclasses
import math

import pytest

from tf_largebatch.recipes import load, names

BATCHES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
MODELS = "bert_large lenet5 lenet_caffe mnist_lstm alexnet alexnet_bn resnet50 davidnet gnmt"
MODELS = {*MODELS.split(), "bert_large_spans", "lstm_lm", "simclr_resnet50"}
DATA = "digits mnist cifar10 imagenet2012 wikipedia_books squad lm_folder wmt16"
DATA = {*DATA.split()}


def published(name, key):
    return [row.published[key] for row in load(name).rows]


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
