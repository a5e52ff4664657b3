"""`make bench` knows every script, and goes on after one that fails."""

import pathlib
import sys

import pytest

from benchmarks import all as runner

ROOT = pathlib.Path(__file__).resolve().parents[2]


def scripts():
    folder = ROOT / "benchmarks"
    found = {path.stem for path in folder.glob("*.py")}
    found |= {path.parent.name for path in folder.glob("*/__main__.py")}
    return {name for name in found if not name.startswith("_")} - {"all"}


def test_every_benchmark_is_run_or_has_its_reason():
    known = {**runner.BENCHMARKS, **runner.ELSEWHERE}
    assert scripts() == known.keys()
    assert not runner.BENCHMARKS.keys() & runner.ELSEWHERE.keys()
    for name, options in runner.BENCHMARKS.items():
        assert (name in runner.PRINT_ONLY) != ("--out" in options)


def test_every_benchmark_is_in_their_readme():
    lines = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    named = {line.split("`")[1].removesuffix(".py") for line in lines if line.startswith("| `")}
    assert named == scripts()


def test_one_that_fails_does_not_stop_the_rest(monkeypatch, tmp_path, capsys):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "benchmarks" / "good.py").write_text("import sys\nprint('measured', sys.argv[1:])")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "BENCHMARKS", {"bad": [], "good": ["--rounds", "2"]})
    monkeypatch.setattr(runner, "PRINT_ONLY", ("bad", "good"))
    monkeypatch.setattr(sys, "argv", ["all.py"])
    assert runner.main() == 1
    assert [path.name for path in (tmp_path / "docs" / "results").iterdir()] == ["good.txt"]
    kept = (tmp_path / "docs" / "results" / "good.txt").read_text()
    assert kept.endswith("measured ['--rounds', '2']\n") and "benchmarks/good.py --rounds 2" in kept
    said = capsys.readouterr().out
    assert "| bad |" in said and "| 3 |" in said and "| good |" in said
    monkeypatch.setattr(sys, "argv", ["all.py", "good"])
    assert runner.main() == 0


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["all.py", "rewarmup"])
    with pytest.raises(SystemExit):
        runner.main()
    assert "no such benchmark: rewarmup" in capsys.readouterr().err
