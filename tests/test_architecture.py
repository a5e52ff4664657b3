"""The layout is the architecture: imports only go down, each fact has one place.

`violations(root)` reads a source tree and imports none of it. The first test applies it to the
project, the second one to small trees, each with one offence in it.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tf_largebatch"

# A file imports only from lower floors, and from its siblings inside its own package.
# Between them stands "", the package's __init__.py: the list of public names.
FLOORS = {
    "rules": 0,
    "scaling": 0,
    "recipes": 0,
    "optimizers": 1,
    "schedules": 1,
    "losses": 1,
    "layers": 1,
    "data": 1,
    "kernels": 1,
    "costs": 1,
    "plots": 1,
    "training": 2,
    "diagnostics": 2,
    "": 2.5,
    "study": 3,
    "plan": 3,
    "doctor": 3,
}
# On the lowest floor recipes stand above scaling.
ALSO_ALLOWED = {("recipes", "scaling")}

# The only places that may know TensorFlow; the rest also runs on Keras' other backends.
KNOWS_TENSORFLOW = (
    f"{PACKAGE}/optimizers/_tensorflow",
    f"{PACKAGE}/layers",
    f"{PACKAGE}/data",
    f"{PACKAGE}/training",
    f"{PACKAGE}/diagnostics",
    f"{PACKAGE}/kernels",
    f"{PACKAGE}/doctor",
    "train",
)

# What a file may import beside the standard library and the project, where that is restricted.
OUTSIDE = {
    f"{PACKAGE}/rules": {"keras"},
    f"{PACKAGE}/scaling": set(),
    f"{PACKAGE}/recipes": set(),
    f"{PACKAGE}/schedules": {"keras"},
    f"{PACKAGE}/costs": set(),
    f"{PACKAGE}/plots": {"matplotlib"},
    "models": {"keras", "keras_hub", "numpy"},
}
ONLY_INSIDE_FUNCTIONS = {
    "keras_hub",
    "matplotlib",
    "numba",
    "optax",
    "sacrebleu",
    "tensorflow_datasets",
    "tensorflow_text",
}
ORACLES = {"math", "numpy"}
UNSAFE = {"_pickle", "cloudpickle", "dill", "pickle", "shelve"}
NO_NAMES = {"common", "utils"}

TEXTS = {"", ".cfg", ".ipynb", ".md", ".py", ".sh", ".toml", ".txt"}
TEXT_FOLDERS = (PACKAGE, "models", "tests", "colab", "benchmarks", "docs", ".ci")
MACHINE_PATH = re.compile(r"(?<![\w.~)}-])/(?:home|mnt|root|tmp|Users|work)/")
PROJECT_ADDRESS = re.compile(r"(?:https?://|git@)[\w./:-]*tf[-_]largebatch", re.IGNORECASE)


class Import(NamedTuple):
    file: str  # "tf_largebatch/optimizers/lars.py"
    line: int
    name: str  # "tf_largebatch.rules.norm", "keras.ops"
    lazy: bool  # inside a function

    def __str__(self):
        return f"{self.file}:{self.line}: imports {self.name}"


def module_of(file):
    """The dotted name of a file: "tf_largebatch/data/__init__.py" is "tf_largebatch.data"."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def unit_of(module):
    """What has a floor: the first name below the package, "" for the package itself."""
    return module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def is_at(file, place):
    """Is `file` the module or inside the package `place` (both paths, `place` without .py)?"""
    return file == f"{place}.py" or file.startswith(f"{place}/")


def imports_in(file, text) -> Iterator[Import]:
    package = module_of(file).split(".")
    if not file.endswith("__init__.py"):
        package = package[:-1]

    def visit(node, lazy):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(file, node.lineno, f"{start}.{alias.name}", lazy)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            function = getattr(function, "id", function)
            name = getattr(node.args[0], "value", None)
            if function in ("import_module", "__import__") and isinstance(name, str):
                yield Import(file, node.lineno, name, lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(text, file), False)


def python_files(root, *places):
    """Paths from `root`, with "/", of the modules and packages in `places`."""
    for place in places:
        found = [root / f"{place}.py", *sorted((root / place).rglob("*.py"))]
        yield from (path.relative_to(root).as_posix() for path in found if path.is_file())


def imports(root, *places):
    for file in python_files(root, *places):
        yield from imports_in(file, (root / file).read_text(encoding="utf-8"))


