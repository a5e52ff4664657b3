"""Pairs of sentences to translate, from text files or as TensorFlow Datasets prepares WMT's."""

import codecs
import itertools
import os

import tensorflow as tf

from tf_largebatch.data.prepared import prepared_folder, split_files
from tf_largebatch.data.source import Splits
from tf_largebatch.data.translation import TranslationSource
from tf_largebatch.data.vocabulary import build_vocabulary, load_vocabulary


def parallel_text(
    data_dir,
    source_language="en",
    target_language="de",
    max_length=150,
    vocabulary=None,
    vocabulary_size=32_320,
    lower_case=False,
    buckets=True,
    skip_bad_records=False,
):
    """Text files parallel line by line: `data_dir`/train.en and train.de, test.en and test.de.

    Args:
        data_dir: The folder, on any file system that TensorFlow knows.
        source_language, target_language: The endings of the files' names.
        max_length: Pieces in a sentence at most, with the [SEP] that ends it. Longer pairs are left
            out of training, the test keeps all, cut there; the sources' `notes` count both.
        vocabulary: Path of a vocab.txt, one token a line; None: made from both languages' training
            text.
        vocabulary_size: Tokens of one that is made.
        lower_case: Whether one that is made knows no capital letters.
        buckets: Whether batches are of like length; False for TPUs.
        skip_bad_records: Whether pairs with an empty line, or one that isn't UTF-8, are left out
            and listed as `bad_records`; if not, they are an error.

    Returns:
        `Splits(train, test)` of `TranslationSource`; the test has `references`, and the sources
        themselves as `baseline`.

    Raises:
        ValueError: If a file is missing or empty, files aren't of the same number of lines, a line
            is bad, the vocabulary doesn't fit, or an option is out of range.
        ImportError: If tensorflow-text isn't installed.
    """
    if data_dir is None:
        raise ValueError(
            f"The source parallel_text must be told the folder of the files, train."
            f"{source_language} and so on. Received: data_dir=None."
        )
    languages = (source_language, target_language)
    parts = [_read_files(data_dir, part, languages, skip_bad_records) for part in ("train", "test")]
    return _splits(
        data_dir, *parts, max_length=max_length, vocabulary=vocabulary,
        vocabulary_size=vocabulary_size, lower_case=lower_case, buckets=buckets,
    )  # fmt: skip


def wmt16(
    data_dir=None,
    test_dir=None,
    max_length=150,
    vocabulary=None,
    vocabulary_size=32_320,
    lower_case=False,
    buckets=True,
    skip_bad_records=False,
):
    """English to German, the 4.5 million pairs of WMT 2016, as TensorFlow Datasets prepares them.

    Args:
        data_dir: TensorFlow Datasets' folder; None: $TFDS_DATA_DIR or ~/tensorflow_datasets. What
            isn't there yet is downloaded into it, by the package tensorflow-datasets.
        test_dir: A folder with test.en and test.de to be judged by; None: newstest2016. The other
            sets of WMT, such as newstest2014, are written by sacrebleu's command:
            sacrebleu -t wmt14/full -l en-de --echo src > test.en (ref for test.de).
        max_length, vocabulary, vocabulary_size, lower_case, buckets, skip_bad_records: As for
            `parallel_text`.

    Returns:
        `Splits(train, test)`, as `parallel_text`.

    Raises:
        ValueError, ImportError: As `parallel_text`.
        ConnectionError: If the data must be downloaded and there is no network.
    """
    folder = prepared_folder("wmt16_translate/de-en", data_dir, instead="phrases")
    languages = ("en", "de")
    train = _read_records(folder, "train", languages, skip_bad_records)
    if test_dir is None:
        test = _read_records(folder, "test", languages, skip_bad_records)
    else:
        test = _read_files(test_dir, "test", languages, skip_bad_records)
    return _splits(
        "wmt16", train, test, max_length=max_length, vocabulary=vocabulary,
        vocabulary_size=vocabulary_size, lower_case=lower_case, buckets=buckets,
    )  # fmt: skip


