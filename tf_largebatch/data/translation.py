"""Translation: pairs of sentences as pieces of one vocabulary, and how translations are judged."""

import dataclasses
import functools
import itertools
import re

import numpy as np
import tensorflow as tf

from tf_largebatch.data.buckets import boundaries_up_to
from tf_largebatch.data.source import Text, notes_of_longer
from tf_largebatch.data.vocabulary import CLS, PAD, SEP
from tf_largebatch.scaling import check_count

_LINES_AT_ONCE = 100_000  # tokenized together, so that the lists of pieces stay small


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TranslationSource(Text):
    """Pairs of sentences in memory, as pieces of one vocabulary that both languages share.

    What `read` gives: inputs {"source_ids": (batch, length), "target_ids": (batch, length)}, labels
    (batch, length) and weights (batch, length), int32 but for the weights. Source and labels end
    with [SEP]; the target begins with [CLS] and is the labels one place later; the rest is 0. The
    length is `max_length`, or with `buckets` the one that `tf_largebatch.data.buckets` chooses.

    Attributes:
        name: What messages call the data.
        sources, targets: Lists of str, of which only the pieces are kept.
        tokenizer: The `tf_largebatch.data.vocabulary.Vocabulary`, whose [PAD] is 0.
        max_length: Places in a sequence, with the [SEP] that ends it.
        buckets: Whether batches are of like length; False for TPUs, which need one static shape.
        part: What `notes` call the part of the data, such as held-out.
        drop_longer: Whether pairs longer than that are left out and counted, `dropped_pairs`; if
            not, they are cut there and counted, `cut_pairs`.
        references: What translations are judged by, list of str; None: they aren't.
        baseline: Translations by a trivial method, list of str, judged as `chance_bleu`.
        bad_records: {record: what is wrong} of the pairs passed over.

    Raises:
        ValueError: If there is no pair that fits, the numbers of sentences differ, or [PAD] isn't
            0.
    """

    name: str
    sources: dataclasses.InitVar[list]
    targets: dataclasses.InitVar[list]
    tokenizer: object
    part: str = "training"
    max_length: int = 150
    buckets: bool = True
    drop_longer: bool = True
    references: tuple | None = dataclasses.field(default=None, repr=False)
    baseline: tuple | None = dataclasses.field(default=None, repr=False)
    bad_records: dict = dataclasses.field(default_factory=dict, repr=False)

    task = "translation"

    def __post_init__(self, sources, targets):
        max_length = check_count("max_length", self.max_length, at_least=2)
        counts = {
            len(t) for t in (sources, targets, self.references, self.baseline) if t is not None
        }
        if len(counts) > 1:
            raise ValueError(
                f"{self.name} must have as many targets, references and baseline translations as "
                f"sources. Received: {len(sources)} sources and {len(targets)} targets."
            )
        if self.tokenizer.id_of(PAD) != 0:
            raise ValueError(
                f"{PAD} must be the first token of {self.tokenizer.name}: 0 is padding. Received: "
                f"{PAD} in line {self.tokenizer.id_of(PAD) + 1}."
            )
        sides = [_Sentences.of(texts, self.tokenizer, max_length) for texts in (sources, targets)]
        fits = np.maximum(*(side.whole_lengths for side in sides)) <= max_length
        longer = int(len(fits) - fits.sum())
        if self.drop_longer:
            sides = [side.only(fits) for side in sides]
        else:
            fits[:] = True
        if not fits.any():
            raise ValueError(
                f"{self.name} must have a pair of sentences of at most max_length={max_length} "
                f"pieces. Received: {len(sources)} pairs, none of which fits."
            )
        object.__setattr__(self, "_source", sides[0])
        object.__setattr__(self, "_target", sides[1])
        object.__setattr__(self, "dropped_pairs", longer if self.drop_longer else 0)
        object.__setattr__(self, "cut_pairs", 0 if self.drop_longer else longer)
        for name in ("references", "baseline"):
            texts = getattr(self, name)
            if texts is not None:
                object.__setattr__(self, name, tuple(itertools.compress(texts, fits)))

    @property
    def num_examples(self):
        """The number of pairs, one epoch's worth."""
        return len(self._source.offsets) - 1

    @property
    def notes(self):
        """How many pairs were too long, if any were; as every source (`.source`)."""
        became = "left out" if self.drop_longer else "cut there"
        longer, pairs = self.dropped_pairs + self.cut_pairs, self.num_examples + self.dropped_pairs
        limit = f"max_length={self.max_length}"
        return notes_of_longer(longer, pairs, f"{self.part} pairs", limit, became)

    @functools.cached_property
    def lengths(self):
        """(num_examples,) the longer of the two sentences of each pair, with its [SEP]."""
        return np.maximum(np.diff(self._source.offsets), np.diff(self._target.offsets))

    @property
    def bucket_boundaries(self):
        """The lengths that batches can have; none without `buckets`."""
        return boundaries_up_to(self.max_length) if self.buckets else ()

    def check_vocabulary(self):
        """Raises a `ValueError` if more than a tenth of the pieces of a language are [UNK]."""
        for side in (self._source, self._target):
            self.tokenizer.check_covers(side.pieces, self.name)

    def read(self, examples, keys=None, length=None):
        """As every source with buckets (`tf_largebatch.data.source`, `.buckets`): see above."""
        del keys  # nothing is random
        length = self.max_length if length is None else length
        labels = self._target.rows(examples, length)
        real = labels > 0
        start = tf.fill((tf.shape(labels)[0], 1), self.tokenizer.id_of(CLS))
        target = tf.where(real, tf.concat([start, labels[:, :-1]], axis=1), 0)
        inputs = {"source_ids": self._source.rows(examples, length), "target_ids": target}
        return inputs, labels, tf.cast(real, tf.float32)

    def detokenize(self, ids):
        """Translations as text.

        Args:
            ids: (n, length) integers, or n sequences of any lengths. Each one ends before its first
                [SEP].

        Returns:
            List of n str: words with a space between them, but none before a full stop, a comma and
            the like, around an apostrophe or hyphen inside a word, or around a point in a number.
        """
        end, texts = self.tokenizer.id_of(SEP), []
        for row in ids:
            row = np.asarray(row)
            ends = np.flatnonzero(row == end)
            row = row[: ends[0]] if ends.size else row
            texts.append(_attach_punctuation(self.tokenizer.detokenize(row)))
        return texts

    def bleu(self, translations):
        """BLEU (Papineni et al. 2002) of the translations, by sacrebleu's definition (Post 2018).

        Args:
            translations: A str for each example, in the source's order.

        Returns:
            `sacrebleu.corpus_bleu(...).score`, 0 to 100, against `references`; without regard to
            case if the vocabulary has none.

        Raises:
            ImportError: If sacrebleu isn't installed.
            ValueError: If there are no references, or not one translation for each.
        """
        if self.references is None:
            raise ValueError(
                f"{self.name} has no references to judge translations by. Judge those of the "
                "held-out split."
            )
        translations = list(translations)
        if len(translations) != len(self.references):
            raise ValueError(
                f"There must be a translation for each of the {len(self.references)} examples of "
                f"{self.name}. Received: {len(translations)}."
            )
        try:
            import sacrebleu
        except ImportError as error:
            raise ImportError(
                "BLEU needs the package sacrebleu, which comes with the extra nlp: "
                "pip install 'tf-largebatch[nlp]'."
            ) from error
        lower = self.tokenizer.lower_case
        return sacrebleu.corpus_bleu(translations, [list(self.references)], lowercase=lower).score

    @functools.cached_property
    def chance_bleu(self):
        """BLEU of the baseline; None if there is none."""
        return None if self.baseline is None else self.bleu(self.baseline)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sentences:
    """Sentences as pieces, one behind the other, each with its [SEP]."""

    pieces: np.ndarray  # (number of all pieces,) uint16, or int32 where that is too small
    offsets: np.ndarray  # (sentences + 1,) int64
    whole_lengths: np.ndarray  # (sentences,) int64, before they were cut

    @classmethod
    def of(cls, texts, tokenizer, max_length):
        dtype = np.uint16 if tokenizer.size <= 2**16 else np.int32
        end = np.array([tokenizer.id_of(SEP)], dtype)
        flat, lengths = [np.zeros(0, dtype)], []
        for low in range(0, len(texts), _LINES_AT_ONCE):
            found = tokenizer.tokenize(texts[low : low + _LINES_AT_ONCE])
            lengths += [len(ids) + 1 for ids in found]
            ended = [part for ids in found for part in (ids[: max_length - 1], end)]
            flat.append(np.concatenate(ended, dtype=dtype, casting="unsafe"))
        lengths = np.array(lengths, np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, max_length))])
        return cls(np.concatenate(flat), offsets, lengths)

    def only(self, kept):
        lengths = np.diff(self.offsets)
        pieces = self.pieces[np.repeat(kept, lengths)]
        offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
        return _Sentences(pieces, offsets, self.whole_lengths[kept])

    @functools.cached_property
    def _tensors(self):
        with tf.init_scope(), tf.device("CPU"):  # where they are read
            return tf.constant(self.pieces), tf.constant(self.offsets)

    def rows(self, examples, length):
        """(batch, length) int32, 0 behind the end."""
        pieces, offsets = self._tensors
        starts, ends = tf.gather(offsets, examples), tf.gather(offsets, examples + 1)
        places = starts[:, tf.newaxis] + tf.range(tf.cast(length, tf.int64))
        inside = places < ends[:, tf.newaxis]
        ids = tf.gather(pieces, tf.where(inside, places, 0))
        ids = tf.where(inside, tf.cast(ids, tf.int32), 0)
        static = length if isinstance(length, int) else None
        return tf.ensure_shape(ids, (examples.shape[0], static))


def _attach_punctuation(text):
    text = re.sub(r" (?=[.,;:!?%)\]])|(?<=[(\[]) ", "", text)
    text = re.sub(r"(?<=\w) (['’-]) (?=\w)", r"\1", text)
    return re.sub(r"(?<=\d)([.,:]) (?=\d)", r"\1", text)
