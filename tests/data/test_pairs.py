"""The plans of examples: BERT's pairs by their properties, packing against a plain loop."""

import itertools
import random

import numpy as np
import pytest

from tf_largebatch.data.pairs import Plan, full_sentences, planned, sentence_pairs
from tf_largebatch.data.tokenized import Tokens

pytestmark = pytest.mark.tensorflow

LENGTH = 64


def tokens_of(documents, folder=None):
    """From lists of lengths of sentences; the ids are the places."""
    starts, ends, bounds, place = [], [], [0], 0
    for document in documents:
        for length in document:
            starts.append(place)
            place += length
            ends.append(place)
        place += 1
        bounds.append(len(starts))
    arrays = (np.array(a, np.int64) for a in (starts, ends, bounds))
    return Tokens(np.arange(place, dtype=np.int32), *arrays, folder)


def corpus(seed=0, count=400, sentences=(1, 60), lengths=(1, 40)):
    draw = random.Random(seed)
    return tokens_of(
        [draw.randint(*lengths) for _ in range(draw.randint(*sentences))] for _ in range(count)
    )


def document_of(tokens, place):
    """The numbers of the documents in which places in the ids lie."""
    firsts = tokens.starts[tokens.documents[:-1]]
    return np.searchsorted(firsts, place, side="right") - 1


def parts(tokens, plan):
    """Starts, ends and documents of A and B."""
    a, a_end, b, b_end = plan.spans.T
    return a, a_end, document_of(tokens, a), b, b_end, document_of(tokens, b)


@pytest.mark.parametrize("length", [8, 64, 300])
def test_pairs_fit_and_keep_to_their_documents(length):
    tokens = corpus()
    plan = sentence_pairs(tokens, length)
    a, a_end, a_document, b, b_end, b_document = parts(tokens, plan)
    assert (a_end > a).all() and (b_end > b).all()
    assert (a_end - a + b_end - b + 3 <= length).all()
    for end, document in ((a_end, a_document), (b_end, b_document)):
        assert (end <= tokens.ends[tokens.documents[document + 1] - 1]).all()
    assert ((a_document != b_document) == plan.is_random).all()
    assert (a_end <= b)[~plan.is_random].all()


def test_without_cuts_every_sentence_is_used_once_beside_the_strangers():
    """Where documents are shorter than an example, an example is what is left of a document."""
    tokens = corpus(sentences=(1, 12), lengths=(1, 10), count=1000)
    plan = sentence_pairs(tokens, 1000)
    used = np.zeros(len(tokens.ids), int)
    for (a, a_end, b, b_end), is_random in zip(*plan, strict=True):
        used[a:a_end] += 1
        if not is_random:
            assert a_end == b
            used[b:b_end] += 1
        for edge in (a, b):
            assert edge in tokens.starts
        for edge in (a_end, b_end):
            assert edge in tokens.ends
    separators = np.ones(len(used), bool)
    for start, end in zip(tokens.starts, tokens.ends, strict=True):
        separators[start:end] = False
    assert (used == ~separators).all()


def test_tokens_are_lost_only_from_examples_that_are_full():
    tokens = corpus()
    plan = sentence_pairs(tokens, LENGTH)
    a, a_end, document, b, b_end, _ = parts(tokens, plan)
    own_end = np.where(plan.is_random, a_end, b_end)
    full = a_end - a + b_end - b + 3 == LENGTH
    first = tokens.starts[tokens.documents[document]]
    begins = np.r_[True, document[1:] != document[:-1]]
    before = np.where(begins, first, np.r_[0, own_end[:-1]])
    gap = a > before  # something between this example and the one before it in the document
    assert (~gap | full | np.r_[False, full[:-1]]).all()
    assert (a >= before).all()
    assert ((b == a_end) | full | plan.is_random).all()


