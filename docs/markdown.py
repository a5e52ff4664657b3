"""Markdown and docstrings to HTML: headings with anchors, links that are resolved, docstring lists.

Docstrings are Markdown without emphasis, since theirs are full of products: `mu*b + lr*d`.
"""

import html
import itertools
import re

import pygments
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# "Args:", "Raises:", "Args, beside Keras' own (...):", with what is indented under it.
_SECTION = re.compile(r"^(\w[^\n]*):\n( {4}[^\n]*\n(?: {4}[^\n]*\n|\n+(?= {4}))*)", re.MULTILINE)
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (?=\S)")
_DOCTEST = re.compile(r"^>>> [^\n]*(?:\n(?!\s*$)[^\n]*)*", re.MULTILINE)


def _highlight(code, language, _):
    try:
        lexer = get_lexer_by_name("pycon" if code.startswith(">>> ") else language or "text")
    except ClassNotFound:
        return ""  # escaped by the renderer
    highlighted = pygments.highlight(code, lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="pdoc-code codehilite"><code>{highlighted}</code></pre>\n'


_GUIDE = MarkdownIt("commonmark", {"html": True, "highlight": _highlight}).enable("table")
_DOCSTRING = MarkdownIt("commonmark", {"html": False, "highlight": _highlight})
_DOCSTRING.enable("table").disable(["emphasis", "lheading"])


class Page:
    """A Markdown text as HTML.

    Attributes:
        title: text of the first heading.
        sections: (anchor, text) of the headings of the second level.
        html: what the text became.

    Args:
        text: Markdown, CommonMark with tables.
        resolve: function of a link's target, as written, that returns the one to write.
    """

    def __init__(self, text, resolve):
        tokens = _GUIDE.parse(text)
        self.title, self.sections = None, []
        taken = {}
        for opening, inline in itertools.pairwise(tokens):
            if opening.type == "heading_open":
                words = plain(inline)
                anchor = slug(words)
                taken[anchor] = taken.get(anchor, -1) + 1
                anchor += f"-{taken[anchor]}" if taken[anchor] else ""
                opening.attrSet("id", anchor)
                self.title = self.title or words
                if opening.tag == "h2":
                    self.sections.append((anchor, words))
        for token in tokens:
            for child in token.children or ():
                for attribute in {"href", "src"} & child.attrs.keys():
                    child.attrSet(attribute, resolve(child.attrs[attribute]))
        self.html = _GUIDE.renderer.render(tokens, _GUIDE.options, {})
        # A wide table scrolls by itself, so that the page doesn't, on a phone.
        self.html = self.html.replace("<table>", '<div class="table"><table>')
        self.html = self.html.replace("</table>", "</table></div>")


def plain(inline):
    """The words of a heading, without its marks."""
    return "".join(c.content for c in inline.children if c.type in ("text", "code_inline"))


def slug(words):
    """The anchor of a heading, as code hosts make it.

    >>> slug("Which batch, and `why`?")
    'which-batch-and-why'
    """
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


def docstring_html(text):
    """A docstring's HTML: its "Args:" and the like as lists, its doctests as code."""
    text = _DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", f"{text}\n")
    rendered = _DOCSTRING.render(_SECTION.sub(_section, text))
    return DocstringHtml(rendered)


class DocstringHtml(Markup):
    """HTML as pdoc's templates expect it; its table of contents is left out."""

    toc_html = ""


def _section(match):
    entries, prose = [], []
    for line in re.sub("^ {4}", "", match[2], flags=re.MULTILINE).split("\n"):
        entry = _ENTRY.match(line)
        if entry:
            entries.append([f"`{entry[1]}`: {line[entry.end() :]}"])
        else:
            (entries[-1] if entries else prose).append(line)
    items = ["- " + "\n  ".join(line.strip() for line in entry) for entry in entries]
    return "\n".join([f"\n###### {match[1]}\n", *prose, "", *items, ""])


def escaped(text):
    """Text for Markdown's tables: no bar ends a cell, no line a row."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")
