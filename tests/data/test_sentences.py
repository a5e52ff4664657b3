"""Where a sentence ends."""

import pytest

from tf_largebatch.data.sentences import split_sentences


@pytest.mark.parametrize(
    "text, expected",
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.5 francs. 4 remain.", ["It costs 3.5 francs.", "4 remain."]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("See Fig. 3 and Dr. Who, e.g. Alpha.", ["See Fig. 3 and Dr. Who, e.g. Alpha."]),
        ("By J. R. Tolkien. End.", ["By J. R. Tolkien.", "End."]),
        ("lower. case follows", ["lower. case follows"]),
        ("(Yes.) Next\nline\n wraps…  “So.”", ["(Yes.)", "Next line wraps…", "“So.”"]),
        ("Über. Äther.", ["Über.", "Äther."]),
        ("   ", []),
    ],
)
def test_sentences(text, expected):
    assert split_sentences(text) == expected
