"""SQuAD, the Stanford Question Answering Dataset, from its own files."""

import os

import tensorflow as tf

from tf_largebatch.data.answers import VERSIONS
from tf_largebatch.data.paragraphs import BadRecords, decode, parse
from tf_largebatch.data.source import Splits
from tf_largebatch.data.spans import SpanSource
from tf_largebatch.data.vocabulary import load_vocabulary


def squad(
    data_dir=None,
    version="1.1",
    sequence_length=384,
    stride=128,
    max_query_length=64,
    vocabulary=None,
    skip_bad_records=False,
):
    """SQuAD 1.1 or 2.0 (Rajpurkar et al. 2016, 2018): questions about paragraphs of Wikipedia.

    1.1 has 87,599 questions to train on and 10,570 held out, each answered by a span of its
    paragraph; 2.0 has 130,319 and 11,873, a good third of them without an answer.

    Args:
        data_dir: The folder of train-v1.1.json and dev-v1.1.json, or train-v2.0.json and
            dev-v2.0.json, from rajpurkar.github.io/SQuAD-explorer; any file system that TensorFlow
            knows.
        version: `"1.1"` or `"2.0"`.
        sequence_length, stride, max_query_length: Of the windows, in tokens
            (`tf_largebatch.data.spans.SpanSource`); the defaults are BERT's.
        vocabulary: The file with the tokens of the encoder that is trained further, one a line.
        skip_bad_records: Whether to leave out and count (`bad_records`) what can't be used, such as
            an answer that isn't where it is said to be; otherwise it is an error.

    Returns:
        `Splits(train, test)` of `SpanSource`; `test.judge` computes F1 and exact match.

    Raises:
        ValueError: If a file is missing, broken or empty, a record of it is bad, the vocabulary
            doesn't fit, or an option is out of range.
        ImportError: If tensorflow-text isn't installed.
    """
    version = str(version)  # a command line may have made a number of it
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}. Received: {version!r}.")
    names = [f"{part}-v{version}.json" for part in ("train", "dev")]
    if data_dir is None:
        raise ValueError(
            f"The source squad must be told the folder of {names[0]} and {names[1]}, data_dir. "
            "Received: None. The files are at rajpurkar.github.io/SQuAD-explorer. Data that need "
            "none: questions."
        )
    if vocabulary is None:
        raise ValueError(
            "The source squad must be told the vocabulary of the encoder that is trained further. "
            "Received: vocabulary=None. Pass the path of its vocabulary.txt, or of BERT's "
            "vocab.txt."
        )
    files = [os.path.join(os.fspath(data_dir), name) for name in names]
    contents = [_content(file) for file in files]
    tokenizer = load_vocabulary(vocabulary)
    train, test = (
        span_source(
            decode(content, file),
            BadRecords(file, skip_bad_records),
            name="squad",
            tokenizer=tokenizer,
            version=version,
            sequence_length=sequence_length,
            stride=stride,
            max_query_length=max_query_length,
            part=part,
        )
        for part, content, file in zip(("training", "held-out"), contents, files, strict=True)
    )
    return Splits(train=train, test=test)


def span_source(document, bad, **options):
    """A source of the windows of a document.

    Args:
        document: As `tf_largebatch.data.paragraphs` describes it.
        bad: The `BadRecords` that learns what can't be used.
        options: Of `SpanSource`: name, tokenizer, version, lengths.

    Returns:
        A `SpanSource`.

    Raises:
        ValueError, ImportError: As `parse` and `SpanSource`.
    """
    return SpanSource(paragraphs=parse(document, options["version"], bad), bad=bad, **options)


def _content(file):
    try:
        with tf.io.gfile.GFile(file, "rb") as opened:
            return opened.read()
    except tf.errors.OpError as error:
        raise ValueError(
            f"data_dir must hold SQuAD's file {os.path.basename(file)}. Received: {file}, which "
            f"can't be read ({error.message.splitlines()[0]}). Put it there, from "
            "rajpurkar.github.io/SQuAD-explorer. Data that need no files: questions."
        ) from None
