"""Which tokens a masked language model must guess, as a pure function of a key for each example.

Masking as in BERT (Devlin et al. 2018, arXiv:1810.04805, section 3.1): 15 % of the tokens are to be
guessed, of which 80 % are replaced by [MASK], 10 % by a random token, and 10 % stay. With whole
words, all pieces of a word are guessed or none, and a word that would exceed the number is passed
over (BERT's script of May 2019).

Every number drawn is SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) at the
place of a token or of a word in a stream that the example's key chooses: a few multiplications and
shifts of whole tensors, since TensorFlow's own stateless generators take one seed for a tensor, not
one for each row.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_largebatch.data.vocabulary import CLS, MASK, PAD, SEP

PERCENT = 15

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_TOKENS, _WORDS = 0, 2**32  # where the streams of numbers begin
_LOW_BITS = 33


class Masked(NamedTuple):
    """A batch with masks.

    Attributes:
        token_ids: (batch, length) int32, some replaced.
        positions: (batch, max_predictions) int32: the places to guess, in ascending order, then 0.
        labels: (batch, max_predictions) int32: the tokens there; 0 where there is none.
        weights: (batch, max_predictions) float32: 1, or 0 where there is none.
    """

    token_ids: tf.Tensor
    positions: tf.Tensor
    labels: tf.Tensor
    weights: tf.Tensor


def masked(token_ids, keys, *, vocabulary, max_predictions, whole_word=False):
    """Choose the tokens to guess, and hide them.

    Args:
        token_ids: (batch, length) int32, the length static.
        keys: (batch, 2) int32, one for each example and epoch, of which alone all that is random is
            a function.
        vocabulary: The `Vocabulary` of the tokens.
        max_predictions: Tokens to guess at most, from 1 to length.
        whole_word: Whether words are guessed as a whole. A word cut off at its beginning counts
            from there.

    Returns:
        `Masked`. Of n tokens as many are guessed as the nearest whole number to .15 n, halves up,
        at least 1, at most `max_predictions`; with whole words, that or fewer. As in BERT's script,
        n counts [CLS] and [SEP], which are never guessed themselves, but not [PAD].

    >>> from tf_largebatch.data.vocabulary import Vocabulary
    >>> vocabulary = Vocabulary([PAD, "[UNK]", CLS, SEP, MASK, *"abcdefgh"])
    >>> ids = tf.constant([[2, 5, 6, 7, 8, 9, 10, 11, 12, 5, 6, 7, 3, 0, 0]])
    >>> found = masked(ids, [[3, 2]], vocabulary=vocabulary, max_predictions=3)
    >>> found.token_ids.numpy().tolist()
    [[2, 5, 6, 4, 8, 9, 10, 11, 12, 4, 6, 7, 3, 0, 0]]
    >>> found.positions.numpy().tolist(), found.labels.numpy().tolist()
    ([[3, 9, 0]], [[7, 5, 0]])
    """
    length = token_ids.shape[1]
    fixed = [vocabulary.id_of(token) for token in (CLS, SEP, PAD)]
    maskable = tf.reduce_all([token_ids != i for i in fixed], 0)  # (batch, length)
    count = tf.reduce_sum(tf.cast(maskable, tf.int32), 1)
    n = tf.reduce_sum(tf.cast(token_ids != vocabulary.id_of(PAD), tf.int32), 1)
    wanted = tf.minimum(tf.maximum((PERCENT * n + 50) // 100, 1), max_predictions)
    wanted = tf.minimum(wanted, count)  # (batch,)
    drawn = _drawn(keys, _TOKENS, length)  # (batch, length)
    if whole_word:
        begins = tf.gather(tf.constant(vocabulary.begins_word), token_ids)
        chosen = _whole_words(maskable, begins, _priority(_drawn(keys, _WORDS, length)), wanted)
        places = tf.range(length, 0, -1)  # so that the largest come first
        found, positions = tf.math.top_k(tf.where(chosen, places, 0), max_predictions)
        present = found > 0
    else:
        _, positions = tf.math.top_k(tf.where(maskable, _priority(drawn), -1), max_predictions)
        present = tf.range(max_predictions) < wanted[:, tf.newaxis]
        positions = tf.sort(tf.where(present, positions, length), axis=1)
    positions = tf.where(present, positions, 0)
    labels = tf.gather(token_ids, positions, batch_dims=1)
    hidden = _replacement(tf.gather(drawn, positions, batch_dims=1), labels, vocabulary)
    hidden = tf.where(present, hidden, labels)
    rows = tf.range(tf.shape(token_ids)[0])[:, tf.newaxis] * length
    flat = tf.reshape(token_ids, (-1,))
    flat = tf.tensor_scatter_nd_update(
        flat, tf.reshape(rows + positions, (-1, 1)), tf.reshape(hidden, (-1,))
    )
    return Masked(
        tf.reshape(flat, tf.shape(token_ids)),
        positions,
        tf.where(present, labels, 0),
        tf.cast(present, tf.float32),
    )


def fixed_keys(examples):
    """Keys that depend on the example alone, for evaluation: (batch,) int64 to (batch, 2) int32."""
    mixed = _mixed(tf.cast(examples, tf.uint64) * _uint64(_GOLDEN))
    return tf.bitcast(mixed, tf.int32)


def _drawn(keys, stream, length):
    """(batch, length) uint64: SplitMix64 from the hash of each key on."""
    start = _mixed(tf.bitcast(keys, tf.uint64))[:, tf.newaxis]
    steps = (np.arange(1, length + 1, dtype=np.uint64) + np.uint64(stream)) * np.uint64(_GOLDEN)
    return _mixed(start + tf.constant(steps))


def _mixed(z):
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        z = _folded(z, shift) * _uint64(multiplier)
    return _folded(z, _SHIFTS[2])


def _folded(z, shift):
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _uint64(shift)))


def _uint64(number):
    return tf.constant(number, tf.uint64)


def _priority(drawn):
    """The high bits, (batch, length) int32 of at least 0."""
    return tf.cast(tf.bitwise.right_shift(drawn, _uint64(_LOW_BITS)), tf.int32)


def _replacement(drawn, labels, vocabulary):
    """What stands in for the tokens to guess, by the low bits."""
    low = tf.cast(tf.bitwise.bitwise_and(drawn, _uint64(2**_LOW_BITS - 1)), tf.int64)
    tenth, rest = low % 10, low // 10
    normal = np.setdiff1d(np.arange(vocabulary.size, dtype=np.int32), vocabulary.special_ids)
    anything = tf.gather(tf.constant(normal), rest % len(normal))
    kept_or_random = tf.where(tenth == 8, anything, labels)
    return tf.where(tenth < 8, tf.constant(vocabulary.id_of(MASK), tf.int32), kept_or_random)


def _whole_words(maskable, begins, priority, wanted):
    """(batch, length) bool: the tokens of the words that are chosen.

    Words are taken in the order of their priority, and one that would exceed `wanted` is passed
    over. In each round of the loop, of the words that fit into the room left, those up to the first
    that doesn't fit after the others; so in few rounds all rows are done.
    """
    batch, length = tf.shape(maskable)[0], maskable.shape[1]
    before = tf.pad(maskable[:, :-1], ((0, 0), (1, 0)))
    word = tf.cumsum(tf.cast(maskable & (begins | ~before), tf.int32), axis=1) - 1
    word = tf.where(maskable, word, length)  # the last column is thrown away
    rows = tf.range(batch)[:, tf.newaxis]
    flat = tf.reshape(rows * (length + 1) + word, (-1,))
    sizes = tf.math.unsorted_segment_sum(tf.ones_like(flat), flat, batch * (length + 1))
    sizes = tf.reshape(sizes, (batch, length + 1))[:, :length]  # (batch, words)
    _, order = tf.math.top_k(tf.where(sizes > 0, priority, -1), length)
    sizes = tf.gather(sizes, order, batch_dims=1)  # from the first word in the order on

    def fit(candidates, chosen, room):
        candidates &= sizes <= room
        reached = tf.cumsum(tf.where(candidates, sizes, 0), axis=1)
        taken = candidates & (reached <= room)
        room -= tf.reduce_sum(tf.where(taken, sizes, 0), axis=1, keepdims=True)
        return candidates & ~taken & (sizes <= room), chosen | taken, room

    start = sizes > 0, tf.zeros_like(sizes, tf.bool), wanted[:, tf.newaxis]
    _, chosen, _ = tf.while_loop(lambda candidates, *_: tf.reduce_any(candidates), fit, start)
    places = tf.reshape(rows * (length + 1) + order, (-1, 1))
    chosen = tf.scatter_nd(places, tf.reshape(chosen, (-1,)), [batch * (length + 1)])
    return tf.reshape(tf.gather(chosen, flat), (batch, length))
