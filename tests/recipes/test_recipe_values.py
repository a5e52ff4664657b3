"""One row: frozen, normalised, replaced; and the floor that recipes live on."""

import ast
import dataclasses
import pathlib
import subprocess
import sys

import pytest

from tf_largebatch import recipes
from tf_largebatch.recipes import Recipe, load

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
