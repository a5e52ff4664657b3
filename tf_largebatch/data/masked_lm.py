"""Masked examples of a corpus, BERT's way: the source of the task "masked_lm".

An example is [CLS] A [SEP] B [SEP]. What lies in A and B is planned once, for all seeds
(`tf_largebatch.data.pairs`), and what is masked is drawn from the example's key, anew in every
epoch (`tf_largebatch.data.masking`); in evaluation from its number, always the same.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tf_largebatch.data.batches import evaluation_batches
from tf_largebatch.data.masking import PERCENT, fixed_keys, masked
from tf_largebatch.data.pairs import MIN_SEQUENCE_LENGTH, PACKINGS, Plan
from tf_largebatch.data.records import constant
from tf_largebatch.data.source import Text
from tf_largebatch.data.tokenized import Tokens
from tf_largebatch.data.vocabulary import CLS, PAD, SEP, Vocabulary
from tf_largebatch.scaling import check_count

# Predictions of BERT's two phases; elsewhere 15 % of the length.
_MAX_PREDICTIONS = {128: 20, 512: 76}


@dataclasses.dataclass(frozen=True)
class PretrainingOptions:
    """What every source for pre-training can be told.

    Attributes:
        sequence_length: Tokens in an example, with special ones and padding; at least 8.
        max_predictions: Tokens to guess in an example at most; None: 20 at length 128, 76 at 512,
            else 15 % of the length, rounded up.
        vocabulary: Path of a vocab.txt; None makes a vocabulary from the corpus, the same at every
            length.
        vocabulary_size: Tokens of the vocabulary that is made, at most.
        packing: `"pairs"`: BERT's pairs of segments, half of them strangers; `"full_sentences"`:
            as many whole sentences as fit (`tf_largebatch.data.pairs`).
        next_sentence: Whether to learn which pairs are strangers, too; None: if there are pairs.
        whole_word: Whether words are masked as a whole, not token by token.

    Raises:
        ValueError: If one is out of range.

    >>> options = PretrainingOptions(sequence_length=512, packing="full_sentences")
    >>> options.max_predictions, options.next_sentence
    (76, False)
    """

    sequence_length: int = 128
    max_predictions: int | None = None
    vocabulary: str | None = None
    vocabulary_size: int = 2048
    packing: str = "pairs"
    next_sentence: bool | None = None
    whole_word: bool = False

    def __post_init__(self):
        length = check_count("sequence_length", self.sequence_length, at_least=MIN_SEQUENCE_LENGTH)
        at_most = self.max_predictions
        if at_most is None:
            at_most = _MAX_PREDICTIONS.get(length, -(-PERCENT * length // 100))
        at_most = check_count("max_predictions", at_most, at_most=length)
        if self.packing not in PACKINGS:
            raise ValueError(
                f"packing must be one of {', '.join(PACKINGS)}. Received: {self.packing!r}."
            )
        pairs = self.packing == "pairs"
        next_sentence = pairs if self.next_sentence is None else bool(self.next_sentence)
        if next_sentence and not pairs:
            raise ValueError(
                "next_sentence needs pairs. Received: next_sentence=True with packing="
                f"{self.packing!r}. Leave next_sentence out, or pass packing='pairs'."
            )
        for name, value in (
            ("sequence_length", length), ("max_predictions", at_most),
            ("next_sentence", next_sentence), ("whole_word", bool(self.whole_word)),
        ):  # fmt: skip
            object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainingSource(Text):
    """Masked examples of a corpus.

    `read` gives inputs {"token_ids", "segment_ids", "padding_mask"} (batch, sequence_length) int32
    and {"mask_positions"} (batch, max_predictions) int32; labels {"masked_lm"} (batch,
    max_predictions) int32 and, with `next_sentence`, {"next_sentence"} (batch,) int32: 0 where B
    follows A, 1 where it is a stranger; and weights of the same structure.

    Attributes:
        name: What messages call it.
        tokens: `tf_largebatch.data.tokenized.Tokens`.
        plan: `tf_largebatch.data.pairs.Plan`.
        tokenizer: The `Vocabulary`.
        options: `PretrainingOptions`.
        bad_records: {name: what is wrong} of the files left out; of a corpus in two parts, only
            the part to train on says them.
        training_tokens: The `Tokens` that are trained on; None: `tokens`.
    """

    name: str
    tokens: Tokens = dataclasses.field(repr=False)
    plan: Plan = dataclasses.field(repr=False)
    tokenizer: Vocabulary
    options: PretrainingOptions
    bad_records: dict = dataclasses.field(default_factory=dict)
    training_tokens: Tokens | None = dataclasses.field(default=None, repr=False)

    task = "masked_lm"

    @property
    def num_examples(self):
        """The number of examples, one epoch's worth."""
        return len(self.plan.is_random)

    @property
    def model_arguments(self):
        """The number of tokens, and whether the next sentence is to be told."""
        return {**super().model_arguments, "next_sentence": self.options.next_sentence}

    @functools.cached_property
    def unigram_accuracy(self):
        """The share of the tokens to guess that are training's most frequent token.

        As masked in evaluation. It is the best guess without context, which a model must pass.
        """
        trained = self.tokens if self.training_tokens is None else self.training_tokens
        counts = np.bincount(trained.ids, minlength=self.tokenizer.size)
        counts[self.tokenizer.special_ids] = 0
        guess, right, total = counts.argmax(), 0.0, 0.0
        for _, labels, weights in evaluation_batches(self, batch_size=256).as_numpy_iterator():
            present = weights["masked_lm"] > 0
            right += np.count_nonzero(labels["masked_lm"][present] == guess)
            total += np.count_nonzero(present)
        return float(right / total)

    @functools.cached_property
    def _tables(self):
        return tuple(map(_table, (self.tokens.ids, *self.plan)))

    def read(self, examples, keys=None):
        """As every source: (inputs, labels, weights)."""
        ids, spans, is_random = self._tables
        a_start, a_end, b_start, b_end = tf.unstack(spans(examples)[..., tf.newaxis], axis=1)
        # All of shape (batch, 1): where B would begin in the example, and where all ends.
        b_place = a_end - a_start + 2
        b_stop = b_place + b_end - b_start
        end = tf.where(b_end > b_start, b_stop + 1, b_place)
        place = tf.range(self.options.sequence_length, dtype=tf.int64)
        in_a = (place > 0) & (place < b_place - 1)
        in_b = (place >= b_place) & (place < b_stop)
        source = tf.where(in_b, b_start + place - b_place, a_start + place - 1)
        token_ids = tf.cast(ids(tf.where(in_a | in_b, source, 0)), tf.int32)
        pad, cls, sep = (self.tokenizer.id_of(token) for token in (PAD, CLS, SEP))
        outside = tf.where(place < end, tf.where(place == 0, cls, sep), pad)
        token_ids = tf.where(in_a | in_b, token_ids, outside)
        found = masked(
            token_ids,
            fixed_keys(examples) if keys is None else keys,
            vocabulary=self.tokenizer,
            max_predictions=self.options.max_predictions,
            whole_word=self.options.whole_word,
        )
        inputs = {
            "token_ids": found.token_ids,
            "segment_ids": tf.cast((place >= b_place) & (place < end), tf.int32),
            "padding_mask": tf.cast(place < end, tf.int32),
            "mask_positions": found.positions,
        }
        labels, weights = {"masked_lm": found.labels}, {"masked_lm": found.weights}
        if self.options.next_sentence:
            labels["next_sentence"] = tf.cast(is_random(examples), tf.int32)
            weights["next_sentence"] = tf.ones_like(labels["next_sentence"], tf.float32)
        return inputs, labels, weights


def _table(array):
    """A function from places in the array to what is there, in TensorFlow graph code."""
    if not isinstance(array, np.memmap):
        tensor = constant(array)
        return lambda places: tf.gather(tensor, places)

    def looked_up(places):  # a tensor would be a copy of the whole file
        found = tf.numpy_function(lambda p: array[p], [places], array.dtype, stateful=False)
        return tf.ensure_shape(found, (*places.shape, *array.shape[1:]))

    return looked_up