def target_of(name, modules):
    """The module that an imported name lies in: the longest beginning that is a module."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def floor_violations(root):
    modules = {module_of(file) for file in python_files(root, PACKAGE)}
    siblings = {}
    for module in sorted(modules):
        if unit_of(module) not in FLOORS:
            yield f"{module}: say in FLOORS on which floor it lives"
    for i in imports(root, PACKAGE, "train"):
        if i.name.partition(".")[0] != PACKAGE:
            continue
        importer, target = module_of(i.file), target_of(i.name, modules)
        above, below = unit_of(importer), unit_of(target)
        private = [part for part in i.name.split(".") if re.match("_(?!_)", part)]
        if importer == "train":
            if private:
                yield f"{i}, which is private to {below}"
        elif above == below:
            siblings.setdefault(importer, set()).add(target)
        elif private:
            yield f"{i}, which is private to {below}"
        elif FLOORS.get(above, 0) <= FLOORS.get(below, 0) and (above, below) not in ALSO_ALLOWED:
            yield f"{i}, which is not on a lower floor"
    for module in sorted(siblings):
        reached, waiting = set(), {*siblings[module]}
        while waiting:
            reached |= waiting
            waiting = {t for m in waiting for t in siblings.get(m, ())} - reached
        if module in reached:
            yield f"{module}: imports itself, through {', '.join(sorted(siblings[module]))}"


def outside_violations(root):
    places = [path.stem for path in sorted(root.glob("*.py"))] + ["models", PACKAGE]
    for i in imports(root, *places):
        name = i.name.partition(".")[0]
        allowed = next((names for place, names in OUTSIDE.items() if is_at(i.file, place)), None)
        if name == "tensorflow" and not any(is_at(i.file, place) for place in KNOWS_TENSORFLOW):
            yield f"{i}, which this file must not know"
        elif name in UNSAFE:
            yield f"{i}, which runs what it reads"
        elif name in ONLY_INSIDE_FUNCTIONS and not i.lazy:
            yield f"{i} outside a function: it is an optional extra"
        elif is_at(i.file, "models") and name == PACKAGE:
            yield f"{i}: the models must not know the package"
        elif (
            allowed is not None
            and name not in allowed | {PACKAGE, i.file.partition("/")[0]}
            and name not in sys.stdlib_module_names
        ):
            yield f"{i}, but only {sorted(allowed)} is allowed here"
    for i in imports(root, "tests/oracles"):
        if i.name.partition(".")[0] not in ORACLES:
            yield f"{i}: an oracle shares nothing with what it judges, only {sorted(ORACLES)}"


def name_violations(root):
    for file in python_files(root, PACKAGE, "models", "tests", "benchmarks"):
        bad = NO_NAMES.intersection(file.removesuffix(".py").split("/"))
        if bad:
            yield f"{file}: {bad.pop()!r} says nothing; a helper lives with its lowest user"


def text_files(root):
    found = [*root.iterdir(), *(p for folder in TEXT_FOLDERS for p in (root / folder).rglob("*"))]
    return (p for p in found if p.is_file() and p.suffix in TEXTS and "__pycache__" not in p.parts)


def project_url(root):
    """The one constant for the project's address, and how often setup.py assigns it."""
    values = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse((root / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROJECT_URL"
    ]
    return values[0] if values else "", len(values)


def text_violations(root):
    url, assignments = project_url(root)
    if assignments != 1:
        yield f"setup.py: PROJECT_URL is assigned {assignments} times"
    for path in text_files(root):
        file = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                yield f"{file}:{number}: a path of one machine: {line.strip()[:80]}"
            address = PROJECT_ADDRESS.search(line) or (url and url in line)
            # A notebook must know where to fetch the rest; its cells are made from setup.py.
            if address and file != "setup.py" and not file.startswith("colab/"):
                yield f"{file}:{number}: the project's address belongs in setup.py alone"


def violations(root):
    checks = (floor_violations, outside_violations, name_violations, text_violations)
    return [violation for check in checks for violation in check(root)]


def test_the_project_keeps_to_its_architecture():
    found = violations(ROOT)
    assert not found, "\n".join(["", *found])


def test_the_check_sees_the_project():
    seen = {i.file for i in imports(ROOT, PACKAGE)}
    assert f"{PACKAGE}/rules.py" in seen
    assert f"{PACKAGE}/optimizers/lars.py" in seen
    assert {ROOT / "setup.py", ROOT / ".ci" / "run", ROOT / "Makefile"} <= set(text_files(ROOT))


SOUND = {
    "setup.py": 'PROJECT_URL = ""\n',
    "train.py": "import tensorflow\nfrom models import lenet\nfrom tf_largebatch import LAMB\n",
    "models/lenet.py": "import keras\ndef bert():\n    import keras_hub\n",
    "tests/oracles.py": "import math\nimport numpy as np\n",
    "README.md": "pip install tf-largebatch[cpu], then see runs/first\n",
    "tf_largebatch/__init__.py": "from tf_largebatch.optimizers import LAMB\n",
    "tf_largebatch/rules.py": "import math\nfrom keras import ops\n",
    "tf_largebatch/scaling.py": "import math\n",
    "tf_largebatch/recipes/__init__.py": "import tomllib\nfrom tf_largebatch import scaling\n",
    "tf_largebatch/optimizers/__init__.py": "from tf_largebatch.optimizers.lamb import LAMB\n",
    "tf_largebatch/optimizers/lamb.py": "from .. import rules\nfrom ._layerwise import Base\n",
    "tf_largebatch/optimizers/_layerwise.py": "from tf_largebatch.rules import norm\n",
    "tf_largebatch/optimizers/_tensorflow.py": "import tensorflow as tf\n",
    "tf_largebatch/data/__init__.py": "def load():\n    import tensorflow_datasets\n",
    "tf_largebatch/doctor.py": "from tf_largebatch import LAMB, rules\n",
}


def write_tree(root, files):
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text, encoding="utf-8")


