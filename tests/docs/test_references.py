"""The references in docs/reference are what the code says now, and say all of it."""

import dataclasses
import re

import pytest

from docs import references
from tf_largebatch import recipes

# The flags are those of train.py, which needs TensorFlow.
pytestmark = [pytest.mark.tensorflow]


@pytest.mark.parametrize("name", references.PAGES)
def test_they_have_not_drifted(name):
    kept = (references.FOLDER / name).read_text(encoding="utf-8")
    assert kept == references.PAGES[name](), (
        "Run `python -m docs.references`, and look at the diff."
    )


def test_every_flag_of_train_py_is_there():
    page = references.flags_page()
    for field in dataclasses.fields(recipes.Recipe):
        assert page.count(f"| `--{field.name}` |") == 1, field.name
    for name in ("list_recipes", "dry_run", "progress", "smoke"):
        assert page.count(f"| `--{name}` |") == 1, name


def test_every_printed_rate_is_there():
    page = references.recipes_page()
    for name in recipes.names():
        (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        table = recipes.load(name)
        assert table.source in section
        for row in table.rows:
            assert f"| {row.recipe.global_batch_size} |" in section
            if row.recipe.learning_rate is not None:
                assert f"{row.recipe.learning_rate:.6g}" in section
