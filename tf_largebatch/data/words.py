"""Text as words, the way BERT divides it before its vocabulary is asked.

As in Devlin et al. 2018 (arXiv:1810.04805): control characters go, white space divides, each
punctuation mark and each Chinese character is a word of its own; uncased, the rest is put in lower
case and loses its accents. Where we depart: that is done to each character by itself, so that every
piece can say where in the text it came from. Only the final sigma of Greek comes out otherwise, as
any other sigma.
"""

import functools
import unicodedata

_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def split_words(text, lower_case=True):
    """The words of a text.

    Args:
        text: A str.
        lower_case: Whether it is put in lower case and loses its accents.

    Returns:
        A list of str.

    >>> split_words("It's a Café\\x00: 中文.")
    ['it', "'", 's', 'a', 'cafe', ':', '中', '文', '.']
    """
    return text.translate(_table(bool(lower_case))).split()


def words_with_origins(text, lower_case=True):
    """The words of a text, and where in it each of their characters stood.

    Args:
        text: A str.
        lower_case: As for `split_words`, which gives the same words.

    Returns:
        A list of pairs (word, origins), where origins holds (start, end) in characters of the text
        for each character of the word. An accent that is stripped belongs to its letter.

    >>> words_with_origins("a ÉT")
    [('a', [(0, 1)]), ('et', [(2, 3), (3, 4)])]
    """
    table, words = _table(bool(lower_case)), []
    word, origins = "", []
    for place, character in enumerate(text):
        results = table[ord(character)]
        if not results and word and unicodedata.category(character) == "Mn":
            origins[-1] = (origins[-1][0], place + 1)
        for result in results:
            if result != " ":
                word += result
                origins.append((place, place + 1))
            elif word:
                words.append((word, origins))
                word, origins = "", []
    if word:
        words.append((word, origins))
    return words


class _Table(dict):
    """What becomes of each character, for `str.translate`: filled as characters are met."""

    def __init__(self, lower_case):
        super().__init__()
        self.lower_case = lower_case

    def __missing__(self, code):
        self[code] = result = _basic(chr(code), self.lower_case)
        return result


@functools.cache
def _table(lower_case):
    return _Table(lower_case)


def _basic(character, lower_case):
    """What becomes of one character; spaces divide words."""
    category = unicodedata.category(character)
    if category.startswith("Z") or character in "\t\n\r":
        return " "
    if category.startswith("C") or character == "\ufffd":
        return ""
    if any(low <= ord(character) <= high for low, high in _CHINESE):
        return f" {character} "
    if lower_case:
        parts = unicodedata.normalize("NFD", character.lower())
        character = "".join(part for part in parts if unicodedata.category(part) != "Mn")
    return "".join(f" {part} " if _is_punctuation(part) else part for part in character)


def _is_punctuation(character):
    is_symbol = character.isascii() and character.isprintable() and not character.isalnum()
    return is_symbol or unicodedata.category(character).startswith("P")
