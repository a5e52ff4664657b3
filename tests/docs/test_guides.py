"""What the guides show runs: their doctests, their programs, their commands."""

import doctest
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.tensorflow]


def blocks(guide, *languages):
    """(language, code) of the guide's code blocks, in order."""
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    return [block for block in BLOCK.findall(text) if block[0] in languages]


def file_of(code):
    """The file that a block shows, by its first line, or None."""
    found = re.match(r"# (\w+\.py)\n", code)
    return found and found[1]


def files_of(guide):
    found = {file_of(code): code for _, code in blocks(guide, "python")}
    return {name: code for name, code in found.items() if name}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder that imports look into; modules of it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


@pytest.fixture
def sources(monkeypatch):
    """The data sources, put back afterwards."""
    from tf_largebatch import data

    monkeypatch.setattr(data, "SOURCES", dict(data.SOURCES))


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if blocks(guide, "python")])
def test_the_python_of_a_guide(guide, folder, sources):
    """All blocks in one namespace, as a reader would type them."""
    names = {"__name__": "__main__"}
    for _, code in blocks(guide, "python"):
        if file_of(code):
            (folder / file_of(code)).write_text(code)
        elif code.startswith(">>> "):
            # A blank line ends what is expected: the parser sees the block without the last one.
            test = doctest.DocTestParser().get_doctest(code, names, guide, guide, 0)
            said = []
            doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
            names = test.globs
            assert not said, "".join(said)
        else:
            exec(compile(code, guide, "exec"), names)
    if guide == "new_data.md":
        assert names["logs"]["accuracy"] > 0.9
        assert names["splits"].test.num_examples == 143  # every fourth of 569


def commands():
    """Every command line of the guides, without what follows in the background."""
    for guide in GUIDES:
        for _, code in blocks(guide, "bash"):
            code = re.sub(r"'[^']*'", lambda text: text[0].replace("\n", " "), code)
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                yield pytest.param([w for w in words if w != "&"], id=f"{guide}: {line[:60]}")


@pytest.fixture(scope="module")
def flags_of_train():
    import train

    if "model" not in train.FLAGS:
        train.define_recipe_flags()
    return set(train.FLAGS)


@pytest.mark.parametrize("words", list(commands()))
def test_the_commands_have_these_flags(words, flags_of_train, capsys):
    given = [re.match(r"--(?:no)?([\w-]+)", word)[1] for word in words if word.startswith("--")]
    if words[:2] == ["python", "train.py"]:
        assert set(given) <= flags_of_train
    elif words[:2] == ["python", "-m"]:
        tool = __import__(words[2], fromlist=["main"])
        with pytest.raises(SystemExit):
            tool.main(["--help"])
        known = capsys.readouterr().out
        assert all(re.search(rf"--{flag}\b", known) for flag in given)
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    else:
        assert words[0] in ("export", "pip", "wait")


def test_the_figures_of_the_studies_are_those_of_their_pages():
    text = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    (section,) = re.findall(
        r"^## What was measured here\n(.*?)^## ", text, re.DOTALL | re.MULTILINE
    )
    pages = re.findall(r"\((results/\w+\.md)\)", section)
    measured = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)
    figures = re.findall(r"\d+\.\d+", section)
    assert len(pages) == 2
    assert len(figures) >= 10
    assert [figure for figure in figures if figure not in measured] == []
    # And they stand beside the right names.
    study = (ROOT / "docs/results/study_digits/table.md").read_text(encoding="utf-8")
    mean = {
        name: dict(zip((16, 128, 256, 512), re.findall(r"(\d+\.\d+) ±", cells), strict=True))
        for name, cells in re.findall(r"^\| (\w+) +\|(.*)$", study, re.MULTILINE)
        if cells.count("±") == 4
    }
    lamb, keras_lamb = mean["lamb"], mean["keras_lamb"]
    words = " ".join(section.split())
    for claim in (
        f"LAMB by its rule, untuned, has {lamb[16]} % at batch 16, {lamb[256]} % at 256 and "
        f"{lamb[512]} % at 512",
        f"`keras.optimizers.Lamb` has {keras_lamb[512]} % at 512 and {keras_lamb[256]} % at 256",
        f"AdamW {mean['adamw'][512]} % and Muon {mean['muon'][512]} % at 512",
    ):
        assert claim in words


