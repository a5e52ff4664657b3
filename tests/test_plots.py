"""Figures: one style, written whole, the same twice."""

import base64
import builtins

import pytest

from tf_largebatch import plots


def drawn(path=None):
    with plots.figure(columns=2) as (figure, axes):
        axes[0, 1].plot([1, 2], [3, 4], **plots.line_style(0), label="one")
        axes[0, 1].set_xlabel("updates")
        if path is not None:
            plots.save(figure, path)
        return plots.data_uri(figure)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_is_the_same_file(tmp_path, suffix):
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
    assert drawn(one) == drawn(other)
    assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, other.name]


def test_a_data_uri_is_a_png():
    head, _, code = drawn().partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(code).startswith(b"\x89PNG")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "figure.unknown"
    path.write_text("before")
    with pytest.raises(ValueError, match="unknown"):
        drawn(path)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_lines_differ_in_more_than_colour():
    styles = [plots.line_style(number) for number in range(16)]
    assert len({(s["marker"], str(s["linestyle"])) for s in styles}) == 16


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    importing = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named {name!r}")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"tf-largebatch\[plots\]"):
        drawn()
