"""What the benchmarks' results have in common."""

import pytest

from benchmarks import _report


def test_spread_is_median_and_quartiles():
    assert _report.spread([4.0, 1.0, 3.0, 2.0, 5.0], 1) == "3.0 (2.0 - 4.0)"
    assert _report.spread([1234.5]) == "1,234.50"


def test_a_table():
    assert _report.table(["", "b"], [["x", 1], ["y", 2]]) == (
        "|  | b |\n|---|---|\n| x | 1 |\n| y | 2 |"
    )


def test_provenance_names_command_machine_and_versions():
    command = ["anywhere/scaling.py", "--only", "keras Lamb"]
    date, ran, machine, versions = _report.provenance(("numpy", "no-such-package"), command).split(
        "\n"
    )
    assert "UTC" in date
    assert ran == "- command: `PYTHONPATH=. python benchmarks/scaling.py --only 'keras Lamb'`"
    assert f"{_report.cores()} cores" in machine
    assert "Python 3." in versions and "numpy 2." in versions and "no-such" not in versions


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "result.md"
    _report.write(path, "one")
    with pytest.raises(TypeError):
        _report.write(path, None)
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["result.md"]
