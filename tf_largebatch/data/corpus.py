"""Where running text comes from: documents, each a list of sentences.

In memory, in text files, or in what TensorFlow Datasets prepared. Nothing is read before it is
asked for, and then document after document.
"""

import dataclasses
import os
import re
from collections.abc import Callable

from tf_largebatch.data.sentences import split_sentences

# What train.py leaves in the folder of a run; text there would change the data when it resumes.
_VOCABULARIES = {"vocabulary.txt", "vocab.txt"}
_RUN = {"config.json", "vocabulary.txt"}


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Documents.

    Attributes:
        name: What messages call it.
        documents: A function without arguments that yields the documents, lists of non-empty str,
            from the first one on, in the same order each time.
        identity: What the texts depend on, as str, such as the files' names and sizes: with another
            identity, nothing is taken from a cache. Empty for text that isn't worth a cache.
        bad_records: {name of the file: what is wrong} of those left out so far.
    """

    name: str
    documents: Callable = dataclasses.field(repr=False)
    identity: tuple = dataclasses.field(default=(), repr=False)
    bad_records: dict = dataclasses.field(default_factory=dict)


def text_files(data_dir, *, prose=False, skip_bad_records=False, instead="english"):
    """All files *.txt in a folder and its subfolders, in the order of their names.

    As BERT's own script reads them: one sentence a line, and an empty line between documents; a
    file's end ends a document, too. With `prose`, a document is a paragraph of any number of lines,
    between empty ones, and `split_sentences` divides it.

    Texts from several places are mixed by putting their folders, or links to them, into one folder.
    Passed over are vocabularies, called vocabulary.txt or vocab.txt, and in `data_dir` the folders
    of runs: those with a folder checkpoints, or with config.json beside vocabulary.txt.

    Args:
        data_dir: The folder, on any file system that TensorFlow knows.
        prose: Whether lines aren't sentences.
        skip_bad_records: Whether a file that is empty or not UTF-8 is counted in `bad_records` and
            left out, not an error.
        instead: The source that an error names, as one that needs no files.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: If there is no such folder, no such file in it, or, when it is read, a file is
            empty or isn't UTF-8, or none is left.
    """
    import tensorflow as tf

    if data_dir is None or not tf.io.gfile.isdir(data_dir):
        raise ValueError(
            f"data_dir must be a folder with text files, *.txt. Received: data_dir={data_dir!r}"
            + ("." if data_dir is None else ", which isn't a folder.")
            + f" Data that need none: {instead}."
        )
    data_dir = os.fspath(data_dir)
    paths = []
    for number, (folder, subfolders, names) in enumerate(tf.io.gfile.walk(data_dir)):
        if number and _is_run(subfolders, names):
            subfolders.clear()  # the walk then doesn't enter them
        else:
            paths += [os.path.join(folder, name) for name in names if _is_text(name)]
    paths.sort()
    if not paths:
        raise ValueError(
            f"data_dir must hold text files, *.txt, in it or its subfolders. Received: {data_dir}, "
            "which holds none; vocabularies and folders of runs are passed over. Data that need "
            f"none: {instead}."
        )
    bad_records = {}

    def documents():
        for path in paths:
            try:
                text = _text(path)
            except ValueError as error:
                if not skip_bad_records:
                    raise ValueError(
                        f"{path} {error}. Mend or remove it, or leave such files out with the "
                        "option skip_bad_records."
                    ) from None
                bad_records[path] = str(error)
                continue
            yield from _paragraphs(text) if prose else _blocks_of_lines(text)
        if len(bad_records) == len(paths):
            raise ValueError(
                f"{data_dir} must hold a text file that can be used. Received: {len(paths)} files, "
                f"all bad; {paths[0]} {bad_records[paths[0]]}."
            )

    return Corpus(
        data_dir,
        documents,
        (f"prose={prose}, skip_bad_records={skip_bad_records}", *_identity(paths, data_dir)),
        bad_records,
    )


def prepared_texts(name, data_dir=None, *, config=None, instead="english"):
    """The feature "text" of the split train of data that TensorFlow Datasets prepared.

    A document is a record; its lines are paragraphs, which `split_sentences` divides. Marks of
    Wiki-40B (_START_ARTICLE_ and the like) are left out, and so are paragraphs of fewer than four
    words, most of them headings.

    Args:
        name: The package's name of the data.
        data_dir: The package's folder; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
        config: The configuration, such as a date and a language; None for data without any.
        instead: The source that an error names, as one that needs no download.

    Returns:
        A `Corpus`.

    Raises:
        ValueError: If files are missing or damaged.
        ImportError, ConnectionError: If the data must be downloaded but can't be.
    """
    from tf_largebatch.data.prepared import prepared_folder, split_files

    full_name = f"{name}/{config}" if config else name
    folder = prepared_folder(full_name, data_dir, instead=instead)
    paths = split_files(folder, name, "train")

    def documents():
        for path in paths:
            for number, text in enumerate(_records(path)):
                try:
                    text = text.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"Texts must be UTF-8. Received: record {number} of {path}, with other "
                        f"bytes at its byte {error.start}. Prepare the data again."
                    ) from None
                sentences = [s for line in _lines(text) for s in split_sentences(line)]
                if sentences:
                    yield sentences

    return Corpus(full_name, documents, tuple(_identity(paths, folder)))


def prepared_dir(data_dir=None):
    """TensorFlow Datasets' folder: `data_dir`, or else $TFDS_DATA_DIR or its default."""
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
    return os.path.expanduser(data_dir)


