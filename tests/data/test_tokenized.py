"""A corpus as one array: nothing lost, one document in twenty held out, the same from files."""

import os

import numpy as np
import pytest

from tf_largebatch.data.corpus import Corpus
from tf_largebatch.data.tokenized import Tokens, is_held_out, tokenized
from tf_largebatch.data.vocabulary import build_vocabulary

pytestmark = pytest.mark.tensorflow


def corpus(documents, **options):
    return Corpus("numbers", lambda: iter(documents), **options)


def numbered(count):
    """Documents of one to four sentences of which each says where it is."""
    return [[f"d{d} s{s}" + " x" * (s + d % 3) for s in range(1 + d % 4)] for d in range(count)]


def vocabulary_of(documents):
    return build_vocabulary((s for d in documents for s in d), 4096)


def texts_of(tokens, vocabulary):
    """The documents again, as lists of sentences."""
    return [
        [
            vocabulary.detokenize(tokens.ids[tokens.starts[s] : tokens.ends[s]])
            for s in range(first, stop)
        ]
        for first, stop in zip(tokens.documents, tokens.documents[1:], strict=False)
    ]


def test_each_document_is_on_one_side_as_it_was():
    documents = numbered(700)  # more than are tokenized at a time
    vocabulary = vocabulary_of(documents)
    train, test = tokenized(corpus(documents), vocabulary)
    held_out = [d for n, d in enumerate(documents) if is_held_out(n)]
    assert texts_of(test, vocabulary) == held_out and len(held_out) == 35
    assert texts_of(train, vocabulary) == [d for n, d in enumerate(documents) if not is_held_out(n)]
    for tokens in (train, test):
        assert tokens.ids.dtype == np.uint16
        gaps = np.setdiff1d(tokens.documents[1:-1], [0])  # a [SEP] before each document but one
        assert (tokens.starts[gaps] == tokens.ends[gaps - 1] + 1).all()
        assert (
            tokens.ids[tokens.ends[tokens.documents[1:] - 1]] == vocabulary.id_of("[SEP]")
        ).all()
        assert len(tokens.ids) == tokens.ends[-1] + 1


def test_the_held_out_documents_stay_whatever_comes_after_them():
    assert [n for n in range(60) if is_held_out(n)] == [9, 23, 57]
    assert all(sum(is_held_out(n) for n in range(b, b + 20)) == 1 for b in range(0, 20_000, 20))
    places = np.bincount([n % 20 for n in range(200_000) if is_held_out(n)], minlength=20)
    assert (abs(places - 500) < 4.5 * np.sqrt(500)).all()


def test_sentences_and_documents_without_words_are_left_out():
    documents = numbered(60)
    with_nothing = (
        [[]] + [["\u200b", *d, " "] for d in documents[:30]] + [["\x00"]] + documents[30:]
    )
    vocabulary = vocabulary_of(documents)
    for expected, found in zip(
        tokenized(corpus(documents), vocabulary),
        tokenized(corpus(with_nothing), vocabulary),
        strict=True,
    ):
        for a, b in zip(expected[:4], found[:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_files_hold_the_same_and_are_made_once(tmp_path):
    documents, calls = numbered(300), []

    def read():
        calls.append(1)
        return iter(documents)

    vocabulary = vocabulary_of(documents)
    in_memory = tokenized(corpus(documents), vocabulary)
    for start in range(2):
        kept = Corpus("kept", read, identity=("a", "b"), bad_records={} if start else {"x": "bad"})
        in_files = tokenized(kept, vocabulary, tmp_path)
        assert kept.bad_records == {"x": "bad"}
        for expected, found in zip(in_memory, in_files, strict=True):
            assert isinstance(found.ids, np.memmap) and os.path.isdir(found.folder)
            for a, b in zip(expected[:4], found[:4], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
    assert len(calls) == 1 and len(os.listdir(tmp_path)) == 1
    tokenized(Corpus("kept", read, identity=("a", "c")), vocabulary, tmp_path)
    smaller = build_vocabulary(["d0123456789 s0123456789 x"], 64)
    tokenized(Corpus("kept", read, identity=("a", "b")), smaller, tmp_path)
    assert len(calls) == 3 and len(os.listdir(tmp_path)) == 3


def test_what_fails_on_the_way_leaves_nothing_behind(tmp_path):
    documents = numbered(300)

    def read():
        yield from documents
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        tokenized(Corpus("c", read, identity=("a",)), vocabulary_of(documents), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    documents = numbered(60)
    kept = corpus(documents, identity=("a",))
    with pytest.raises(OSError, match="file can't be written .*another folder as cache_dir"):
        tokenized(kept, vocabulary_of(documents), tmp_path / "file")


def test_few_documents_and_a_foreign_vocabulary_are_refused():
    documents = numbered(39)
    with pytest.raises(ValueError, match="numbers must have at least 40 documents.*Received: 39"):
        tokenized(corpus(documents), vocabulary_of(documents))
    with pytest.raises(ValueError, match=r"must cover numbers.*Received: \d\d.\d%"):
        tokenized(corpus(numbered(60)), build_vocabulary(["quite another text, y"], 64))


def test_a_large_vocabulary_has_wide_ids():
    documents = [[f"w{d}x{s}" for s in range(1100)] for d in range(60)]
    vocabulary = build_vocabulary((s for d in documents for s in d), 70_000)
    assert vocabulary.size > 2**16
    train, _ = tokenized(corpus(documents), vocabulary)
    assert isinstance(train, Tokens) and train.ids.dtype == np.int32
    assert train.ids.max() > vocabulary.size - 5000