def test_half_of_the_pairs_are_strangers_and_one_document_in_ten_aims_short():
    tokens = corpus(count=3000, sentences=(40, 40), lengths=(2, 4))
    plan = sentence_pairs(tokens, LENGTH)
    a, a_end, document, b, b_end, other = parts(tokens, plan)
    n = len(a)
    lengths = a_end - a + b_end - b
    is_short = np.array([lengths[document == d].max() < LENGTH - 6 for d in range(3000)])
    # What is left of a document may be a single sentence, whose next one is always a stranger.
    is_last = tokens.ends[tokens.documents[document + 1] - 1] - a < LENGTH
    plain = plan.is_random[~is_last & ~is_short[document]]
    assert abs(plain.mean() - 0.5) < 4.5 * np.sqrt(0.25 / len(plain))
    # Of the tenth with targets from 2 to 61, about 55 of 60 lie so low.
    assert abs(is_short.mean() - 0.1 * 55 / 60) < 4.5 * np.sqrt(0.09 / 3000)
    distance = (other - document)[plan.is_random]
    assert abs(np.corrcoef(other[plan.is_random], document[plan.is_random])[0, 1]) < 0.03
    assert (distance != 0).all() and n > 3000
    # Anywhere in the other document, not at its beginning.
    first = tokens.starts[tokens.documents[other]]
    share = ((b - first) / (tokens.ends[tokens.documents[other + 1] - 1] - first))[plan.is_random]
    assert abs(np.quantile(share, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.05


def test_where_a_pair_is_cut_in_two_is_even():
    tokens = tokens_of([[3] * 7, [3] * 7] * 4000)
    plan = sentence_pairs(tokens, 24)  # seven sentences exactly, of which none is lost
    a, a_end, document, *_ = parts(tokens, plan)
    whole = (a == tokens.starts[tokens.documents[document]]) & (
        np.r_[document[1:] != document[:-1], True] | plan.is_random
    )
    counts = np.bincount((a_end - a)[whole] // 3, minlength=7)[1:7]
    expected = counts.sum() / 6
    # Short targets add some smaller cuts, to less than a tenth.
    assert (abs(counts[2:] - expected) < 0.2 * expected).all()


def cut_lengths(a, b, longest):
    """BERT's loop."""
    while a + b > longest:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


@pytest.mark.parametrize("a, b", [(100, 80), (80, 100), (61, 1), (1, 200), (61, 61), (30, 32)])
def test_cuts_leave_what_berts_loop_leaves_half_from_the_front(a, b):
    """Documents of one sentence each: every pair is a sentence and a stranger."""
    tokens = tokens_of([[a], [b]] * 500)
    plan = sentence_pairs(tokens, LENGTH)
    of_a = plan.spans[np.isin(document_of(tokens, plan.spans[:, 0]) % 2, 0)]
    strangers = document_of(tokens, of_a[:, 2]) % 2
    for other, length in ((1, b), (0, a)):
        spans = of_a[strangers == other]
        kept = np.stack([spans[:, 1] - spans[:, 0], spans[:, 3] - spans[:, 2]], 1)
        assert {*map(tuple, kept.tolist())} == {cut_lengths(a, length, LENGTH - 3)}
        cut = a - kept[0, 0]
        front = spans[:, 0] - tokens.starts[document_of(tokens, spans[:, 0])]
        assert ((front >= 0) & (front <= cut)).all()
        assert abs(front.mean() - cut / 2) <= 4.5 * np.sqrt(cut / 4 / len(spans))


def test_a_plan_is_a_function_of_its_arguments():
    tokens = corpus(count=50)
    plan = sentence_pairs(tokens, LENGTH)
    again = sentence_pairs(corpus(count=50), LENGTH)
    assert all((x == y).all() for x, y in zip(plan, again, strict=True))
    other = sentence_pairs(tokens, LENGTH, seed=1)
    assert not np.array_equal(plan.spans, other.spans)
    # The same in every version of Python.
    assert plan.spans[:3].tolist() == [
        [0, 25, 30, 66],
        [73, 104, 106, 136],
        [137, 163, 28612, 28647],
    ]


@pytest.mark.parametrize("length", [8, 20, 64, 500])
def test_full_sentences_are_packed_as_a_plain_loop_packs_them(length):
    tokens = corpus(seed=3, count=200)
    bounds = set(tokens.documents.tolist())
    expected, begin, end = [], None, None
    for s, (start, stop) in enumerate(zip(tokens.starts, tokens.ends, strict=True)):
        if begin is not None and stop - begin <= length - 2:
            end = stop
            continue
        if begin is not None:
            expected.append((begin, end))
        while stop - start > length - 2:  # too long for any example
            expected.append((start, start + length - 2))
            start += length - 2
        begin, end = start, stop
        assert s in bounds or begin > 0
    expected.append((begin, end))
    found = full_sentences(tokens, length)
    assert found.spans[:, :2].tolist() == [[int(a), int(b)] for a, b in expected]
    assert not found.spans[:, 2:].any() and not found.is_random.any()


def test_every_token_is_packed_once():
    tokens = corpus(seed=4)
    spans = full_sentences(tokens, 32).spans
    used = np.zeros(len(tokens.ids), int)
    for start, end, *_ in spans:
        used[start:end] += 1
    in_sentences = np.concatenate(
        [np.arange(*edges) for edges in zip(tokens.starts, tokens.ends, strict=True)]
    )
    assert (used[in_sentences] == 1).all() and used.max() == 1


@pytest.mark.parametrize("packing", ["pairs", "full_sentences"])
def test_plans_of_tokens_in_files_are_kept_beside_them(tmp_path, packing):
    plans = [planned(corpus(count=50)._replace(folder=str(tmp_path)), packing, 40) for _ in "12"]
    in_memory = planned(corpus(count=50), packing, 40)
    for plan in plans:
        assert isinstance(plan, Plan) and isinstance(plan.spans, np.memmap)
        assert all((x == y).all() for x, y in zip(plan, in_memory, strict=True))
    planned(corpus(count=50)._replace(folder=str(tmp_path)), packing, 41)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_planned_is_refused():
    for plan in (sentence_pairs, full_sentences):
        with pytest.raises(ValueError, match="sequence_length must be at least 8.*Received: 7"):
            plan(corpus(count=2), 7)
    with pytest.raises(ValueError, match="need two documents.*Received: 1.*full_sentences"):
        sentence_pairs(corpus(count=1), 8)
    assert len(list(itertools.chain(full_sentences(corpus(count=1), 8).spans))) > 0
