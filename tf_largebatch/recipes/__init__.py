"""Published recipes as data: one TOML file a table, one row a batch size, and a loader.

>>> from tf_largebatch import recipes
>>> row = recipes.load("bert_lamb").row(4096)
>>> row.recipe.learning_rate, row.recipe.total_updates, row.how.split(";")[0]
(0.0017677669529663688, 125000, 'printed row')
>>> recipes.load("bert_lamb").row(64 * 1024).how.split(";")[0]
'derived from the 512 row: learning rate x sqrt(128), total updates / 128, warmup updates unchanged'
"""

from tf_largebatch.recipes._load import load, names
from tf_largebatch.recipes._recipe import Recipe, Resolved
from tf_largebatch.recipes._table import (
    Observation,
    Row,
    Rule,
    Table,
    format_batch_size,
)

__all__ = [
    "Observation",
    "Recipe",
    "Resolved",
    "Row",
    "Rule",
    "Table",
    "format_batch_size",
    "load",
    "names",
]
