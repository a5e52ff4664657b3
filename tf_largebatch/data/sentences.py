"""Running text as sentences."""

import re

# A sentence ends with one of these, and closing brackets or quotes; the next one begins with a
# capital, a digit or an opening bracket or quote.
_END = re.compile(r"""([.!?…]+["'”’)\]]*)\s+(?=["'“‘(\[]*[A-Z0-9À-ÖØ-Þ])""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[A-Za-z]|e\.g|i\.e|cf|vs|al|resp|approx|no|vol|pp|fig|eq|sec|ch|ref|"
    r"mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd|co|dept|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec)"
    r"\.$",
    re.IGNORECASE,
)


def split_sentences(text):
    """The sentences of a paragraph.

    A sentence ends with a full stop, an exclamation or a question mark, and whatever closing
    quotes and brackets follow, where the next word begins with a capital letter or a digit. No
    sentence ends after a single letter or one of the common abbreviations. Languages without such
    marks need one sentence a line in their files.

    Args:
        text: A str; line breaks in it are as any white space.

    Returns:
        A list of str, with single spaces between the words.

    >>> split_sentences('J. Smith et al. ask (e.g. here) "why?" Nobody\\nknows. 3.5 is not 4.')
    ['J. Smith et al. ask (e.g. here) "why?"', 'Nobody knows.', '3.5 is not 4.']
    """
    text = " ".join(text.split())
    sentences, start = [], 0
    for match in _END.finditer(text):
        end = match.end(1)
        if not _ABBREVIATION.search(text[start:end]):
            sentences.append(text[start:end])
            start = match.end()
    return [*sentences, *([text[start:]] if text[start:] else [])]
