"""The schedule that a recipe's keys stand for."""

import math

import pytest

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize(
    "schedule, share_of_peak",
    [
        ("polynomial", 1 / 11),
        ("cosine", (1 + math.cos(math.pi * 10 / 11)) / 2),
        ("piecewise", 0.01),
        ("constant", 1),
    ],
)
def test_every_schedule_of_a_recipe(schedule, share_of_peak):
    """Two epochs of 1437 examples are 11 updates of 256; the last one is number 10."""
    from tf_largebatch.recipes import Recipe
    from tf_largebatch.training import from_recipe

    recipe = Recipe(
        learning_rate=0.012, global_batch_size=256, epochs=2, warmup_epochs=0.5,
        schedule=schedule, decay_epochs=[1, 1.5],
    )  # fmt: skip
    rate = from_recipe.learning_rate_schedule(recipe, 1437)
    assert float(rate(10)) == pytest.approx(0.012 * share_of_peak, abs=1e-8)
    assert float(rate(1)) == pytest.approx(0.012 / 3)  # half an epoch of warmup is 3 updates
