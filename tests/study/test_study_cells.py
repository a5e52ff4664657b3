"""The cells of a study: what each run is told, by which rule."""

import math

import pytest

from tf_largebatch import recipes
from tf_largebatch.study import _cells, _rules
from tf_largebatch.study._job import make_job


def job(recipe="lenet_digits", **changes):
    options = {
        "smoke": False, "scaling": None, "epochs": None, "total_updates": None, "model": None,
        "data": None, "flags": [],
    }  # fmt: skip
    return make_job(recipe, **options | changes)


def told(made, cell):
    """The flags of a cell as a dict; the last of a name counts, as for train.py."""
    found = {}
    for flag in _cells.command(made, cell):
        name, _, value = flag.removeprefix("--").partition("=")
        found[name] = value
    return found


def test_the_recipes_own_optimizer_gets_the_recipes_own_rows():
    made = job()
    for batch in (16, 128, 512):
        row = recipes.load("lenet_digits").row(batch).recipe
        [cell] = _cells.untuned(made, {"lamb": 0.003}, [batch], [4])
        flags = told(made, cell)
        assert float(flags["learning_rate"]) == pytest.approx(row.learning_rate, rel=1e-15)
        assert float(flags["warmup_epochs"]) == pytest.approx(row.warmup_epochs, rel=1e-15)
        assert (flags["optimizer"], flags["seed"], flags["epochs"]) == ("lamb", "4", "60")
        assert flags["global_batch_size"] == str(batch)
        assert float(flags["weight_decay"]) == 0.01


@pytest.mark.parametrize(
    "optimizer, rate, warmup, more",
    [
        ("adamw", 0.001 * math.sqrt(32), 6.4, {"weight_decay": "0.01"}),
        ("adam", 0.001 * math.sqrt(32), 6.4, {"weight_decay": "0.0"}),
        # Goyal et al.: the rate in proportion to the batch, 5 epochs of warmup at any.
        ("sgd", 0.001 * 32, 5, {"momentum": "0.9", "nesterov": "", "weight_decay": "0.0001"}),
        ("momentum", 0.001 * math.sqrt(32), 6.4, {"optimizer": "sgd", "nonesterov": ""}),
        ("momentum+", 0.001 * math.sqrt(32), 5, {"momentum": "0.9", "schedule": "piecewise"}),
        ("lamb+", 0.001 * math.sqrt(32), 5, {"decay_epochs": "20,40,53.3333"}),
        ("adamw_l2", 0.001 * math.sqrt(32), 6.4, {"optimizer": "adamw", "l2": "0.0001"}),
        ("adam_l2+", 0.001 * math.sqrt(32), 5, {"optimizer": "adam", "l2": "0.0001"}),
    ],
)
def test_each_baseline_has_its_own_rule(optimizer, rate, warmup, more):
    made = job()
    [cell] = _cells.untuned(made, {optimizer: 0.001}, [512], [0])
    flags = told(made, cell)
    assert float(flags["learning_rate"]) == pytest.approx(rate)
    assert float(flags["warmup_epochs"]) == pytest.approx(warmup)
    assert more.items() <= flags.items()
    assert ("schedule" in flags) == optimizer.endswith("+")
    assert f"{0.001:g} at batch 16" in _rules.words(made, optimizer, 0.001)


def test_runs_counted_in_updates_keep_the_examples_and_the_updates_of_the_warmup():
    made = job("bert_lamb", smoke=True)  # 450 updates of 64, 45 of them warmup
    for batch, updates in ((32, 900), (64, 450), (128, 225)):
        [cell] = _cells.untuned(made, {"lamb": 0.02}, [batch], [0])
        flags = told(made, cell)
        assert flags["total_updates"] == str(updates)
        assert flags["warmup_updates"] == "45"
        assert float(flags["learning_rate"]) == pytest.approx(0.02 * math.sqrt(batch / 64))
        assert "epochs" not in flags and "warmup_epochs" not in flags
        assert made.examples_seen(batch, updates) == 450 * 64
    with pytest.raises(ValueError, match="warmup of lamb at batch 1024 must be shorter.*45 of 28"):
        _cells.untuned(made, {"lamb": 0.02}, [1024], [0])
    [sgd] = _cells.untuned(made, {"sgd": 0.1}, [128], [0])
    assert told(made, sgd)["warmup_updates"] == "12"  # 5/90 of 225
    [plus] = _cells.untuned(made, {"adam+": 0.1}, [128], [0])
    with pytest.raises(ValueError, match=r"adam\+ falls at epochs.*total_updates=450"):
        _cells.command(made, plus)


def test_phases_with_settings_of_their_own_keep_their_proportions_and_their_batch():
    made = job("bert_lamb_mixed", smoke=True)
    [cell] = _cells.untuned(made, {"lamb": 0.04}, [64], [0])
    flags = told(made, cell)
    rates = [float(rate) for rate in flags["phase_learning_rates"].split(",")]
    assert rates == pytest.approx([0.04, 0.028])  # the recipe's are 0.02 and 0.014
    assert flags["phase_warmup_updates"] == "24,5"
    assert made.examples_seen(64, 216) == 216 * 64
    assert made.examples_seen(64, 240) == 216 * 64 + 24 * 32
    with pytest.raises(ValueError, match="follows no rule.*batch size 128.*its row has 64"):
        _cells.untuned(made, {"lamb": 0.02}, [128], [0])
    scaled = job("bert_lamb_mixed", smoke=True, scaling="sqrt")
    with pytest.raises(ValueError, match="phases of bert_lamb_mixed have batch sizes of their own"):
        _cells.untuned(scaled, {"lamb": 0.02}, [128], [0])
    [plain] = _cells.ablation(made, ["rewarmup"], {"lamb": 0.02}, [64], [0])
    assert told(made, plain)["phase_learning_rates"] == ""
    with pytest.raises(ValueError, match="rewarmup needs a recipe whose phases"):
        _cells.ablation(job(), ["rewarmup"], {"lamb": 0.003}, [16], [0])


