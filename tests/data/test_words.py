"""Text as words: BERT's rules, and the same words with and without their origins."""

import sys
import unicodedata

import pytest

from tf_largebatch.data.words import split_words, words_with_origins


def basic_tokens(text, lower_case):
    """BERT's basic tokenisation step by step, whole text after whole text."""

    def is_punctuation(c):
        ascii_ranges = ((33, 47), (58, 64), (91, 96), (123, 126))
        is_ascii = any(low <= ord(c) <= high for low, high in ascii_ranges)
        return is_ascii or unicodedata.category(c)[0] == "P"

    cleaned = ""
    for c in text:
        if c in "\t\n\r" or unicodedata.category(c)[0] == "Z":
            cleaned += " "
        elif unicodedata.category(c)[0] != "C" and c != "\ufffd":
            cleaned += f" {c} " if unicodedata.name(c, "").startswith("CJK UNIFIED") else c
    words = []
    for word in cleaned.split():
        if lower_case:
            word = unicodedata.normalize("NFD", word.lower())
            word = "".join(c for c in word if unicodedata.category(c) != "Mn")
        words += "".join(f" {c} " if is_punctuation(c) else c for c in word).split()
    return words


TEXTS = [
    "Hello, World!", "naïve Café CAFÉ e\u0301a", "tab\tand\nline\u2028end\x00\u200b.",
    "东京 is 2km²", "İstanbul STRASSE ß Ǆ", "a_b-c@d.e 3.5% [MASK] ##ing",
    "“quoted” — ‘so’…", "한국어 ไทย हिन्दी",
    "", "   ", "\u0301x",
]  # fmt: skip


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_words_are_berts(text, lower_case):
    assert split_words(text, lower_case) == basic_tokens(text, lower_case)


@pytest.mark.parametrize("lower_case", [True, False])
def test_each_character_of_unicode_has_the_same_words_with_origins(lower_case):
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1, 3)]))
    found = words_with_origins(text, lower_case)
    assert [word for word, _ in found] == split_words(text, lower_case)
    assert all(len(word) == len(origins) for word, origins in found)
    places = [place for _, origins in found for place in origins]
    assert places == sorted(places)
    assert all(start < end for start, end in places)


def test_origins_point_at_what_was_written():
    text = "Ein  CAFE\u0301 (İ)"
    found = [(w, [text[a:b] for a, b in origins]) for w, origins in words_with_origins(text)]
    assert found == [
        ("ein", ["E", "i", "n"]),
        ("cafe", ["C", "A", "F", "E\u0301"]),
        ("(", ["("]),
        ("i", ["İ"]),
        (")", [")"]),
    ]
