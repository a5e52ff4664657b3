"""English that is on every machine: prose and nothing else, the same each time."""

import pytest

from tf_largebatch.data import english

DOCSTRING = """Fit a polynomial ``p[0] * x**deg`` to the points given.

.. versionadded:: 1.4

Returns the :class:`~numpy.ndarray` of *all* coefficients [1]_. They minimise
the squared error; see `the guide <https://example.org/x>`_ for more.

Parameters
----------
x : array_like, shape (M,)
    x-coordinates of the sample points. Must be
    sorted in advance.
* a bullet that says something useful, and
  goes on with its second line.

Args:
    units: Positive integer, the size of the output.
        It has no default.

>>> fit(1)
This is the output of an example here.

+-----+------------------------------+
| One | cell of a table in the text. |
+-----+------------------------------+
"""


def test_prose_is_taken_out_of_a_docstring():
    assert english.prose(DOCSTRING) == [
        "Fit a polynomial p[0] * x**deg to the points given.",
        "Returns the numpy.ndarray of all coefficients.",
        "They minimise the squared error; see the guide for more.",
        "x-coordinates of the sample points.",
        "Must be sorted in advance.",
        "a bullet that says something useful, and goes on with its second line.",
        "Positive integer, the size of the output.",
        "It has no default.",
    ]


def test_the_topics_are_sentences_each_once():
    documents = english.topics().documents()
    sentences = [sentence for document in documents for sentence in document]
    assert len(documents) > 40 and sum(map(len, sentences)) > 200_000
    assert len(set(sentences)) == len(sentences)
    text = " ".join(sentences)
    assert ">>>" not in text and "::=" not in text and "+--" not in text
    assert "Assignment statements are used to (re)bind names to values" in text


def test_english_goes_on_with_docstrings_up_to_the_limit():
    documents = english.english(300_000).documents()
    topics = english.topics().documents()
    assert documents[: len(topics)] == topics and len(documents) > len(topics)
    characters = [sum(map(len, document)) for document in documents]
    assert sum(characters[:-1]) < 300_000 <= sum(characters)
    english._documents.cache_clear()
    assert english.english(300_000).documents() == documents


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))


def test_source_files_are_read_in_order_and_never_run(tmp_path, monkeypatch):
    write(
        tmp_path,
        {
            "b.py": '"""The second file has one sentence.\n\nAnd then another one, too."""\n1 / 0',
            "a/x.py": (
                '"""The first file begins with this."""\n'
                'class A:\n    """A class is described like this."""\n    def f(self):\n'
                '        """A method is described like that."""\n        raise ValueError'
            ),
            "a/tests/test_x.py": '"""Tests are left out of this.\n\nAll of them are left out."""',
            "broken.py": '"""This is no Python that one could read.""" (',
            "latin.py": '"""Encoded otherwise, with an \xe9 inside it."""',
            "c.py": "x = 1",
        },
    )
    monkeypatch.setattr(english, "_folders", lambda: [tmp_path])
    monkeypatch.setattr(english, "_topics", list)
    english._documents.cache_clear()
    found = english._documents(english._topics_and_docstrings, None)
    english._documents.cache_clear()
    assert found == [
        ["The first file begins with this.", "A class is described like this.",
         "A method is described like that."],
        ["The second file has one sentence.", "And then another one, too."],
    ]  # fmt: skip


@pytest.mark.parametrize("package", ["numpy", "sklearn", "keras"])
def test_packages_that_are_installed_are_found(package):
    pytest.importorskip(package)
    assert any(package in str(folder) for folder in english._folders())
