"""The notebooks: their form, and that each runs from its first to its last cell."""

import ast
import pathlib

import pytest

nbformat = pytest.importorskip("nbformat")

COLAB = pathlib.Path(__file__).resolve().parents[2] / "colab"
NOTEBOOKS = sorted(path.name for path in COLAB.glob("*.ipynb"))
TAGS = {"badge", "install", "parameters", "tpu", "not-run-here", "skip-execution"}

# What stands for the parameters, so that a run is short; and how many figures it shows.
SMALL = {
    "01_quickstart.ipynb": ({"EPOCHS": {"digits": 3}}, 1),
    "02_scale_the_batch.ipynb": (
        {
            "BATCH_SIZES": [32, 64], "BASE_RATES": {"lamb": 0.003}, "SEEDS": [0], "EPOCHS": 2,
            "PROCESSES": 1,
        },
        1,
    ),
    "03_bert_two_phases.ipynb": (
        {
            "DATA": "topics", "LENGTHS": [32, 64], "BATCH_SIZES": [8, 4], "UPDATES": [6, 4],
            "WARMUP_UPDATES": [2, 1],
        },
        1,
    ),
    "04_many_devices.ipynb": ({"REPLICAS": 2, "GLOBAL_BATCH_SIZE": 16, "UPDATES": 4}, 0),
    "05_diagnostics.ipynb": (
        {
            "BATCH_SIZE": 64, "MICRO_BATCH_SIZE": 16, "UPDATES": 24,
            "LIPSCHITZ_BATCH_SIZES": [64], "LIPSCHITZ_UPDATES": 8,
        },
        3,
    ),
}  # fmt: skip
SLOW = set(SMALL) - {"01_quickstart.ipynb"}  # 22 to 45 seconds on a busy core


def read(name):
    return nbformat.read(COLAB / name, as_version=4)


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in tags(cell)]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_each_notebook_has_its_small_run():
    assert list(SMALL) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_form(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    assert notebook.cells[0].source.startswith("# ")
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        ast.parse(cell.source)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_tags(name):
    notebook = read(name)
    assert set().union(*map(tags, notebook.cells)) <= TAGS
    badge, install, parameters = (
        tagged(notebook, tag) for tag in ("badge", "install", "parameters")
    )
    assert [cell.cell_type for cell in badge + install + parameters] == ["markdown", "code", "code"]
    order = [notebook.cells.index(cell) for cell in badge + install + parameters]
    assert order == sorted(order)
    assert code(notebook)[:2] == install + parameters


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_only_cells_for_a_tpu_are_not_run_and_they_say_so(name):
    notebook = read(name)
    left_out = [cell.id for cell in tagged(notebook, "skip-execution")]
    assert left_out == [cell.id for cell in tagged(notebook, "tpu")]
    assert bool(left_out) == (name == "04_many_devices.ipynb")
    for cell in code(notebook):
        # In its own words: what needs a TPU carries the tag, and nothing else does.
        assert ("tpu" in tags(cell)) == (cell.source.startswith("if ON_TPU:"))
        assert ("tpu" in tags(cell)) == ("not-run-here" in tags(cell))
    if left_out:
        (heading,) = [c for c in tagged(notebook, "not-run-here") if c.cell_type == "markdown"]
        assert "not run here" in heading.source.partition("\n")[0]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_small_run_sets_parameters_that_there_are(name):
    (cell,) = tagged(read(name), "parameters")
    targets = [target for node in ast.parse(cell.source).body for target in node.targets]
    assert set(SMALL[name][0]) <= {
        node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)
    }


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SMALL]
)
def test_a_notebook_runs_whole(name, tmp_path, monkeypatch):
    """In a kernel of its own, in the checkout, without a network; files go to `tmp_path`."""
    client = pytest.importorskip("nbclient").NotebookClient
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "TFDS_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nothing listens
    small, figures = SMALL[name]
    if name == "02_scale_the_batch.ipynb":
        small = small | {"OUT": str(tmp_path / "study")}
    notebook = read(name)
    (parameters,) = tagged(notebook, "parameters")
    place = notebook.cells.index(parameters) + 1
    text = "\n".join(f"{key} = {value!r}" for key, value in small.items())
    notebook.cells.insert(place, nbformat.v4.new_code_cell(text))
    folder = {"metadata": {"path": str(COLAB)}}
    client(notebook, timeout=600, kernel_name="python3", resources=folder).execute()
    for cell in code(notebook):
        assert (cell.execution_count is None) == ("skip-execution" in tags(cell))
    shown = [
        output
        for cell in code(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", ())
    ]
    assert len(shown) == figures
