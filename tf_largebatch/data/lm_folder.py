"""A language model's data from text files, such as the Penn Treebank's."""

import codecs
import collections
import os

import numpy as np
import tensorflow as tf

from tf_largebatch.data.language_model import TokenStream
from tf_largebatch.data.source import Splits
from tf_largebatch.data.vocabulary import (
    MAX_BYTES_PER_WORD,
    SEP,
    SPECIAL_TOKENS,
    UNKNOWN,
    Vocabulary,
    load_vocabulary,
)
from tf_largebatch.scaling import check_count

_FILES = ("{}.txt", "ptb.{}.txt", "wiki.{}.tokens")  # also as the Penn Treebank and WikiText come


def lm_folder(
    data_dir,
    sequence_length=35,
    vocabulary=None,
    vocabulary_size=None,
    held_out="valid",
    skip_bad_records=False,
):
    """Text whose words are divided by spaces, such as the Penn Treebank (Mikolov et al. 2010).

    The files are `data_dir`/train.txt, valid.txt and test.txt; ptb.train.txt and wiki.train.tokens
    will also do. Words are taken as they are; the end of a line is [SEP], <unk> is [UNK].

    Args:
        data_dir: The folder, on any file system that TensorFlow knows.
        sequence_length: Words in a window.
        vocabulary: Path of a file with one word a line, and BERT's five special tokens; None: the
            words of train.txt, the most frequent one first, up to 200 bytes long.
        vocabulary_size: Tokens at most of one that is made; None: all.
        held_out: What the model is judged by: `"valid"`, while anything is chosen, or `"test"`.
        skip_bad_records: Whether lines that aren't UTF-8 are left out and listed as `bad_records`;
            if not, they are an error.

    Returns:
        `Splits(train, test)` of `TokenStream`.

    Raises:
        ValueError: If a file is missing or empty, or a line bad, the vocabulary doesn't fit, or an
            option is out of range.
    """
    if held_out not in ("valid", "test"):
        raise ValueError(f"held_out must be valid or test. Received: held_out={held_out!r}.")
    train, test = (_read_lines(data_dir, part, skip_bad_records) for part in ("train", held_out))
    if vocabulary is None:
        tokenizer = _words_of(train[0], vocabulary_size, f"the words of {data_dir}")
    else:
        tokenizer = load_vocabulary(vocabulary)
    ids = {token: place for place, token in enumerate(tokenizer.tokens)}
    ids.setdefault("<unk>", ids[UNKNOWN])

    def source(stream, bad_records, **options):
        return TokenStream(
            name=data_dir, ids=stream, tokenizer=tokenizer, sequence_length=sequence_length,
            bad_records=bad_records, **options,
        )  # fmt: skip

    stream, missing = _looked_up(train[0], ids)
    tokenizer.check_unknown_share(missing / len(stream), data_dir)
    train = source(stream, train[1])
    stream, _ = _looked_up(test[0], ids)
    return Splits(train=train, test=source(stream, test[1], training_counts=train.training_counts))


def _read_lines(data_dir, part, skip_bad_records):
    """The lines of a part, list of str, and {line: what is wrong} of those left out."""
    paths = [os.path.join(data_dir or "", name.format(part)) for name in _FILES]
    path = next((path for path in paths if tf.io.gfile.exists(path)), None)
    if data_dir is None or path is None:
        raise ValueError(
            f"data_dir must be a folder with the file {part}.txt. Received: data_dir={data_dir!r}"
            + ("." if data_dir is None else ", which has none.")
            + " held_out says which of valid and test is read; data that need no files: english_lm."
        )
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    if not content.strip():
        raise ValueError(f"{path} must hold text. Received: an empty file.")
    lines, bad = [], {}
    content = content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n")
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            wrong = f"isn't UTF-8 (byte {error.start} of the line)"
            if not skip_bad_records:
                raise ValueError(
                    f"{path}, line {number} {wrong}. Mend it, or leave such lines out with the "
                    "option skip_bad_records."
                ) from None
            bad[f"{path}, line {number}"] = wrong
    if not lines:
        raise ValueError(
            f"{path} must have lines that can be used. Received: {len(bad)} lines, all bad; the "
            f"first {next(iter(bad.values()))}."
        )
    return lines, bad


def _words_of(lines, vocabulary_size, name):
    counts = collections.Counter()
    for line in lines:
        counts.update(line.split())
    for token in (*SPECIAL_TOKENS, "<unk>"):
        del counts[token]
    words = (word for word in counts if len(word.encode()) <= MAX_BYTES_PER_WORD)
    words = sorted(words, key=lambda word: (-counts[word], word))
    if vocabulary_size is not None:
        at_least = len(SPECIAL_TOKENS) + 1
        vocabulary_size = check_count("vocabulary_size", vocabulary_size, at_least=at_least)
        words = words[: vocabulary_size - len(SPECIAL_TOKENS)]
    return Vocabulary([*SPECIAL_TOKENS, *words], name, lower_case=False)


def _looked_up(lines, ids):
    """The stream of a text, (tokens,) int32, and how many words `ids` doesn't have."""
    unknown, end = ids[UNKNOWN], ids[SEP]
    missing = 0

    def stream():
        nonlocal missing
        for line in lines:
            for word in line.split():
                if word not in ids:
                    missing += 1
                yield ids.get(word, unknown)
            yield end

    return np.fromiter(stream(), np.int32), missing