def _splits(name, train, test, *, max_length, vocabulary, vocabulary_size, lower_case, buckets):
    if vocabulary is None:
        tokenizer = build_vocabulary(
            itertools.chain(*train[:2]), vocabulary_size, lower_case=lower_case,
            name=f"the vocabulary made from {name}",
        )  # fmt: skip
    else:
        tokenizer = load_vocabulary(vocabulary)

    def source(texts, **options):
        sources, targets, bad = texts
        return TranslationSource(
            name=name, sources=sources, targets=targets, tokenizer=tokenizer,
            max_length=max_length, buckets=buckets, bad_records=bad, **options,
        )  # fmt: skip

    train = source(train)
    train.check_vocabulary()
    options = {"references": tuple(test[1]), "baseline": tuple(test[0])}
    test = source(test, part="held-out", drop_longer=False, **options)
    return Splits(train=train, test=test)


def _read_files(folder, part, languages, skip_bad_records):
    """(sources, targets, bad_records) of the two files of one part."""
    paths = [os.path.join(folder, f"{part}.{language}") for language in languages]
    lines = [_lines(path) for path in paths]
    if len(lines[0]) != len(lines[1]):
        raise ValueError(
            f"{paths[0]} and {paths[1]} must be parallel, line by line. Received: "
            f"{len(lines[0])} and {len(lines[1])} lines."
        )

    def name_of(side, number):
        return f"{paths[side]}, line {number + 1}"

    return _checked(zip(*lines, strict=True), name_of, skip_bad_records, " and ".join(paths))


def _lines(path):
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise ValueError(
            f"Parallel text needs the file {path}, one sentence a line. Received: it can't be "
            f"read ({error.message.splitlines()[0]})."
        ) from None
    if not content.strip():
        raise ValueError(f"{path} must hold one sentence a line. Received: an empty file.")
    return content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")


def _read_records(folder, split, languages, skip_bad_records):
    """(sources, targets, bad_records) of one split that TensorFlow Datasets wrote."""
    files = split_files(folder, "wmt16_translate", split)
    features = {language: tf.io.FixedLenFeature((), tf.string) for language in languages}
    records = tf.data.TFRecordDataset(files).batch(1024)
    records = records.map(lambda batch: tf.io.parse_example(batch, features))
    pairs = []
    try:
        for batch in records.prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            pairs += zip(*(batch[language].tolist() for language in languages), strict=True)
    except tf.errors.OpError as error:
        raise ValueError(
            f"The files of the split {split} in {folder} cannot be used. Received, behind "
            f"{len(pairs)} pairs: {error.message.splitlines()[0]}. Prepare the data again."
        ) from None

    def name_of(side, number):
        return f"{folder}, split {split}, pair {number}, {languages[side]}"

    return _checked(pairs, name_of, skip_bad_records, f"{folder}, split {split},")


def _checked(pairs, name_of, skip_bad_records, where):
    sources, targets, bad, number = [], [], {}, -1
    for number, pair in enumerate(pairs):
        texts = []
        for side, line in enumerate(pair):
            try:
                text = line.decode().strip()
                wrong = "" if text else "is empty"
            except UnicodeDecodeError as error:
                text, wrong = "", f"isn't UTF-8 (byte {error.start} of the line)"
            if wrong:
                if not skip_bad_records:
                    raise ValueError(
                        f"{name_of(side, number)} {wrong}. Mend it, or leave such pairs out with "
                        "the option skip_bad_records."
                    )
                bad[name_of(side, number)] = wrong
            texts.append(text)
        if all(texts):
            sources.append(texts[0])
            targets.append(texts[1])
    if not sources:
        first = f", all bad; {' '.join(next(iter(bad.items())))}" if bad else ""
        raise ValueError(
            f"{where} must hold a pair of sentences that can be used. Received: {number + 1} "
            f"pairs{first}."
        )
    return sources, targets, bad
