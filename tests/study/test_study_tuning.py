"""Tuning: spaces, equal budgets, and the choice of the best."""

import pytest

from tf_largebatch.study import _rules, _tuning
from tf_largebatch.study._job import make_job

JOB = make_job(
    "lenet_digits", smoke=False, scaling=None, epochs=None, total_updates=None, model=None,
    data=None, flags=[],
)  # fmt: skip


def trials(optimizer="adamw", rate=0.001, batch=256, **changes):
    options = {"method": "grid", "count": 9, "seed": 1000, "space_name": "ruled"} | changes
    setting = _rules.ruled(JOB, optimizer, rate, batch)
    return _tuning.trials(JOB, optimizer, batch, setting, **options)


def points(cells):
    return [(c.setting.learning_rate, c.setting.warmup, c.setting.weight_decay) for c in cells]


def test_a_grid_tries_all_rates_first_from_the_nearest_to_the_farthest():
    found = points(trials())
    rates = [0.004 * f for f in (1, 0.5, 2, 0.25, 4, 0.125, 8)]
    assert [rate for rate, *_ in found] == pytest.approx(rates + rates[:2])
    assert [warmup for _, warmup, _ in found] == pytest.approx([3.2] * 7 + [1.6] * 2)
    assert {decay for *_, decay in found} == {0.01}


@pytest.mark.parametrize("method", ["grid", "random"])
@pytest.mark.parametrize("space_name", _tuning.SPACES)
@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "adam", "sgd", "lars+", "muon"])
def test_every_optimizer_gets_as_many_trials_none_of_them_twice(method, space_name, optimizer):
    cells = trials(optimizer, method=method, space_name=space_name, count=12)
    assert len(set(points(cells))) == 12
    assert len({cell.name for cell in cells}) == 12
    assert {(cell.group, cell.seed) for cell in cells} == {("trial", 1000)}
    lists = _tuning.space(JOB, optimizer, _rules.ruled(JOB, optimizer, 0.001, 256), space_name)
    assert {rate for rate, *_ in points(cells)} <= set(lists["learning_rate"])
    assert ("weight_decay" in lists) == (
        optimizer == "adamw" if space_name == "thesis" else optimizer != "adam"
    )


def test_random_trials_are_the_same_for_a_seed_and_others_for_another():
    first, again = trials(method="random"), trials(method="random")
    assert points(first) == points(again)
    assert points(first) != points(trials(method="random", seed=1001))


def test_the_space_of_the_thesis_is_that_of_figure_6_5():
    lists = _tuning.space(JOB, "adamw", _rules.ruled(JOB, "adamw", 0.001, 256), "thesis")
    assert len(lists["learning_rate"]) == 34
    assert min(lists["learning_rate"]) == 1e-4 and max(lists["learning_rate"]) == 50
    assert lists["learning_rate"][0] == pytest.approx(0.004)  # the nearest to the rule's
    assert sorted(lists["weight_decay"]) == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]


def test_more_trials_than_points_are_refused():
    with pytest.raises(ValueError, match="space of adam has 28 points. Received: --trials=29"):
        trials("adam", count=29)


def test_no_warmup_is_longer_than_half_of_the_run():
    assert max(warmup for _, warmup, _ in points(trials(batch=2048, count=21))) <= 30


def test_the_best_has_the_highest_value_then_the_lowest_loss():
    cells = trials(count=4)
    values = [("done", 0.9, 0.5), ("done", 0.95, 0.4), ("done", 0.95, 0.3), ("diverged", "", "")]
    results = {
        cell.name: {"status": status, "value": value, "loss": loss}
        for cell, (status, value, loss) in zip(cells, values, strict=True)
    }
    assert _tuning.best(cells, results) == cells[2]
    assert _tuning.best(cells[3:], results) is None
    assert _tuning.best(cells, {}) is None


def test_the_edge_is_the_lowest_and_the_highest_rate():
    cells = trials(count=7)
    edges = [_tuning.at_the_edge(cell, cells) for cell in cells]
    assert edges == [False, False, False, False, False, True, True]
    assert not _tuning.at_the_edge(cells[0], cells[:1])
