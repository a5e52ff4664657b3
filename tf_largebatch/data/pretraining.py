"""Text for pre-training, and where to find it: embedded, in your files, or prepared for you.

Every loader takes the options of `PretrainingOptions`, such as `sequence_length`, and returns
sources of the task "masked_lm". One document in twenty is held out.
"""

import functools
import hashlib
import os

import tensorflow as tf

from tf_largebatch.data import corpus as corpora
from tf_largebatch.data import english as embedded
from tf_largebatch.data.masked_lm import PretrainingOptions, PretrainingSource
from tf_largebatch.data.pairs import planned
from tf_largebatch.data.source import Splits
from tf_largebatch.data.tokenized import tokenized
from tf_largebatch.data.vocabulary import build_vocabulary, load_vocabulary, save_vocabulary
from tf_largebatch.scaling import check_count


def english(max_characters=embedded.MAX_CHARACTERS, **options: PretrainingOptions):
    """English of Python's manual and of installed packages' docstrings: nothing is downloaded.

    Args:
        max_characters: How much of it, at most; the manual has .24 million.
        options: Those of `PretrainingOptions`.

    Returns:
        `Splits(train, test)`. The text, and so the vocabulary, depends on the versions of Python,
        numpy, scikit-learn and Keras.

    Raises:
        ValueError: If an option is out of range.
        ImportError: If tensorflow-text isn't installed.
    """
    return _splits(embedded.english(check_count("max_characters", max_characters)), options)


def topics(**options: PretrainingOptions):
    """English of Python's manual alone, 45,000 words: as `english`, and quicker to load.

    >>> topics(vocabulary_size=1024).train.model_arguments
    {'vocabulary_size': 1024, 'next_sentence': True}
    """
    return _splits(embedded.topics(), options)


def text_folder(
    data_dir=None,
    prose=False,
    skip_bad_records=False,
    cache_dir=None,
    **options: PretrainingOptions,
):
    """Text files of your own, `data_dir`/**/*.txt (`tf_largebatch.data.corpus.text_files`).

    Args:
        data_dir: The folder; several sources are mixed by folders in it.
        prose: Whether lines aren't sentences but text that runs on, with an empty line between
            paragraphs, each of which is then a document.
        skip_bad_records: Whether files that are empty or not UTF-8 are left out and counted.
        cache_dir: Local folder in which tokens and plans are kept, so that the next start takes
            seconds; made if missing; None: `data_dir`.
        options: Those of `PretrainingOptions`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If there is no text, a file can't be used, there are fewer than 40 documents, or
            an option is out of range.
        ImportError: If tensorflow-text isn't installed.
        OSError: If `cache_dir` can't be written.
    """
    corpus = corpora.text_files(data_dir, prose=prose, skip_bad_records=skip_bad_records)
    return _splits(corpus, options, cache_dir or data_dir)


def wikipedia(data_dir=None, config="20230601.en", cache_dir=None, **options: PretrainingOptions):
    """Wikipedia as TensorFlow Datasets prepares it.

    Args:
        data_dir: TensorFlow Datasets' folder; None: $TFDS_DATA_DIR or ~/tensorflow_datasets. What
            isn't there yet is downloaded into it, by the package tensorflow-datasets.
        config: Date and language.
        cache_dir: As for `text_folder`.
        options: Those of `PretrainingOptions`.

    Returns:
        `Splits(train, test)`, both of the package's split train.

    Raises:
        ValueError: If files are missing or damaged, or an option is out of range.
        ImportError, ConnectionError: If the data must be downloaded but can't be.
        OSError: If `cache_dir` can't be written.
    """
    return _prepared("wikipedia", data_dir, config, cache_dir, options)


def wiki40b(data_dir=None, config="en", cache_dir=None, **options: PretrainingOptions):
    """Wiki-40B (Guo et al. 2020), cleaned Wikipedia; arguments and the rest as `wikipedia`."""
    return _prepared("wiki40b", data_dir, config, cache_dir, options)


def c4(data_dir=None, config="en", cache_dir=None, **options: PretrainingOptions):
    """C4 (Raffel et al. 2020), pages of the web; arguments and the rest as `wikipedia`."""
    return _prepared("c4", data_dir, config, cache_dir, options)


