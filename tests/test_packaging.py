"""What the wheel holds and asks for, and what `import tf_largebatch` brings along."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tf_largebatch"
OPTIONAL = "keras_hub numba optax sacrebleu sklearn tensorflow_datasets tensorflow_text".split()
# Where the name of an import and of the distribution that brings it differ.
DISTRIBUTIONS = {"absl": "absl-py", "google": "protobuf", "sklearn": "scikit-learn"}


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing is left in the checkout, or taken from it."""
    source = tmp_path_factory.mktemp("source")
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE"]:
        if path.is_file():
            shutil.copy(path, source)
    for folder in ("tf_largebatch", "models", "tests", "colab", "benchmarks"):
        if (ROOT / folder).is_dir():
            shutil.copytree(
                ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
    target = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target)]
    run("-m", "pip", "wheel", *options, str(source))
    (built,) = target.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return wheel.read(name).decode()


def field(wheel, name):
    return re.findall(rf"^{name}: (.+)$", metadata(wheel), re.MULTILINE)


def requirements(wheel):
    return [Requirement(line) for line in field(wheel, "Requires-Dist")]


def test_the_wheel_holds_the_package_with_its_recipes_and_nothing_else(wheel):
    wanted = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "recipes/*.toml")
        for path in PACKAGE.rglob(pattern)
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_version_is_the_one_in_the_package(wheel):
    (version,) = re.findall(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())
    assert field(wheel, "Version") == [version]
    assert field(wheel, "Name") == ["tf-largebatch"]


def test_licence_and_python_are_stated(wheel):
    assert field(wheel, "License-Expression") == ["Apache-2.0"]
    assert field(wheel, "Requires-Python") == [">=3.11"]
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_tensorflow_and_other_extras_are_no_hard_requirement(wheel):
    hard = {r.name for r in requirements(wheel) if r.marker is None}
    assert hard == {"keras", "numpy", "absl-py"}


def test_each_import_of_the_package_is_asked_for(wheel):
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"tf_largebatch"}
    asked = {canonicalize_name(r.name) for r in requirements(wheel)}
    missing = {n for n in outside if canonicalize_name(DISTRIBUTIONS.get(n, n)) not in asked}
    assert not missing, f"not in setup.py: {sorted(missing)}"


def test_no_set_of_pins_or_requirements_mixes_distributions_of_tensorflow(wheel):
    tensorflow = {"tensorflow", "tensorflow-cpu", "tensorflow-tpu"}
    pinned = {
        canonicalize_name(Requirement(line).name)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    dev = {r.name for r in requirements(wheel) if r.marker and r.marker.evaluate({"extra": "dev"})}
    assert pinned & tensorflow == {"tensorflow"}
    assert dev & tensorflow == {"tensorflow"}
    assert dev <= pinned, f"not pinned: {sorted(dev - pinned)}"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_import_brings_no_optional_extra(backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    script = (
        "import json, sys, keras\n"
        "before = set(sys.modules)\n"
        "import tf_largebatch\n"
        "print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))"
    )
    report = run("-c", script, KERAS_BACKEND=backend, PYTHONPATH=str(ROOT)).splitlines()[-1]
    before, added = ({name.partition(".")[0] for name in names} for names in json.loads(report))
    assert "tf_largebatch" in added
    # On the other backends TensorFlow is an extra, too. (Keras itself imports scikit-learn.)
    unwanted = {*OPTIONAL, "tensorflow", "jax"} - {backend}
    assert not unwanted & (added - before)
