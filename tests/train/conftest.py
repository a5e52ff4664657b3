"""What train.py prints, and one run that many tests look at; `main` is in tests/conftest.py."""

import contextlib
import io
import pathlib
from typing import NamedTuple

import pytest

from train_results import SHORT


@pytest.fixture
def run(main, capsys):
    """As `main`; returns the exit code, stdout and stderr."""

    def call(*arguments):
        code = main(*arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


class Finished(NamedTuple):
    """A run that is done; who changes its folder changes a copy."""

    folder: pathlib.Path
    out: str
    err: str


@pytest.fixture(scope="session")
def finished(main, tmp_path_factory):
    """A short run of seed 3."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(*SHORT, "--seed=3", f"--model_dir={folder}") == 0, err.getvalue()
    return Finished(folder, out.getvalue(), err.getvalue())