def wikipedia_books(
    data_dir=None,
    config="20230601.en",
    skip_bad_records=False,
    cache_dir=None,
    **options: PretrainingOptions,
):
    """Wikipedia and books, BERT's data; the books you must have: BookCorpus isn't distributed.

    Args:
        data_dir: TensorFlow Datasets' folder, with a folder books of text files in it, one sentence
            a line and an empty line between documents.
        config, cache_dir: As for `wikipedia`.
        skip_bad_records: As for `text_folder`.
        options: Those of `PretrainingOptions`.

    Returns:
        `Splits(train, test)`.

    Raises:
        ValueError: If the books aren't there; or as for `wikipedia`.
        ImportError, ConnectionError, OSError: As for `wikipedia`.
    """
    PretrainingOptions(**options)  # refused before anything is downloaded
    data_dir = corpora.prepared_dir(data_dir)
    folder = os.path.join(data_dir, "books")
    if not tf.io.gfile.isdir(folder):
        raise ValueError(
            "wikipedia_books needs books as text files, one sentence a line, which can't be "
            f"downloaded. Received: data_dir={data_dir}, which has no folder books. Text without "
            "books: wikipedia; without a download: english."
        )
    books = corpora.text_files(folder, skip_bad_records=skip_bad_records)
    texts = corpora.prepared_texts("wikipedia", data_dir, config=config)
    corpus = corpora.mixed("wikipedia_books", texts, books)
    return _splits(corpus, options, cache_dir or data_dir)


def _prepared(name, data_dir, config, cache_dir, options):
    data_dir = corpora.prepared_dir(data_dir)
    PretrainingOptions(**options)  # refused before anything is downloaded
    corpus = corpora.prepared_texts(name, data_dir, config=config)
    return _splits(corpus, options, cache_dir or data_dir)


def _splits(corpus, options, cache_dir=None):
    options = PretrainingOptions(**options)
    if cache_dir is not None and "://" in os.fspath(cache_dir):
        raise ValueError(
            "Tokens are mapped into memory from local files. Received: "
            f"{cache_dir}. Pass a local folder as cache_dir."
        )
    if options.vocabulary is not None:
        tokenizer = load_vocabulary(options.vocabulary)
        parts = tokenized(corpus, tokenizer, cache_dir)
    elif cache_dir is None:
        tokenizer, parts = _embedded(corpus, options.vocabulary_size)
    else:
        tokenizer = _vocabulary_of(corpus, options.vocabulary_size, cache_dir)
        parts = tokenized(corpus, tokenizer, cache_dir)
    sources = (
        PretrainingSource(
            name=corpus.name,
            tokens=tokens,
            plan=planned(tokens, options.packing, options.sequence_length),
            tokenizer=tokenizer,
            options=options,
            bad_records=corpus.bad_records if tokens is parts[0] else {},  # each said once
            training_tokens=parts[0],
        )
        for tokens in parts
    )
    return Splits(*sources)


@functools.lru_cache(maxsize=2)
def _embedded(corpus, vocabulary_size):
    """Made once a process: a run of two lengths asks for it twice."""
    tokenizer = _built(corpus, vocabulary_size)
    return tokenizer, tokenized(corpus, tokenizer)


def _built(corpus, size):
    texts = (sentence for document in corpus.documents() for sentence in document)
    return build_vocabulary(texts, size, name=f"the vocabulary of {corpus.name}")


def _vocabulary_of(corpus, size, cache_dir):
    """The vocabulary of a corpus, kept in a file that is no *.txt, which would be text itself."""
    digest = hashlib.sha256("\n".join((str(size), *corpus.identity)).encode()).hexdigest()[:16]
    path = os.path.join(cache_dir, f"vocabulary-{digest}")
    if not os.path.exists(path):
        try:
            os.makedirs(cache_dir, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"The vocabulary is kept in a file, and {cache_dir} can't be written "
                f"({error.strerror}): pass another folder as cache_dir."
            ) from error
        save_vocabulary(_built(corpus, size), path)
    return load_vocabulary(path)
