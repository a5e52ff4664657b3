"""Guides and docstrings become the HTML that their writers mean."""

import re

import pytest

from docs.markdown import Page, docstring_html, escaped, slug


def words(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_page_has_its_title_its_sections_and_resolved_links():
    page = Page(
        "# A `b`\n\nFirst *words*.\n\n## Two\n\n[x](y.md) ![z](p.png)\n\n## Two\n",
        lambda target: f"<{target}>",
    )
    assert page.title == "A b"
    assert page.sections == [("two", "Two"), ("two-1", "Two")]
    assert 'id="two-1"' in page.html
    assert 'href="&lt;y.md&gt;"' in page.html
    assert 'src="&lt;p.png&gt;"' in page.html


@pytest.mark.parametrize(
    "heading, anchor",
    [
        ("Which batch, and why?", "which-batch-and-why"),
        ("bert_lamb", "bert_lamb"),
        ("A  B", "a--b"),
    ],
)
def test_anchors_are_those_of_code_hosts(heading, anchor):
    assert slug(heading) == anchor


def test_products_in_docstrings_keep_their_stars():
    assert "mu*b + lr*ratio*d" in docstring_html("Moves by mu*b + lr*ratio*d.")


def test_arguments_become_a_list():
    html = docstring_html(
        "What.\n\nArgs:\n    one, two: floats in [0, 1),\n        not more.\n"
        "    **base: Keras'.\n\nReturns:\n    The sum\n    of both.\n"
    )
    assert html.count("<li>") == 2
    assert "<code>one, two</code>: floats in [0, 1),\nnot more." in html
    assert "<code>**base</code>" in html
    assert words(html).endswith("Returns The sum of both.")


def test_formulas_and_doctests_become_code():
    html = docstring_html("With d:\n\n    w = w - d\n\n>>> 1 + 1\n2\n\nThe <end>.")
    assert html.count("<pre") == 2
    assert "w = w - d" in words(html)
    assert "&lt;end&gt;" in html
    assert "&gt;&gt;&gt;" in html


def test_no_text_breaks_a_table():
    assert escaped("a | b\nc <d>") == "a \\| b c &lt;d&gt;"
