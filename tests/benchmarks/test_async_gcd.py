"""The bars of benchmarks/async_gcd.py: met or missed, each by its own figure."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("numba")

from benchmarks import async_gcd

MEETS = {"serial": 3.0, "log": 2.0, "gap": 1e-6, "error": 1e-12, "greedy": 25, "random": 50}
MISSES = [
    ({}, []),
    ({"log": 2.01}, ["log, 2 threads: speedup over serial"]),
    ({"greedy": 26}, ["greedy's updates / plain PSCD's moves"]),
    ({"random": 10}, []),  # no bar
    ({"gap": 2e-5}, ["objective gap"]),
    ({"gap": np.nan}, ["objective gap"]),
    ({"error": 2e-5}, ["largest difference of g from Qa + p"]),
]


def measured(*, serial, log, gap, error, greedy, random):
    """The arguments of `bars_of`, three rounds, of which the middle one counts for the times."""

    def runs(seconds, gaps, errors):
        rounds = zip((0.1 * seconds, seconds, 10 * seconds), gaps, errors, strict=True)
        return [
            (SimpleNamespace(seconds=s, objective=-4 + 4 * g, gradient_error=e), 0.0, s)
            for s, g, e in rounds
        ]

    few = [0.0, 0.0, 0.0]
    found = {"serial": runs(serial, few, few), "log, 2": runs(log, [gap] * 3, [0.0, error, 0.0])}
    return None, found, -4.0, async_gcd.Moves(1000, greedy, random, plain=100, draws=500)


@pytest.mark.parametrize(("changes", "missed"), MISSES)
def test_each_bar_is_missed_by_its_own_figure(changes, missed):
    bars = list(async_gcd.bars_of(*measured(**MEETS | changes)))
    assert [what for what, _, _, met in bars if met is not None and not met] == missed
    assert [what for what, _, _, met in bars if met is None] == [
        'greedy\'s updates / those of selection="random"'
    ]
    table = async_gcd.bars_table({"moons": bars})
    assert table.count("| NO |") == len(missed) and table.count("| yes |") == 4 - len(missed)


def test_without_two_threads_there_is_no_speedup():
    data, found, best, moves = measured(**MEETS)
    del found["log, 2"]
    assert len(list(async_gcd.bars_of(data, found, best, moves))) == 4


@pytest.mark.parametrize("bar", ["met", "missed"])
def test_it_ends_with_1_if_a_bar_is_missed(bar, monkeypatch, capsys):
    bars = {"SPEEDUP": 0, "MOVES": 10, "GAP": 1, "ERROR": 0 if bar == "missed" else 1}
    for name, value in bars.items():
        monkeypatch.setattr(async_gcd, name, value)
    command = ["async_gcd.py", "--samples", "300", "--few", "200", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", command)
    assert async_gcd.main() == (bar == "missed")
    table = capsys.readouterr().out
    assert "| data | bar | wanted | measured | met |" in table
    assert ("| NO |" in table) == (bar == "missed")
