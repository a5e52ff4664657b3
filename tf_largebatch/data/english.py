"""English text that is on every machine: Python's own manual and the docstrings of packages.

The source files are read, never imported. The prose is taken out of them: markup, examples, tables,
grammars and lists of arguments' types go, and what is left of a docstring or a topic are its
sentences, each the first time that it occurs. What comes out depends on the versions of Python and
the packages and on nothing else.
"""

import ast
import functools
import importlib.util
import os
import pathlib
import re
import sysconfig

from tf_largebatch.data.corpus import Corpus
from tf_largebatch.data.sentences import split_sentences

# In this order, until there are enough characters.
PACKAGES = ("numpy", "sklearn", "keras")
MAX_CHARACTERS = 2_000_000  # some 330,000 words, of scikit-learn and what comes before it

_LEFT_OUT = {"__pycache__", "_vendor", "_vendored", "api", "idlelib", "lib2to3", "site-packages"}
_TESTS = re.compile(r"tests?|test_.*|.*_tests?(\.py)?|conftest\.py|testing")

_LINES_OUT = re.compile(
    r"\.\.\.(\s|$)|\.\. |\||\+[-=]|[-=~*^#]{3,}$|:\w[\w ]*:|.*::=|@|\$ |%|#"
)  # directives, tables, underlines, fields, grammars, commands
_DEFINITION = re.compile(r"[\w*.`\[\], ]+ : ")  # an argument and its type, in numpy's style
_ARGUMENT = re.compile(r"\*{0,2}`?\w+`?( \([^)]*\))?: (?=[A-Z])")  # in Google's style
_BULLET = re.compile(r"(?:[*•-]|\(?(?:\d+|[a-z])[.)])\s+")
_MARKUP = (
    (re.compile(r"\s?\[\w+\](_|$)"), ""),  # footnotes
    (re.compile(r"`+([^`<]+?)\s*<[^`>]+>`+_*"), r"\1"),  # links
    (re.compile(r":[\w:+-]+:`~?([^`]*)`"), r"\1"),  # roles
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # links in Markdown
    (re.compile(r"<?https?://\S+"), ""),
    (re.compile(r"`+"), ""),
    (re.compile(r"(?<![\w*])\*{1,2}(\S(?:[^*]*\S)?)\*{1,2}(?![\w*])"), r"\1"),
    (re.compile(r"::"), ":"),
)


@functools.cache
def topics():
    """Python's language reference as `help()` has it, pydoc_data.topics: a document a topic.

    Returns:
        A `Corpus`.
    """
    return Corpus("topics", lambda: _documents(_topics, None))


@functools.lru_cache(maxsize=1)
def english(max_characters=MAX_CHARACTERS):
    """The topics, and the docstrings of numpy, scikit-learn, Keras and the standard library.

    A document is a topic, or all docstrings of a source file in the order of its lines. Packages
    that aren't installed are left out; the files come in the order of their names.

    Args:
        max_characters: The last document is the one in which so many characters are reached.

    Returns:
        A `Corpus`.
    """
    return Corpus("english", lambda: _documents(_topics_and_docstrings, max_characters))


def prose(text):
    """The sentences in a docstring or a topic.

    Args:
        text: What `help()` would show.

    Returns:
        A list of str: what has four words or more, ends as a sentence does and is made of letters
        in the main.

    >>> prose("x : int\\n    The number by which `y` is *divided* [1]_.\\n\\n>>> f(1)")
    ['The number by which y is divided.']
    """
    found = []
    for block in _blocks(text):
        for pattern, replacement in _MARKUP:
            block = pattern.sub(replacement, block)
        found += [s for s in split_sentences(block) if _is_sentence(s)]
    return found


def _blocks(text):
    """Its paragraphs and items of lists, each in one line."""
    block, margin, in_example = [], 0, False
    for line in [*text.expandtabs().split("\n"), ""]:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        bullet = _BULLET.match(stripped) or _ARGUMENT.match(stripped)
        in_example = bool(stripped) and (in_example or stripped.startswith(">>>"))
        out = (
            not stripped or in_example or _LINES_OUT.match(stripped) or _DEFINITION.match(stripped)
        )
        # A new indentation is a new paragraph, but where an item's first line hangs out.
        moved = indent < margin or (indent > margin and block and block[-1][-1] in ".:!?")
        if block and (out or bullet or moved):
            yield " ".join(block)
            block = []
        if not out:
            margin = indent
            block.append(stripped[bullet.end() :] if bullet else stripped)
            if not block[-1]:
                block.pop()


def _is_sentence(sentence):
    letters = sum(map(str.isalpha, sentence)) + sentence.count(" ")
    return (
        sentence.rstrip("\"'”’)")[-1:] in (".", "!", "?", ":")
        and sentence.count(" ") >= 3
        and letters >= 0.85 * len(sentence)
        and sentence[0].isalpha()
    )


@functools.lru_cache(maxsize=2)
def _documents(texts, max_characters):
    """The documents as lists of sentences, of which none comes twice."""
    seen, documents, characters = set(), [], 0
    for text in texts():
        sentences = [s for s in dict.fromkeys(prose(text)) if s not in seen]
        seen.update(sentences)
        if len(sentences) > 1:
            documents.append(sentences)
            characters += sum(map(len, sentences))
        if max_characters is not None and characters >= max_characters:
            break
    return documents


def _topics():
    from pydoc_data.topics import topics as texts

    return (texts[name] for name in sorted(texts))


def _topics_and_docstrings():
    yield from _topics()
    for folder in _folders():
        for path in _source_files(folder):
            yield _docstrings(path)


def _folders():
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield os.path.dirname(found.origin)
    yield sysconfig.get_paths()["stdlib"]


def _source_files(folder):
    """Its modules without tests and what other projects put there, by name."""
    for path in sorted(pathlib.Path(folder).rglob("*.py")):
        parts = path.relative_to(folder).parts
        if not any(part in _LEFT_OUT or _TESTS.fullmatch(part) for part in parts):
            yield path


def _docstrings(path):
    """The docstrings of a module and all that is in it, with empty lines between."""
    try:
        text = path.read_bytes().decode("utf-8")
        if '"""' not in text:
            return ""
        tree = ast.parse(text)
    except (OSError, UnicodeDecodeError, SyntaxError):
        return ""  # another encoding, or a template of a module
    return "\n\n".join(filter(None, map(ast.get_docstring, _documented(tree))))


def _documented(node):
    """The module, class or function, and those in it, in the order of their lines."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node
    for part in ("body", "handlers", "orelse", "finalbody"):  # expressions hold no docstrings
        for child in getattr(node, part, ()):
            yield from _documented(child)