def mixed(name, *corpora):
    """The documents of several corpora, one after the other; the plan of pairs mixes them."""

    bad_records = {}

    def documents():
        for corpus in corpora:
            yield from corpus.documents()
            bad_records.update(corpus.bad_records)

    identity = tuple(part for corpus in corpora for part in corpus.identity)
    return Corpus(name, documents, identity, bad_records)


def _is_text(name):
    name = name.lower()
    return name.endswith(".txt") and name not in _VOCABULARIES


def _is_run(subfolders, names):
    return "checkpoints" in {name.rstrip("/") for name in subfolders} or _RUN.issubset(names)


def _text(path):
    """What a file says; a `ValueError` says in a few words why it can't be used."""
    import tensorflow as tf

    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"isn't UTF-8 (byte {error.start} of the file)") from None
    if not text.strip():
        raise ValueError("is empty")
    return text


def _blocks_of_lines(text):
    """One sentence a line, an empty line between documents."""
    document = []
    for line in [*text.splitlines(), ""]:
        line = line.strip()
        if line:
            document.append(line)
        elif document:
            yield document
            document = []


def _paragraphs(text):
    for block in _blocks_of_lines(text):
        yield split_sentences(" ".join(block))


def _lines(text):
    """The paragraphs of a record."""
    for line in text.replace("_NEWLINE_", "\n").splitlines():
        line = line.strip()
        if line.count(" ") >= 3 and not re.fullmatch(r"_[A-Z]+_[A-Z]+_", line):
            yield line


def _records(path):
    """The feature "text" of each record of a TFRecord file, as bytes."""
    import tensorflow as tf

    feature = {"text": tf.io.FixedLenFeature((), tf.string)}
    records = tf.data.TFRecordDataset(path).batch(64)
    records = records.map(lambda batch: tf.io.parse_example(batch, feature)["text"])
    try:
        for batch in records.prefetch(2).as_numpy_iterator():
            yield from batch.tolist()
    except tf.errors.OpError as error:
        raise ValueError(
            f"{path} must be a whole TFRecord file of records with a text. Received: "
            f"{error.message.splitlines()[0]}. Prepare the data again."
        ) from None


def _identity(paths, folder):
    """The files' names below `folder`, and their sizes and dates."""
    import tensorflow as tf

    for path in paths:
        stat = tf.io.gfile.stat(path)
        yield f"{os.path.relpath(path, folder)} {stat.length} {stat.mtime_nsec}"
