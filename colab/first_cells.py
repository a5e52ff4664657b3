"""The cells that all notebooks share, badge and installation, made from setup.py's PROJECT_URL.

    python colab/first_cells.py           writes them, and README.md; drops outputs
    python colab/first_cells.py --check   says what would be written, exits with 1 if anything

To be run when PROJECT_URL changes, and after a notebook was run or edited. Each cell is found by
its tag, "badge" or "install"; everything else in a notebook is left as it is.
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SETUP = FOLDER.parent / "setup.py"
BRANCH = "main"
COLAB = "https://colab.research.google.com"
GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
NO_ADDRESS = "not yet: the project has no public address"
# The extras of the package that a notebook needs.
EXTRAS = {"01_quickstart.ipynb": "data,kernels,plots", "03_bert_two_phases.ipynb": "nlp,plots"}
USUAL_EXTRAS = "kernels,plots"

INSTALL = """\
import pathlib
import subprocess
import sys
from importlib import metadata

PROJECT_URL = {url}
here = pathlib.Path.cwd()
checkouts = [f for f in (here, *here.parents) if (f / "tf_largebatch" / "__init__.py").is_file()]
checkout = checkouts[0] if checkouts else here / "large_batch_source"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(" ".join(command) + " failed:\\n" + done.stderr[-2000:])


if not checkouts:
    if not PROJECT_URL:
        raise RuntimeError(
            "The project has no public address yet, and this notebook isn't in a checkout. "
            "Open it in one, or set PROJECT_URL above to what git can clone."
        )
    if not checkout.exists():
        run("git", "clone", "--depth=1", PROJECT_URL, str(checkout))
{tensorflow}
    package = f"{{checkout}}[{extras}]"
    run(sys.executable, "-m", "pip", "install", "--quiet", package, *tensorflow)
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        print("Restart the runtime, and run on from the next cell: older versions are loaded.")
sys.path.insert(0, str(checkout))  # also models/, which isn't installed"""
KEEP_TENSORFLOW = """\
    # What is here stays: one distribution of TensorFlow over another breaks both.
    there = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    kinds = ("tensorflow", "tensorflow-tpu", "tensorflow-cpu")
    tensorflow = [f"{kind}=={there[kind]}" for kind in kinds if kind in there] or ["tensorflow"]"""
TEXT_TENSORFLOW = """\
    # tensorflow-text fits one version only: another one may take the place of what is here.
    was = [d.version for d in metadata.distributions() if d.metadata["Name"] == "tensorflow"]
    print(f"TensorFlow before: {was or 'none'}")
    tensorflow = ["tensorflow", "tensorflow-text"]"""


def project_url():
    """What setup.py says, without running it; empty while there is none."""
    for node in ast.walk(ast.parse(SETUP.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROJECT_URL":
            return ast.literal_eval(node.value)
    raise ValueError(f"{SETUP} must assign PROJECT_URL, the project's address. It doesn't.")


def colab_address(url, name):
    """Where Colab opens a notebook of this folder.

    Args:
        url: the project's address on GitHub, the one place from which Colab opens by address.
        name: file name of the notebook.

    Raises:
        ValueError: for another address.

    >>> colab_address("https://github.com/someone/batches", "a.ipynb").partition(".com/")[2]
    'github/someone/batches/blob/main/colab/a.ipynb'
    """
    match = GITHUB.fullmatch(url)
    if match is None:
        raise ValueError(
            "PROJECT_URL must be https://github.com/OWNER/REPOSITORY, since Colab opens notebooks "
            f"by address from GitHub only. Received: {url!r}."
        )
    return f"{COLAB}/github/{match[1]}/{match[2]}/blob/{BRANCH}/{FOLDER.name}/{name}"


def badge(url, name):
    """Markdown: a notebook's badge, or words where there is no address yet."""
    if not url:
        return f"Open in Colab: {NO_ADDRESS}."
    picture = f"{COLAB}/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})]({colab_address(url, name)})"


def install(url, name):
    """Python: the cell that installs what a notebook needs, unless it lies in a checkout."""
    # Double quotes, as the formatter has them.
    extras = EXTRAS.get(name, USUAL_EXTRAS)
    tensorflow = TEXT_TENSORFLOW if "nlp" in extras.split(",") else KEEP_TENSORFLOW
    return INSTALL.format(url=json.dumps(url), extras=extras, tensorflow=tensorflow)


def renewed(text, name, url):
    """The text of a notebook with its shared cells written anew, and without outputs.

    Raises:
        ValueError: if there isn't one cell of each of the two tags.
    """
    notebook = json.loads(text)
    for tag, made in (("badge", badge(url, name)), ("install", install(url, name))):
        cells = [c for c in notebook["cells"] if tag in c["metadata"].get("tags", ())]
        if len(cells) != 1:
            raise ValueError(f"{name} must have one cell tagged {tag}. Received: {len(cells)}.")
        cells[0]["source"] = made.splitlines(keepends=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def readme(url):
    """The text of README.md: a line for each notebook, its title and first paragraph."""
    lines = [
        "# Notebooks\n",
        "Made by `python colab/first_cells.py`; don't edit. On two CPU cores with other work",
        "beside them the first took 20 seconds, the second ten minutes, the third five, the others",
        "one each. `make test` runs the first from its first to its last cell, in a small size,",
        "`make test-slow` the others. On Colab they were not run. To open them in a checkout:",
        "`make venv`, `.venv/bin/pip install jupyterlab`, `.venv/bin/jupyter lab colab`.\n",
        "| notebook | what it shows | Colab |\n|---|---|---|",
    ]
    for path in notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        first = "".join(cells[0]["source"])
        title, _, rest = first.removeprefix("# ").partition("\n")
        what = " ".join(rest.strip().split("\n\n")[0].split())
        lines.append(f"| [{title}]({path.name}) | {what} | {badge(url, path.name)} |")
    return "\n".join(lines) + "\n"


def notebooks():
    """The paths of all notebooks, in their order."""
    return sorted(FOLDER.glob("*.ipynb"))


def files(url):
    """{path: the text that it should have}."""
    made = {p: renewed(p.read_text(encoding="utf-8"), p.name, url) for p in notebooks()}
    return made | {FOLDER / "README.md": readme(url)}


def main(argv=None):
    """Writes, or checks; returns the exit code."""
    parser = argparse.ArgumentParser(description="Writes the cells that all notebooks share.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it would")
    check = parser.parse_args(argv).check
    url = project_url()
    wrong = {
        path: text
        for path, text in files(url).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in wrong.items():
        print(f"{path.name}: {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if not url:
        print(f"Badges: {NO_ADDRESS} (PROJECT_URL in setup.py is empty).")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
