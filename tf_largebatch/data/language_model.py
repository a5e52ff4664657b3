"""Language models' data: one stream of tokens, cut into windows, each token to be foretold.

Window i of T tokens has the tokens from i T on as inputs and those from i T + 1 on as labels, so
that every token but the stream's first is a label once an epoch; what the last window lacks is
padding. Unlike Zaremba et al. 2014 (arXiv:1409.2329), whose rows of a batch continue those of the
batch before, windows come in any order and each begins without a past: perplexities are higher than
theirs, and less so the longer the windows are.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tf_largebatch.data import english
from tf_largebatch.data.source import Splits, Text
from tf_largebatch.data.tokenized import tokenized
from tf_largebatch.data.vocabulary import PAD, Vocabulary, build_vocabulary, load_vocabulary
from tf_largebatch.scaling import check_count


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenStream(Text):
    """A stream of tokens in memory, of which any window can be read at any time.

    What `read` gives: inputs and labels (batch, sequence_length) int32, and weights of that shape,
    0 behind the end of the stream.

    Attributes:
        name: What messages call the data.
        ids: (number of tokens,) integers, two or more.
        tokenizer: The `tf_largebatch.data.vocabulary.Vocabulary` of the ids.
        sequence_length: Tokens in a window.
        training_counts: (vocabulary_size,) how often each token comes in the training stream; None:
            this is the training stream.
        bad_records: {record: what is wrong} of the lines left out.

    Raises:
        ValueError: If there aren't two tokens, an id is none of the vocabulary's, or
            `sequence_length` isn't a whole number of at least 1.

    >>> from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary
    >>> tokenizer = Vocabulary([*SPECIAL_TOKENS, "a", "b"])
    >>> stream = TokenStream(name="six", ids=[5, 6, 6, 5, 6, 3], tokenizer=tokenizer,
    ...                      sequence_length=3)
    >>> inputs, labels, weights = stream.read(tf.constant([0, 1]))
    >>> inputs.numpy().tolist(), labels.numpy().tolist(), weights.numpy().tolist()
    ([[5, 6, 6], [5, 6, 3]], [[6, 6, 5], [6, 3, 0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """

    name: str
    ids: np.ndarray = dataclasses.field(repr=False)
    tokenizer: Vocabulary
    sequence_length: int = 35
    training_counts: np.ndarray | None = dataclasses.field(default=None, repr=False)
    bad_records: dict = dataclasses.field(default_factory=dict, repr=False)

    task = "language_model"

    def __post_init__(self):
        check_count("sequence_length", self.sequence_length)
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or len(ids) < 2 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"{self.name} must be a stream of two or more whole numbers. Received: shape "
                f"{ids.shape}, dtype {ids.dtype}. Check the text that it comes from."
            )
        if ids.min() < 0 or ids.max() >= self.tokenizer.size:
            raise ValueError(
                f"The ids of {self.name} must be those of {self.tokenizer.name}, from 0 to "
                f"{self.tokenizer.size - 1}. Received: {ids.min()} to {ids.max()}."
            )
        object.__setattr__(self, "ids", ids)
        if self.training_counts is None:
            counts = np.bincount(ids, minlength=self.tokenizer.size)
            object.__setattr__(self, "training_counts", counts)

    @property
    def num_examples(self):
        """The number of windows, one epoch's worth."""
        return -(-(len(self.ids) - 1) // self.sequence_length)

    @functools.cached_property
    def unigram_accuracy(self):
        """The accuracy of always foretelling the training stream's most frequent token."""
        return float(np.mean(self.ids[1:] == self.training_counts.argmax()))

    @functools.cached_property
    def unigram_perplexity(self):
        """The perplexity of foretelling each token by its frequency in the training stream.

        Each token is taken to have come once more there, so that none is impossible.
        """
        counts = self.training_counts + 1.0
        return float(np.exp(-np.log(counts / counts.sum())[self.ids[1:]].mean()))

    @functools.cached_property
    def _tensor(self):
        with tf.init_scope(), tf.device("CPU"):  # where it is read
            return tf.constant(self.ids)

    def read(self, examples, keys=None):
        """As every source (`tf_largebatch.data.source`): see above."""
        del keys  # nothing is random
        tokens = len(self.ids)
        starts = tf.cast(examples, tf.int64) * self.sequence_length
        places = starts[:, tf.newaxis] + tf.range(self.sequence_length + 1, dtype=tf.int64)
        inside = places < tokens
        ids = tf.cast(tf.gather(self._tensor, tf.minimum(places, tokens - 1)), tf.int32)
        ids = tf.where(inside, ids, self.tokenizer.id_of(PAD))
        return ids[:, :-1], ids[:, 1:], tf.cast(inside[:, 1:], tf.float32)


def english_lm(sequence_length=35, vocabulary=None, vocabulary_size=2048):
    """Python's manual and the docstrings of packages (`tf_largebatch.data.english`).

    One of twenty documents is held out. [SEP] ends each document.

    Args:
        sequence_length: Tokens in a window.
        vocabulary: Path of a vocab.txt, one token a line; None: made from the text.
        vocabulary_size: Tokens of one that is made.

    Returns:
        `Splits(train, test)` of `TokenStream`, in pieces of words.

    Raises:
        ValueError: If an option is out of range, or the vocabulary doesn't fit.
        ImportError: If tensorflow-text isn't installed.
    """
    return _corpus(english.english(), sequence_length, vocabulary, vocabulary_size)


def topics_lm(sequence_length=35, vocabulary=None, vocabulary_size=2048):
    """Python's manual alone, less than a fifth of `english_lm`.

    Args:
        sequence_length, vocabulary, vocabulary_size: As for `english_lm`.

    Returns:
        `Splits(train, test)`, as `english_lm`.

    Raises:
        ValueError, ImportError: As `english_lm`.
    """
    return _corpus(english.topics(), sequence_length, vocabulary, vocabulary_size)


def _corpus(corpus, sequence_length, vocabulary, vocabulary_size):
    if vocabulary is None:
        texts = (sentence for document in corpus.documents() for sentence in document)
        tokenizer = build_vocabulary(
            texts, vocabulary_size, name=f"the vocabulary made from {corpus.name}"
        )
    else:
        tokenizer = load_vocabulary(vocabulary)
    train, test = (tokens.ids for tokens in tokenized(corpus, tokenizer))
    options = {"name": corpus.name, "tokenizer": tokenizer, "sequence_length": sequence_length}
    train = TokenStream(ids=train, **options)
    return Splits(
        train=train, test=TokenStream(ids=test, training_counts=train.training_counts, **options)
    )
