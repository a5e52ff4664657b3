"""The check of links finds what leads nowhere, and nothing else."""

import re
from pathlib import Path

import pytest

from docs import links

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    *ROOT.glob("*.md"),
    *(p for d in ("docs", "colab", "benchmarks") for p in (ROOT / d).rglob("*.md")),
]

SOUND = {
    "index.html": '<h2 id="first">A</h2><a href="deep/page.html#there">x</a><a href="#first">y</a>'
    '<img src="figure.png"><a href="https://example.org/a#b">z</a><img src="data:image/png,x">',
    "deep/page.html": '<h2 id="there">B</h2><a href="../index.html">x</a>'
    '<a href="../a%20b.csv">t</a>',
    "figure.png": "",
    "a b.csv": "",
}


def checked(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return links.check(folder)


def test_a_sound_site_passes_and_external_links_are_listed(tmp_path):
    assert checked(tmp_path, SOUND) == ([], ["https://example.org/a#b"])


@pytest.mark.parametrize(
    "text, words",
    [
        ('<a href="gone.html">x</a>', "index.html: the link gone.html leads to no file"),
        ('<a href="deep/page.html#gone">x</a>', "leads to no anchor of deep/page.html"),
        ('<a href="#gone">x</a>', "leads to no anchor of index.html"),
        ('<a href="figure.png#there">x</a>', "leads to no anchor of figure.png"),
        ('<img src="gone.png">', "the link gone.png leads to no file"),
        ('<a href="deep">x</a>', "the link deep leads to no file"),
    ],
)
def test_what_leads_nowhere_is_found(tmp_path, text, words):
    broken, _ = checked(tmp_path, SOUND | {"index.html": SOUND["index.html"] + text})
    assert len(broken) == 1
    assert words in broken[0]


@pytest.mark.parametrize("text", [path.relative_to(ROOT).as_posix() for path in sorted(TEXTS)])
def test_links_lead_somewhere_where_the_texts_are_read_in_the_repository(text):
    written = (ROOT / text).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", written, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose)
    local = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in local if not (ROOT / text).parent.joinpath(target).exists()] == []