def test_a_sound_tree_passes(tmp_path):
    write_tree(tmp_path, SOUND)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("tf_largebatch/rules.py", "from tf_largebatch.optimizers import lamb", "lower floor"),
        ("tf_largebatch/rules.py", "import tf_largebatch.scaling", "lower floor"),
        ("tf_largebatch/rules.py", "def f():\n    from . import schedules", "lower floor"),
        ("tf_largebatch/scaling.py", "from tf_largebatch import recipes", "lower floor"),
        ("tf_largebatch/data/text.py", "from ..optimizers import LAMB", "lower floor"),
        ("tf_largebatch/optimizers/lars.py", "from tf_largebatch import LAMB", "lower floor"),
        ("tf_largebatch/training/x.py", "from tf_largebatch import diagnostics", "lower floor"),
        ("tf_largebatch/__init__.py", "from tf_largebatch import doctor", "lower floor"),
        ("tf_largebatch/plan.py", "from tf_largebatch import doctor", "lower floor"),
        ("tf_largebatch/training/x.py", "from ..optimizers import _layerwise", "private"),
        ("tf_largebatch/training/x.py", "from ..optimizers._layerwise import Base", "private"),
        ("tf_largebatch/schedules.py", "from tf_largebatch.scaling import _check", "private"),
        ("train.py", "from tf_largebatch.optimizers._layerwise import Base", "private"),
        ("tf_largebatch/optimizers/_layerwise.py", "from . import lamb", "imports itself"),
        ("tf_largebatch/novelty.py", "import math", "say in FLOORS"),
        ("tf_largebatch/optimizers/lars.py", "import tensorflow as tf", "must not know"),
        ("tf_largebatch/rules.py", "def f():\n    from tensorflow import cond", "must not know"),
        ("tf_largebatch/plan.py", 'import_module("tensorflow")', "must not know"),
        ("tf_largebatch/plan.py", 'importlib.import_module("tensorflow")', "must not know"),
        ("tf_largebatch/datas.py", "import tensorflow", "must not know"),
        ("models/lenet.py", "import tensorflow as tf", "must not know"),
        ("tf_largebatch/rules.py", "import numpy as np", "only ['keras']"),
        ("tf_largebatch/recipes/x.py", "import yaml", "only []"),
        ("models/lenet.py", "import torch", "only ['keras', 'keras_hub', 'numpy']"),
        ("models/lenet.py", "from tf_largebatch import LAMB", "must not know"),
        ("models/bert.py", "import keras_hub", "outside a function"),
        ("tf_largebatch/data/x.py", "import tensorflow_datasets as tfds", "outside a function"),
        ("tf_largebatch/data/x.py", "import sacrebleu", "outside a function"),
        ("tf_largebatch/training/x.py", "import pickle", "runs what it reads"),
        ("tests/oracles.py", "import keras", "shares nothing"),
        ("tests/oracles.py", "from tf_largebatch import rules", "shares nothing"),
        ("tf_largebatch/data/utils.py", "", "says nothing"),
        ("tests/common/x.py", "", "says nothing"),
        ("README.md", "see https://" + "github.com/a/tf_largebatch", "in setup.py alone"),
        ("setup.py", 'PROJECT_URL = "a"\nPROJECT_URL = "b"', "2 times"),
        ("benchmarks/speed.py", "out = '" + "/tmp" + "/x'", "path of one machine"),
        ("colab/first.ipynb", "!ls " + "/home" + "/me", "path of one machine"),
    ],
)
def test_the_check_finds_an_offence(tmp_path, file, text, words):
    write_tree(tmp_path, SOUND | {file: text + "\n"})
    assert any(words in violation for violation in violations(tmp_path))


def test_a_set_address_stays_in_setup_py(tmp_path):
    write_tree(tmp_path, SOUND | {"setup.py": 'PROJECT_URL = "https://example.org/big"\n'})
    assert violations(tmp_path) == []
    write_tree(tmp_path, {"README.md": "see https://example.org/big/issues\n"})
    assert violations(tmp_path) == ["README.md:1: the project's address belongs in setup.py alone"]
    write_tree(tmp_path, {"README.md": "", "colab/a.ipynb": "https://example.org/big"})
    assert violations(tmp_path) == []
