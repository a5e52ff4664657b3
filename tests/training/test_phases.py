"""Runs of several phases: one optimizer, each phase with its batch size, its data and its rate."""

import csv
import functools

import numpy as np
import pytest

from small_training import small_model
from tf_largebatch import LAMB
from tf_largebatch.data.source import ArraySource, Splits
from tf_largebatch.recipes import Recipe
from tf_largebatch.training import from_recipe
from tf_largebatch.training.callbacks import CSVLogger
from tf_largebatch.training.checkpoint import restore
from tf_largebatch.training.stage import Stage

pytestmark = pytest.mark.tensorflow
MIXED = {
    "global_batch_size": 24, "learning_rate": 0.02, "total_updates": 20, "warmup_updates": 3,
    "sequence_lengths": (128, 512), "phase_proportions": (3, 1), "phase_batch_sizes": (24, 12),
}  # fmt: skip
REWARMED = {**MIXED, "phase_learning_rates": (0.02, 0.01), "phase_warmup_updates": (3, 2)}


def splits(n, seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6)).astype("float32")
    source = ArraySource("gaussians", x, (x[:, 0] + x[:, 1] > 0).astype("int32"), num_classes=2)
    return Splits(source, source)


def stages(recipe):
    data = {128: splits(96, 0), 512: splits(40, 1)}
    found, epoch = [], 0
    for phase in from_recipe.phases(recipe, recipe.total_updates):
        found.append(Stage(recipe, phase, data[phase.sequence_length], start_epoch=epoch))
        epoch = found[-1].end_epoch
    return found


def run(recipe, folder=None, log=None):
    """The whole run, or what is left of it, as train.py does it."""
    model = small_model(LAMB(from_recipe.learning_rate_schedule(recipe, 96)), dropout=0.3)
    parts = stages(recipe)
    for stage in parts:
        stage.make_trainer(model)
    updates, _ = (folder and restore(folder, model)) or (0, None)
    for stage in parts:
        if updates < stage.phase.end_update:
            logger = [CSVLogger(str(log), append=updates > 0)] if log else []
            updates = stage.fit(updates, callbacks=logger, checkpoint_dir=folder, verbose=0)
            if updates < stage.phase.end_update:
                break
    return model


def values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


@functools.cache
def whole():
    """The values after a run that nothing stopped."""
    return values(run(Recipe(**REWARMED)))


def test_where_phases_begin_and_end():
    first, second = from_recipe.phases(Recipe(**MIXED), 20)
    assert first == (128, 24, 0, 15)
    assert second == (512, 12, 15, 20)
    (only,) = from_recipe.phases(Recipe(total_updates=7, global_batch_size=5), 7)
    assert only == (None, 5, 0, 7)


def test_the_rate_is_warmed_up_again_from_zero_or_runs_through():
    again = from_recipe.learning_rate_schedule(Recipe(**REWARMED), 96)
    through = from_recipe.learning_rate_schedule(Recipe(**MIXED), 96)
    # Phase 2 is 5 updates long, warms up for 2 of them and decays from its own start.
    expected = [0.0, 0.5, 1 - 2 / 5, 1 - 3 / 5, 1 - 4 / 5]
    found = [float(again(t)) / 0.01 for t in range(15, 20)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        [float(through(t)) for t in (15, 19)], [0.02 * 5 / 20, 0.02 / 20], rtol=1e-5
    )
    assert float(again(14)) == pytest.approx(0.02 * (1 - 14 / 15))


def test_one_optimizer_and_its_clock_through_both_phases(tmp_path):
    recipe = Recipe(**REWARMED)
    model = run(recipe, log=tmp_path / "log.csv")
    assert int(model.optimizer.iterations.numpy()) == 20
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    # 15 updates of 24 are 3.75 epochs of 96, 5 of 12 are 1.5 epochs of 40.
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert float(rows[3]["learning_rate"]) == pytest.approx(0.02 / 15)
    assert float(rows[5]["learning_rate"]) == pytest.approx(0.01 / 5)
    # Phase 2 goes on from phase 1's weights and moments: without it they are others.
    short = run(Recipe(**REWARMED, max_updates=15))
    pairs = zip(values(model), values(short), strict=True)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in pairs)


@pytest.mark.parametrize("stop", [7, 15, 17])
def test_a_run_stopped_on_either_side_of_the_switch_ends_the_same(stop, tmp_path):
    folder, log = str(tmp_path / "checkpoints"), tmp_path / "log.csv"
    run(Recipe(**REWARMED, max_updates=stop), folder, log)
    resumed = run(Recipe(**REWARMED), folder, log)
    for one, other in zip(whole(), values(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"phase_proportions": (1,)}, "phase_proportions must have one entry for each"),
        ({"phase_proportions": ()}, "must be told how long they are"),
        ({"phase_proportions": (1, 0)}, "phase_proportions must be above 0"),
        ({"phase_batch_sizes": (12, 24)}, "phase_batch_sizes must begin with global_batch_size"),
        ({"phase_learning_rates": (0.03, 0.01)}, "must begin with learning_rate"),
        ({"phase_warmup_updates": ()}, "belong together"),
        ({"sequence_lengths": (128, 0)}, "sequence_lengths must be whole numbers above 0"),
        ({"sequence_lengths": (128,)}, "one entry for each of several phases"),
    ],
)
def test_phases_that_contradict_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{**REWARMED, **changes})


def test_phases_too_short_and_runs_in_epochs_are_refused():
    short = Recipe(**{**REWARMED, "total_updates": 6})
    with pytest.raises(ValueError, match="Phase 2 must be longer than its warmup.*gives it 1"):
        from_recipe.phases(short, 6)
    with pytest.raises(ValueError, match="has no epochs of one length"):
        from_recipe.length(Recipe(**MIXED).replace(epochs=3, warmup_epochs=1), 96)


def test_options_are_python_values():
    recipe = Recipe(data_options=("num_classes=10", "cache=True", "name=1st"))
    expected = {"num_classes": 10, "cache": True, "name": "1st"}
    assert from_recipe.options(recipe, "data_options") == expected
    with pytest.raises(ValueError, match='data_options must each be "name=value"'):
        from_recipe.options(Recipe(data_options=("num_classes",)), "data_options")