def test_ablations_name_what_they_change_and_change_only_that():
    made = job()
    rates = {"lamb": 0.003, "adamw": 0.001, "sgd": 0.01}
    names = ["bias_correction", "norm", "nesterov", "legw"]
    cells = _cells.ablation(made, names, rates, [256], [0, 1])
    assert len({cell.name for cell in cells}) == len(cells)
    [plain] = _cells.untuned(made, {"lamb": 0.003}, [256], [0])
    before = told(made, plain)
    changes = {
        cell.variant: dict(set(told(made, cell).items()) - set(before.items()))
        for cell in cells
        if (cell.optimizer, cell.seed) == ("lamb", 0)
    }
    assert changes == {
        "bias_correction=false": {"nobias_correction": ""},
        "norm_ord=1": {"norm_ord": "1"},
        "norm_ord=inf": {"norm_ord": "inf"},
        "nlamb": {"optimizer": "nlamb"},
        "nnlamb": {"optimizer": "nnlamb"},
        "warmup=same_epochs": {"warmup_epochs": "0.2"},
        "warmup=none": {"warmup_epochs": "0.0"},
    }
    variants = {(cell.optimizer, cell.variant) for cell in cells if cell.optimizer != "lamb"}
    assert variants == {("adamw", "warmup=same_epochs"), ("adamw", "warmup=none")}
    with pytest.raises(ValueError, match="--ablate norm is compared with lamb.*adamw.*Add lamb"):
        _cells.ablation(made, ["norm"], {"adamw": 0.001}, [256], [0])
    with pytest.raises(ValueError, match="--ablate legw.*warmup follows LEGW. Received: .* sgd"):
        _cells.ablation(made, ["legw"], {"sgd": 0.001}, [256], [0])


def test_a_sweep_goes_from_an_eighth_to_eight_times_the_ruled_rate():
    cells = _cells.sweep(job(), {"adamw": 0.001}, [16], [0])
    rates = [cell.setting.learning_rate for cell in cells]
    assert rates == pytest.approx([0.001 * f for f in (0.125, 0.25, 0.5, 1, 2, 4, 8)])
    assert len({cell.name for cell in cells}) == 7


def test_the_rates_tried_for_sgd_are_around_that_of_goyal_at_the_base_batch():
    made = job("resnet50_lars")
    assert made.base.global_batch_size == 16384
    assert _rules.middle_rate(made, "sgd+") == pytest.approx(0.1 * 16384 / 256)
    assert _rules.middle_rate(job(), "momentum") == pytest.approx(0.1 * 16 / 256)
    assert _rules.middle_rate(made, "adamw") == 0.001


def test_the_words_say_where_sgd_departs_from_goyal():
    words = _rules.words(job(), "sgd", 0.02)
    assert "warmup 5 epochs at every batch, from 0 (Goyal et al. 2017: from the base rate)" in words
    assert "weight decay 0.0001 apart from the gradient; Nesterov momentum 0.9" in words
    assert "; momentum 0.9;" in _rules.words(job(), "momentum", 0.02)


def test_base_trials_are_as_many_for_every_optimizer_and_span_two_decades():
    made = job()
    for optimizer, middle in (("lamb", 0.003), ("nlamb", 0.003), ("adamw", 0.001), ("lars", 1.0)):
        cells = _cells.base_trials(made, optimizer, 5, 1000)
        rates = [cell.setting.learning_rate for cell in cells]
        assert rates == pytest.approx([middle * 10 ** (i / 2 - 1) for i in range(5)])
        assert {(cell.group, cell.global_batch_size, cell.seed) for cell in cells} == {
            ("base", 16, 1000)
        }


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"flags": ["--learning_rate=1"]}, "sets train.py's --learning_rate itself"),
        ({"flags": ["--noresume"]}, "sets train.py's --noresume itself"),
        ({"flags": ["jit"]}, "must be --name=value.*Received after --: jit"),
        ({"flags": ["--weight_decay=much"]}, "must be given a number. Received: 'much'"),
        ({"recipe": "bert_lamb", "smoke": True, "epochs": 3}, "several phases has no epochs"),
        ({"recipe": "nothing"}, "nothing"),
    ],
)
def test_what_cannot_be_a_job_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        job(**changes)


def test_a_weight_decay_for_all_is_that_of_every_optimizer():
    made = job(flags=["--weight_decay=0.5"])
    for cell in _cells.untuned(made, {"sgd": 0.1, "adam": 0.1, "lamb": 0.1}, [16], [0]):
        assert told(made, cell)["weight_decay"] == "0.5"
        assert cell.setting.weight_decay == 0.5


def test_an_unknown_optimizer_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Received: adamax\+. There are lamb, lars"):
        _rules.plain("adamax+")


def test_the_warmup_of_goyal_is_a_quarter_of_a_short_run():
    made = job(epochs=8)
    [cell] = _cells.untuned(made, {"sgd": 0.1}, [16], [0])
    assert cell.setting.warmup == 2
    with pytest.raises(ValueError, match="warmup of lamb at batch 1024.*12.8 of 8 epochs"):
        _cells.untuned(made, {"lamb": 0.1}, [1024], [0])
