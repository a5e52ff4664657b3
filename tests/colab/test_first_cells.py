"""The shared cells: badges from the one address, an installation that says what is missing."""

import doctest
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import types

import pytest

from colab import first_cells

URL = "https://github.com/someone/batches"
NAME = "01_quickstart.ipynb"


def test_all_files_are_as_the_address_in_setup_says(capsys):
    assert first_cells.main(["--check"]) == 0
    said = capsys.readouterr().out
    assert ("not yet" in said) == (not first_cells.project_url())


def test_the_examples_hold():
    assert doctest.testmod(first_cells) == (0, 1)


def test_the_address_is_that_of_setup():
    text = first_cells.SETUP.read_text(encoding="utf-8")
    assert re.findall(r'^PROJECT_URL = "(.*)"$', text, re.MULTILINE) == [first_cells.project_url()]


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}.git"])
def test_a_badge_opens_its_notebook(url):
    made = first_cells.badge(url, NAME)
    target = "https://colab.research.google.com/github/someone/batches/blob/main/colab/" + NAME
    assert made.startswith("[![Open in Colab](https://colab.research.google.com/assets/")
    assert made.endswith(f".svg)]({target})")


@pytest.mark.parametrize("url", ["https://example.org/a/b", "https://github.com/a", "git@a:b/c"])
def test_an_address_that_colab_cannot_open_is_refused(url):
    with pytest.raises(ValueError, match=r"from GitHub only. Received: '"):
        first_cells.badge(url, NAME)


def test_without_an_address_there_is_no_link():
    assert "no public address" in first_cells.badge("", NAME)
    assert "http" not in first_cells.badge("", NAME)


def test_an_address_reaches_every_notebook_and_the_list_of_them():
    made = {path.name: text for path, text in first_cells.files(URL).items()}
    names = [path.name for path in first_cells.notebooks()]
    assert sorted(made) == sorted([*names, "README.md"])
    for name in names:
        badge = first_cells.badge(URL, name)
        assert badge in made["README.md"]
        cells = json.loads(made[name])["cells"]
        assert badge in ["".join(cell["source"]) for cell in cells]
        assert f'PROJECT_URL = "{URL}"' in made[name].replace('\\"', '"')


def notebook_with(*cells):
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def cell(*tags, **more):
    return {"cell_type": "markdown", "id": "-".join(tags), "metadata": {"tags": tags}} | more


def test_outputs_are_dropped_and_the_rest_is_kept():
    ran = {
        "cell_type": "code", "id": "a", "source": ["1 + 1"], "execution_count": 3,
        "outputs": [{"output_type": "stream"}], "metadata": {"tags": ["x"], "execution": {}},
    }  # fmt: skip
    text = first_cells.renewed(notebook_with(cell("badge"), cell("install"), ran), NAME, "")
    kept = json.loads(text)["cells"][2]
    assert kept == ran | {"execution_count": None, "outputs": [], "metadata": {"tags": ["x"]}}


@pytest.mark.parametrize("cells", [[cell("badge")], [cell("badge")] * 2 + [cell("install")]])
def test_a_missing_or_doubled_cell_is_refused(cells):
    with pytest.raises(ValueError, match=f"{NAME} must have one cell tagged .*Received: [02]"):
        first_cells.renewed(notebook_with(*cells), NAME, "")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder outside of any checkout, as on Colab; the path of imports is put back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_installation_says_that_there_is_no_address(elsewhere):
    with pytest.raises(RuntimeError, match="no public address yet.*Open it in one, or set"):
        exec(first_cells.install("", NAME), {})


def package(folder):
    """A checkout, as far as the installation looks."""
    (folder / "tf_largebatch").mkdir(parents=True)
    (folder / "tf_largebatch" / "__init__.py").touch()


def test_the_installation_in_a_checkout_only_finds_it(elsewhere, monkeypatch):
    package(elsewhere)
    (elsewhere / "colab").mkdir()
    monkeypatch.chdir(elsewhere / "colab")
    monkeypatch.setattr(subprocess, "run", None)  # nothing is run
    exec(first_cells.install("", NAME), {})
    assert sys.path[0] == str(elsewhere)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(
    "name, extras, tensorflow",
    [
        ("02_scale_the_batch.ipynb", "kernels,plots", ["tensorflow==2.19.1"]),
        ("03_bert_two_phases.ipynb", "nlp,plots", ["tensorflow", "tensorflow-text"]),
    ],
)
def test_the_installation_clones_and_installs(elsewhere, monkeypatch, name, extras, tensorflow):
    """git runs, on a small repository; what pip is asked for is only looked at."""
    source = elsewhere / "source"
    package(source)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=source, check=True)
    run, asked = subprocess.run, []

    def recorded(command, **options):
        if command[0] == "git":
            return run(command, **options)
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", recorded)
    installed = types.SimpleNamespace(metadata={"Name": "tensorflow"}, version="2.19.1")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [installed])
    exec(first_cells.install(source.as_uri(), name), {})
    cloned = elsewhere / "large_batch_source"
    assert (cloned / "tf_largebatch" / "__init__.py").is_file()
    wanted = [f"{cloned}[{extras}]", *tensorflow]
    assert asked == [(sys.executable, "-m", "pip", "install", "--quiet", *wanted)]
    assert sys.path[0] == str(cloned)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_failed_installation_says_why(elsewhere):
    with pytest.raises(RuntimeError, match="(?s)git clone .*nowhere.* failed:.*fatal: .*nowhere"):
        exec(first_cells.install((elsewhere / "nowhere").as_uri(), NAME), {})
