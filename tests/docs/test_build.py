"""The site is whole: every page in the menu, every link, every public name with its docstring."""

import re

import pdoc.doc
import pytest

from docs import build, links

# The docstrings are those of modules that import TensorFlow.
pytestmark = [pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def modules():
    return build.public_modules()


@pytest.fixture(scope="module")
def site(modules, tmp_path_factory):
    """The pages made of Markdown, and those of some modules; the rest is `make docs`."""
    out = tmp_path_factory.mktemp("site")
    made = build.Site(out)
    made.add_pages(build.api_anchors(modules))
    made.add_api({name: modules[name] for name in SOME})
    return made


SOME = ("tf_largebatch.optimizers", "tf_largebatch.rules", "tf_largebatch.schedules")


def test_nothing_is_wrong_with_the_pages(site):
    assert site.wrong == []
    assert len(list(site.out.rglob("*.html"))) > len(site.texts)


def test_links_between_the_guides_lead_somewhere(site, modules):
    broken, external = links.check(site.out)
    # Pages of the modules that weren't built here must at least be known ones.
    pages = {target.partition("#")[0] for target in build.api_anchors(modules).values()}
    left = [
        line
        for line in broken
        if "leads to no file" not in line or re.search(r"api/[\w/]+\.html", line)[0] not in pages
    ]
    assert [line for line in left if not line.startswith("api/")] == []
    assert all(address.startswith("http") for address in external)


def test_every_public_name_has_a_docstring(modules):
    assert {"tf_largebatch", "tf_largebatch.training.trainer", "models.bert"} <= set(modules)
    assert not any("._" in name for name in modules)
    assert list(build.undocumented(modules)) == []


def test_the_api_shows_what_users_call(site):
    page = (site.out / "api/tf_largebatch/optimizers.html").read_text()
    for anchor in ("LAMB", "LAMB.__init__", "LAMB.exclusion_table", "BIAS_AND_NORM"):
        assert f'id="{anchor}"' in page, anchor
    assert "exclude_from_layer_adaptation" in page
    assert 'id="LAMB.from_config"' not in page  # Keras' own


@pytest.mark.parametrize(
    "text, words",
    [
        ("# T\n\n[x](gone.md)\n", "docs/odd.md: the link gone.md leads to no file"),
        ("# T\n\n[x](../README.md)\n", "docs/odd.md: the link ../README.md leads out"),
        ("no heading\n", "docs/odd.md: it has no heading"),
        ("# T\n", "docs/odd.md: no menu shows it"),
    ],
)
def test_what_would_strand_a_reader_is_an_error(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr(build, "sources", lambda: {"odd.md": text})
    made = build.Site(tmp_path)
    made.add_pages({})
    assert any(words in sentence for sentence in made.wrong)


NAMES = """'''A module.'''

class A:
    '''A.'''
    def f(self): pass
    @property
    def p(self): return 1
    def _private(self): pass

def g():
    '''G.'''

def h(): pass

NUMBER = 1
"""


def test_a_name_without_a_docstring_is_found(tmp_path, monkeypatch):
    (tmp_path / "odd_names.py").write_text(NAMES)
    monkeypatch.syspath_prepend(tmp_path)
    found = list(build.undocumented({"odd_names": pdoc.doc.Module.from_name("odd_names")}))
    assert sorted(found) == ["odd_names.A.f", "odd_names.A.p", "odd_names.h"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert build.main(["--out", str(tmp_path)]) == 1
    assert "isn't empty, and no site of ours" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.slow
def test_make_docs_builds_the_whole_site(tmp_path, capsys):
    assert build.main(["--out", str(tmp_path / "docs")]) == 0, capsys.readouterr().err
    assert (tmp_path / "docs" / "index.html").is_file()
    assert (tmp_path / "docs" / "api" / "tf_largebatch" / "training" / "trainer.html").is_file()