SHORT = ("--progress=none", "--max_updates=3")


@pytest.mark.parametrize("guide", ["new_model.md", "new_data.md"])
def test_train_py_takes_the_model_and_the_data(guide, folder, sources, main, capsys):
    from tf_largebatch import data

    for name, code in files_of(guide).items():
        (folder / name).write_text(code)
    data.SOURCES["cancer"] = "my_data:cancer"
    ((_, code),) = blocks(guide, "bash")
    words = shlex.split(code)
    assert words[:3] == ["PYTHONPATH=.", "python", "train.py"]
    assert main(*words[3:], *SHORT) == 0, capsys.readouterr().err
    assert '"updates": 3' in capsys.readouterr().out


def test_the_optimizer_follows_its_formula_and_saves_itself(folder):
    """Float64 NumPy beside it, over large and small variables, decayed or not; then in fit."""
    import keras
    import numpy as np

    for name, code in files_of("new_optimizer.md").items():
        (folder / name).write_text(code)
    from my_optimizer import LayerwiseLion

    random = np.random.default_rng(0)
    shapes = {"kernel": (160, 120), "small": (3, 2), "other": (3, 2), "bias": (4,)}
    weights = {name: random.normal(size=shape) for name, shape in shapes.items()}
    variables = [keras.Variable(np.float32(w), name=name) for name, w in weights.items()]
    optimizer = LayerwiseLion(0.02, weight_decay=0.1, exclude_from_weight_decay=["bias"])
    moments = {name: np.zeros(shape) for name, shape in shapes.items()}
    for _ in range(5):
        gradients = {name: random.normal(size=shape) for name, shape in shapes.items()}
        optimizer.apply([np.float32(g) for g in gradients.values()], variables)
        for name, g in gradients.items():
            w, m, excluded = weights[name], moments[name], name == "bias"
            u = np.sign(0.9 * m + 0.1 * g) + (0 if excluded else 0.1) * w
            ratio = 1 if excluded else np.linalg.norm(w) / np.linalg.norm(u)
            weights[name], moments[name] = w - 0.02 * ratio * u, 0.99 * m + 0.01 * g
    for name, variable in zip(weights, variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), weights[name], rtol=0, atol=2e-5)

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile(LayerwiseLion(0.1), "mse")
    x = random.normal(size=(64, 8)).astype("float32")
    losses = model.fit(x, x.sum(axis=1), epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras").optimizer
    assert loaded.get_config() == model.optimizer.get_config()


@pytest.mark.slow
@pytest.mark.multi_worker
def test_the_two_workers_of_the_guide(tmp_path):
    """The guide's two blocks as they are, but for ports, the folder, and a stop on the way."""
    first, _, again, *_ = (code for _, code in blocks("multi_worker.md", "bash"))
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = [str(s.getsockname()[1]) for s in (one, other)]
    printed = []
    for block, stop in ((first, "--checkpoint_every=7 --max_updates=9"), (again, "")):
        for old, new in (
            ("12401", ports[0]), ("12402", ports[1]), ("runs/two", f"{tmp_path}/two"),
            ("python", sys.executable), ("--seed=1", f"--seed=1 --progress=line {stop}"),
        ):  # fmt: skip
            assert old in block
            block = block.replace(old, new)
        run = subprocess.run(
            ["bash", "-e", "-c", block], cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        printed.append(run.stdout)
    assert [out.count("RESULT") for out in printed] == [1, 1]
    assert '"updates": 9' in printed[0]
    assert ", from update 9" in printed[1]
    assert '"status": "done"' in printed[1]
