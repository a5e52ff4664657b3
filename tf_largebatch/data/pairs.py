"""What an example of pre-training is made of: parts of a corpus' tokens, planned once.

`sentence_pairs` is the procedure of BERT's own script (Devlin et al. 2018, arXiv:1810.04805, and
create_pretraining_data.py): segments of whole sentences up to the length, one in ten documents
aiming at a shorter one, cut in two at random between sentences; in half of them the second part
comes from anywhere in another document, and the sentences it displaced are used again. Where we
depart: the other document is always another one (the script tries ten times), and the order of the
examples isn't shuffled, which training does.

`full_sentences` is FULL-SENTENCES (Liu et al. 2019, arXiv:1907.11692, section 4.2): as many whole
sentences in a row as fit, across documents, with a [SEP] where one ends. A sentence longer than an
example is cut into such as are full.

A plan is a pure function of the tokens, the length and, for pairs, a seed that is no training seed.
"""

import array
import bisect
import itertools
import os
import random
from typing import NamedTuple

import numpy as np

from tf_largebatch.data.tokenized import written_at_once

PAIR_SPECIALS = 3  # [CLS] A [SEP] B [SEP]
PACKED_SPECIALS = 2  # [CLS] A [SEP]
MIN_SEQUENCE_LENGTH = 8
PACKINGS = ("pairs", "full_sentences")

_SHORT_SHARE = 0.1
_RANDOM_SHARE = 0.5
_PLAN_SEED = 12345
_FORMAT = "1"  # of the plans: changed with the procedure, so that old ones are left alone


class Plan(NamedTuple):
    """Examples.

    Attributes:
        spans: (number of examples, 4) int64: start and end of A, start and end of B, as places in
            the tokens' ids; B is empty, with both 0, where examples have one part.
        is_random: (number of examples,) bool: whether B comes from another document than A.
    """

    spans: np.ndarray
    is_random: np.ndarray


def planned(tokens, packing, sequence_length):
    """The examples of a corpus; kept beside its tokens, if those lie in files.

    Args:
        tokens: `tf_largebatch.data.tokenized.Tokens`.
        packing: `"pairs"` or `"full_sentences"`.
        sequence_length: Tokens in an example at most, special ones included; at least 8.

    Returns:
        A `Plan`.

    Raises:
        ValueError: As `sentence_pairs` and `full_sentences`.
        OSError: If the folder of the tokens can't be written.
    """
    plan = sentence_pairs if packing == "pairs" else full_sentences
    if tokens.folder is None:
        return plan(tokens, sequence_length)
    folder = os.path.join(tokens.folder, f"{packing}-{sequence_length}-{_FORMAT}")
    paths = [f"{name}.npy" for name in Plan._fields]
    if not os.path.isdir(folder):

        def write(unfinished):
            for path, part in zip(paths, plan(tokens, sequence_length), strict=True):
                np.save(os.path.join(unfinished, path), part)

        written_at_once(folder, write)
    return Plan(*(np.load(os.path.join(folder, p), "r", allow_pickle=False) for p in paths))


def sentence_pairs(tokens, sequence_length, seed=_PLAN_SEED):
    """The examples [CLS] A [SEP] B [SEP] of a corpus.

    Args:
        tokens: `tf_largebatch.data.tokenized.Tokens` of at least two documents.
        sequence_length: Tokens in an example at most, special ones included; at least 8.
        seed: Chooses all that is random. Python's own generator draws it, whose numbers are the
            same in every version.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If `sequence_length` is too small or there are too few documents.

    >>> from tf_largebatch.data.tokenized import Tokens
    >>> starts, ends = np.int64([0, 3, 6]), np.int64([3, 5, 15])
    >>> tokens = Tokens(np.arange(16), starts, ends, np.int64([0, 2, 3]), folder=None)
    >>> plan = sentence_pairs(tokens, sequence_length=12)
    >>> plan.spans.tolist(), plan.is_random.tolist()
    ([[0, 3, 3, 5], [7, 13, 0, 3]], [False, True])
    """
    longest = _room(sequence_length, PAIR_SPECIALS)
    documents = tokens.documents.tolist()
    num_documents = len(documents) - 1
    if num_documents < 2:
        raise ValueError(
            "Sentence pairs need two documents, one to take a random next sentence from. Received: "
            f"{num_documents}. Divide the text by empty lines, or pass packing='full_sentences'."
        )
    draw, bits = _generator(seed)
    spans, is_random = array.array("q"), bytearray()  # lists would take ten times the memory
    for document, (first, stop) in enumerate(itertools.pairwise(documents)):
        starts, ends = tokens.starts[first:stop].tolist(), tokens.ends[first:stop].tolist()
        count = stop - first
        target = longest
        if draw() < _SHORT_SHARE:
            target = 2 + int(draw() * (longest - 1))  # from 2 to longest
        begin = 0
        while begin < count:
            # The sentences from `begin` to `after` - 1 reach the target, or the document's end.
            after = 1 + bisect.bisect_left(ends, starts[begin] + target, begin)
            after = min(after, count)
            size = after - begin
            middle = begin + (1 + int(draw() * (size - 1)) if size > 1 else 1)
            a = starts[begin], ends[middle - 1]
            random_next = size == 1 or draw() < _RANDOM_SHARE
            if random_next:
                other = int(draw() * (num_documents - 1))
                other += other >= document
                b = _random_span(tokens, documents, other, draw(), target - (a[1] - a[0]))
                begin = middle
            else:
                b = starts[middle], ends[after - 1]
                begin = after
            spans.extend(_cut(*a, *b, longest, bits))
            is_random.append(random_next)
    return Plan(np.array(spans, np.int64).reshape(-1, 4), np.array(is_random, bool))


