"""A corpus as one long array of token ids, in memory or in files that are read where needed."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import zlib
from typing import NamedTuple

import numpy as np

from tf_largebatch.data.vocabulary import SEP, UNKNOWN

HELD_OUT = 20  # one of so many documents
PARTS = ("train", "test")
MIN_DOCUMENTS = 2 * HELD_OUT  # two held out, so that each has another one

_FORMAT = "1"  # of the files: changed with what is in them, so that old ones are left alone
_BAD_RECORDS = "bad_records.json"
_BATCH = 256  # documents tokenized at a time
_ENOUGH = 10**6  # tokens to judge a vocabulary by


class Tokens(NamedTuple):
    """Documents in a row, each with a [SEP] after it.

    Attributes:
        ids: (number of tokens,) uint16, or int32 for more than 65,536 tokens in the vocabulary.
        starts, ends: (number of sentences,) int64, places in `ids`. Sentences follow each other
            without gaps but for the [SEP].
        documents: (number of documents + 1,) int64: document d has the sentences from documents[d]
            to documents[d + 1] - 1.
        folder: Where the arrays lie; None if they are in memory.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    documents: np.ndarray
    folder: str | None


def tokenized(corpus, vocabulary, cache_dir=None):
    """The tokens to train on, and the tokens held out.

    Of each twenty documents one is held out, chosen by the checksum of their number: the same ones
    whatever the seed or the vocabulary, and whatever comes after them. A sentence without a word is
    left out, and so is a document without a sentence.

    Args:
        corpus: A `Corpus`.
        vocabulary: A `Vocabulary`.
        cache_dir: Local folder in which the tokens of a corpus that has an identity are kept, in a
            folder of their own whose name is a digest of the corpus, the vocabulary and this
            format. The next time they are only mapped into memory.

    Returns:
        Two `Tokens`; the corpus' `bad_records` are then known, too.

    Raises:
        ValueError: If the corpus has fewer than 40 documents, or the vocabulary doesn't cover it.
        OSError: If `cache_dir` can't be written.
    """
    if cache_dir is None or not corpus.identity:
        return _collected(corpus, vocabulary)
    content = (_FORMAT, str(vocabulary.lower_case), *vocabulary.tokens, *corpus.identity)
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    folder = os.path.join(cache_dir, f"tokens-{digest}")
    if not os.path.isdir(folder):

        def write(unfinished):
            _collected(corpus, vocabulary, unfinished)
            with open(os.path.join(unfinished, _BAD_RECORDS), "w", encoding="utf-8") as file:
                json.dump(corpus.bad_records, file, indent=1)

        written_at_once(folder, write)
    with open(os.path.join(folder, _BAD_RECORDS), encoding="utf-8") as file:
        corpus.bad_records.update(json.load(file))
    return tuple(_mapped(folder, part) for part in PARTS)


def is_held_out(document):
    """Whether a document is held out, by its number.

    >>> [n for n in range(100) if is_held_out(n)]
    [9, 23, 57, 71, 88]
    """
    block, place = divmod(document, HELD_OUT)
    return place == zlib.crc32(str(block).encode()) % HELD_OUT


def _collected(corpus, vocabulary, folder=None):
    """The tokens of both parts; written to `folder` if there is one, and then the ids at once."""
    dtype = np.dtype(np.uint16 if vocabulary.size <= 2**16 else np.int32)
    ids, lengths, counts = ({part: [] for part in PARTS} for _ in range(3))
    with contextlib.ExitStack() as files:
        if folder is not None:
            for part in PARTS:
                os.makedirs(os.path.join(folder, part))
                ids[part] = files.enter_context(_GrowingFile(_path(folder, part, "ids"), dtype))
        for part, *arrays in _batches(corpus, vocabulary):
            for collected, array in zip((ids, lengths, counts), arrays, strict=True):
                collected[part].append(array.astype(dtype) if collected is ids else array)
    found = []
    for part in PARTS:
        places = _places(np.concatenate(lengths[part]), np.concatenate(counts[part]))
        if folder is None:
            found.append(Tokens(np.concatenate(ids[part]), *places, folder=None))
        else:
            for name, array in zip(("starts", "ends", "documents"), places, strict=True):
                np.save(_path(folder, part, name), array)
    return tuple(found)


def _places(lengths, counts):
    """Starts, ends and documents, from the lengths and the numbers of sentences."""
    documents = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    separators = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    ends = np.cumsum(lengths, dtype=np.int64) + separators
    return ends - lengths, ends, documents


def _batches(corpus, vocabulary):
    """For some documents at a time: their part, ids, lengths of sentences, numbers of sentences."""
    separator, unknown = vocabulary.id_of(SEP), vocabulary.id_of(UNKNOWN)
    number = unknowns = total = 0
    documents = iter(corpus.documents())
    while batch := list(itertools.islice(documents, _BATCH)):
        ids = iter(vocabulary.tokenize(sentence for document in batch for sentence in document))
        kept = {part: [] for part in PARTS}
        for document in batch:
            sentences = [s for s in itertools.islice(ids, len(document)) if len(s)]
            if sentences:
                kept["test" if is_held_out(number) else "train"].append(sentences)
                number += 1
        for part, found in kept.items():
            if found:
                flat = np.concatenate([s for sentences in found for s in (*sentences, [separator])])
                unknowns += np.count_nonzero(flat == unknown)
                total += len(flat)
                lengths = np.int32([len(s) for sentences in found for s in sentences])
                yield part, flat, lengths, np.int32([len(sentences) for sentences in found])
        if total >= _ENOUGH:  # so that one need not wait for the end of a large corpus
            vocabulary.check_unknown_share(unknowns / total, corpus.name)
    if number < MIN_DOCUMENTS:
        raise ValueError(
            f"{corpus.name} must have at least {MIN_DOCUMENTS} documents, so that some can be held "
            f"out. Received: {number}. In text files an empty line divides documents."
        )
    vocabulary.check_unknown_share(unknowns / total, corpus.name)


def written_at_once(folder, write):
    """Makes `folder` by `write(another folder)`, so that it is there wholly or not at all.

    Raises:
        OSError: If it can't be written.
    """
    unfinished = f"{folder}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        os.makedirs(unfinished)
    except OSError as error:
        raise OSError(
            f"Tokens are kept in files, and {os.path.dirname(folder)} can't be written "
            f"({error.strerror}): pass another folder as cache_dir."
        ) from error
    try:
        write(unfinished)
        os.rename(unfinished, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise  # else another worker was quicker, and made the same
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _mapped(folder, part):
    names = ("ids", "starts", "ends", "documents")
    arrays = (np.load(_path(folder, part, n), mmap_mode="r", allow_pickle=False) for n in names)
    return Tokens(*arrays, folder=os.path.join(folder, part))


def _path(folder, part, name):
    return os.path.join(folder, part, f"{name}.npy")


class _GrowingFile:
    """A .npy file of one dimension, whose length isn't known before its end."""

    def __init__(self, path, dtype):
        self._path, self._dtype, self._length = path, dtype, 0

    def __enter__(self):
        self._file = open(self._path, "wb")
        self._write_header()
        return self

    def append(self, array):
        self._file.write(array.astype(self._dtype).tobytes())
        self._length += len(array)

    def __exit__(self, *error):
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self):
        # NumPy leaves room in it for any length.
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