def full_sentences(tokens, sequence_length):
    """The examples [CLS] A [SEP], each as many whole sentences in a row as fit.

    Args:
        tokens: `tf_largebatch.data.tokenized.Tokens`.
        sequence_length: Tokens in an example at most, special ones included; at least 8.

    Returns:
        A `Plan`; A may hold a [SEP] where a document ends.

    Raises:
        ValueError: If `sequence_length` is too small.

    >>> from tf_largebatch.data.tokenized import Tokens
    >>> starts, ends, documents = np.int64([0, 3, 6]), np.int64([3, 5, 15]), np.int64([0, 2, 3])
    >>> tokens = Tokens(np.arange(16), starts, ends, documents, folder=None)
    >>> full_sentences(tokens, sequence_length=9).spans[:, :2].tolist()  # 3 + 2 tokens; 9 in two
    [[0, 5], [6, 13], [13, 15]]
    """
    longest = _room(sequence_length, PACKED_SPECIALS)
    spans, begin, sentence = array.array("q"), int(tokens.starts[0]), 0
    starts, ends, count = tokens.starts, tokens.ends, len(tokens.ends)
    while sentence < count:
        # The sentences from `sentence` to `after` - 1 end within the example.
        window = ends[sentence : sentence + longest]
        after = sentence + int(np.searchsorted(window, begin + longest, side="right"))
        if after > sentence:
            end, sentence = int(ends[after - 1]), after
            spans.extend((begin, end, 0, 0))
            begin = int(starts[after]) if after < count else end
        else:
            spans.extend((begin, begin + longest, 0, 0))
            begin += longest
    spans = np.array(spans, np.int64).reshape(-1, 4)
    return Plan(spans, np.zeros(len(spans), bool))


def _room(sequence_length, specials):
    if sequence_length < MIN_SEQUENCE_LENGTH:
        raise ValueError(
            f"sequence_length must be at least {MIN_SEQUENCE_LENGTH}, to hold more than special "
            f"tokens. Received: {sequence_length}."
        )
    return sequence_length - specials


def _generator(seed):
    generator = random.Random(seed)
    return generator.random, generator.getrandbits


def _random_span(tokens, documents, document, drawn, target):
    """Sentences of a document from anywhere on, as many as reach the target: start and end."""
    first, stop = documents[document], documents[document + 1]
    sentence = first + int(drawn * (stop - first))
    start = int(tokens.starts[sentence])
    # Each sentence has a token or more, so that no more sentences are needed than tokens.
    window = tokens.ends[sentence : min(stop, sentence + max(target, 1))]
    last = min(int(np.searchsorted(window, start + target)), len(window) - 1)
    return start, int(window[last])


def _cut(a_start, a_end, b_start, b_end, longest, bits):
    """Both parts without what exceeds the length in all.

    As BERT's script, which takes token after token from the longer part, B if they are equally
    long, each from the front or the back as a coin falls: the number from the front is then the
    number of heads in as many throws.
    """
    a, b = a_end - a_start, b_end - b_start
    excess = a + b - longest
    if excess > 0:
        levelled = min(excess, abs(a - b))
        a_cut, b_cut = (levelled, 0) if a > b else (0, levelled)
        a_cut += (excess - levelled) // 2
        b_cut += (excess - levelled + 1) // 2
        front = bits(a_cut).bit_count() if a_cut else 0
        a_start, a_end = a_start + front, a_end - (a_cut - front)
        front = bits(b_cut).bit_count() if b_cut else 0
        b_start, b_end = b_start + front, b_end - (b_cut - front)
    return a_start, a_end, b_start, b_end
