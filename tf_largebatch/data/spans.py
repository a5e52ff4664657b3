"""Questions about paragraphs, whose answers are spans of them: windows to train on and to judge.

A paragraph that is too long for the network is cut into overlapping windows, as BERT does it
(Devlin et al. 2018): [CLS] question [SEP] window [SEP], padded. Nothing is copied: a window is a
few numbers that say which part of one long array of tokens it is, and is put together when read.
"""

import dataclasses
import functools
import itertools

import numpy as np

from tf_largebatch.data.answers import VERSIONS, best_spans, evaluate, f1_score
from tf_largebatch.data.paragraphs import BadRecords
from tf_largebatch.data.source import Text, notes_of_longer
from tf_largebatch.data.vocabulary import CLS, PAD, SEP
from tf_largebatch.data.windows import cut_windows, own_tokens, tokens_of
from tf_largebatch.scaling import check_count


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SpanSource(Text):
    """Windows of which any can be read at any time; nothing in them is random.

    Inputs: "token_ids", "segment_ids" (0 for the question, 1 for the window) and "padding_mask" (1
    for tokens), each (batch, sequence_length) int32. Labels: "start" and "end", (batch,) int32, the
    positions of the answer's first and last token, or 0, [CLS], where the window doesn't hold the
    whole answer. Weights: 1. A piece that is only partly in the answer belongs to it.

    Attributes:
        name: What messages call the data.
        paragraphs: A sequence of `tf_largebatch.data.paragraphs.Paragraph`.
        tokenizer: A `tf_largebatch.data.vocabulary.Vocabulary`.
        version: SQuAD's, `"1.1"` or `"2.0"`; only in 2.0 a question may have no answer.
        sequence_length: Tokens in a window, with the question and the three special ones.
        stride: Tokens from the beginning of a window to that of the next.
        max_query_length: Tokens of the question; what goes beyond is cut off.
        part: What `notes` call the part of the data, such as held-out.
        bad: The `BadRecords` of the file. Answers in which there is no token go there, too.

    Raises:
        ValueError: If an option is out of range, no question is left, a record is bad and `bad`
            doesn't skip it, or more than a tenth of the pieces aren't in the vocabulary.
        ImportError: If tensorflow-text isn't installed.

    >>> from tf_largebatch.data.paragraphs import Paragraph, Question
    >>> from tf_largebatch.data.vocabulary import build_vocabulary
    >>> asked = Question("1", "Who?", (("Ann Lee", 7),))
    >>> text = "It was Ann Lee."
    >>> source = SpanSource(
    ...     name="example",
    ...     paragraphs=[Paragraph(text, (asked,))],
    ...     tokenizer=build_vocabulary([text, "who?"], 64),
    ...     sequence_length=8,
    ...     stride=2,
    ...     max_query_length=2,
    ... )
    >>> import tensorflow as tf
    >>> inputs, labels, _ = source.read(tf.constant([0, 1]))
    >>> for ids in inputs["token_ids"].numpy():
    ...     print(source.tokenizer.detokenize(ids))
    who ? it was ann
    who ? ann lee .
    >>> labels["start"].numpy(), labels["end"].numpy()
    (array([0, 4], dtype=int32), array([0, 5], dtype=int32))
    """

    name: str
    paragraphs: list = dataclasses.field(repr=False)
    tokenizer: object = dataclasses.field(repr=False)
    version: str = "1.1"
    sequence_length: int = 384
    stride: int = 128
    max_query_length: int = 64
    part: str = "training"
    bad: BadRecords | None = dataclasses.field(default=None, repr=False)

    task = "spans"

    def __post_init__(self):
        if self.version not in VERSIONS:
            raise ValueError(
                f"version must be one of {', '.join(VERSIONS)}. Received: {self.version!r}."
            )
        for option in ("stride", "max_query_length", "sequence_length"):
            object.__setattr__(self, option, check_count(option, getattr(self, option)))
        if self.sequence_length < self.max_query_length + 4:
            raise ValueError(
                "sequence_length must leave room for [CLS], max_query_length tokens of the "
                "question, [SEP], a token of the paragraph, and [SEP]. Received: "
                f"sequence_length={self.sequence_length}, max_query_length="
                f"{self.max_query_length}. Pass sequence_length={self.max_query_length + 4} or "
                "more."
            )
        bad = BadRecords(self.name) if self.bad is None else self.bad
        contexts = [paragraph.context for paragraph in self.paragraphs]
        self.tokenizer.tokenize(contexts)  # looks up all words at once, which is quicker
        self._set(bad=bad, _contexts=contexts, _questions=[], _context_of=[])
        self._set(_tokens=[], _starts=[], _ends=[], _windows=[])
        size, cut_queries = 0, 0
        for number, (context, questions) in enumerate(self.paragraphs):
            ids, starts, ends = self.tokenizer.tokenize_with_offsets(context)
            queries = self.tokenizer.tokenize([question.text for question in questions])
            context_at = size
            size += self._append(ids, starts, ends)
            for question, query in zip(questions, queries, strict=True):
                problem = _problem(question, starts, ends)
                if problem:
                    bad.add(f"question {question.id}", problem)
                    continue
                cut_queries += len(query) > self.max_query_length
                query = query[: self.max_query_length]
                answer = tokens_of(question.answers[0], starts, ends) if question.answers else None
                self._add_windows(size, len(query), context_at, len(ids), answer)
                size += self._append(query, np.zeros_like(query), np.zeros_like(query))
                self._questions.append(question)
                self._context_of.append(number)
        if not self._questions:
            raise ValueError(f"{self.name} has no question that can be used. Received: none.")
        self._set(
            _tokens=np.concatenate(self._tokens),
            _starts=np.concatenate(self._starts),
            _ends=np.concatenate(self._ends),
            _windows=np.array(self._windows, np.int32),  # (num_examples, 7)
            _cut_queries=cut_queries,
        )
        self.tokenizer.check_covers(self._tokens, self.name)

    def _set(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _append(self, ids, starts, ends):
        self._tokens.append(ids)
        self._starts.append(starts)
        self._ends.append(ends)
        return len(ids)

    def _add_windows(self, query_at, query_tokens, context_at, context_tokens, answer):
        """Appends (question, query's place and length, window's place and length, start, end)."""
        room = self.sequence_length - query_tokens - 3
        for first, count in cut_windows(context_tokens, room, self.stride):
            start = end = 0
            if answer and first <= answer[0] and answer[1] < first + count:
                start, end = (query_tokens + 2 + token - first for token in answer)
            self._windows.append(
                (
                    len(self._questions),
                    query_at,
                    query_tokens,
                    context_at + first,
                    count,
                    start,
                    end,
                )
            )

    @property
    def num_examples(self):
        """The number of windows, one epoch's worth."""
        return len(self._windows)

    @property
    def bad_records(self):
        """The questions left out, {file and question: what is wrong}; found before the first."""
        return dict(self.bad.found)

    @property
    def questions(self):
        """The `Question`s that are asked, in the order of their windows."""
        return tuple(self._questions)

    @property
    def notes(self):
        """How many questions were cut, if any were; as every source (`.source`)."""
        things, limit = f"{self.part} questions", f"max_query_length={self.max_query_length}"
        cut, asked = self._cut_queries, len(self._questions)
        return notes_of_longer(cut, asked, things, limit, "cut there")

    @functools.cached_property
    def windows(self):
        """What became of the texts, as numbers of questions and windows."""
        windows_of = np.bincount(self._windows[:, 0])
        return {
            "questions": len(self._questions),
            "questions_cut": self._cut_queries,
            "questions_with_cut_paragraph": int((windows_of > 1).sum()),
            "windows": self.num_examples,
            "windows_with_answer": int((self._windows[:, 6] > 0).sum()),
        }

    @functools.cached_property
    def chance_f1(self):
        """F1 in percent of guessing: the answer of any question about the same paragraph.

        The mean over all such guesses, the right one among them.
        """
        given = {}
        for question, context in zip(self._questions, self._context_of, strict=True):
            first = question.answers[0][0] if question.answers else ""
            given.setdefault(context, []).append(first)
        means = []
        for question, context in zip(self._questions, self._context_of, strict=True):
            right = [text for text, _ in question.answers] or [""]
            scores = (
                max(f1_score(guess, text, version=self.version) for text in right)
                for guess in given[context]
            )
            means.append(sum(scores) / len(given[context]))
        return 100 * sum(means) / len(means)

    @functools.cached_property
    def _tensors(self):
        import tensorflow as tf

        # On the host, where they are read; a GPU would hold the data for nothing.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self._tokens), tf.constant(self._windows)

    def read(self, examples, keys=None):
        """As every source (`tf_largebatch.data.source`): (inputs, labels, weights)."""
        import tensorflow as tf

        del keys
        tokens, windows = self._tensors
        columns = tf.transpose(tf.gather(windows, examples))[..., tf.newaxis]  # (7, batch, 1)
        _, query_at, query_tokens, context_at, context_tokens, start, end = tf.unstack(columns)
        position = tf.range(self.sequence_length)[tf.newaxis]  # (1, length)
        context = position - query_tokens - 2  # 0 is the first token of the paragraph's part
        in_query = (position >= 1) & (position <= query_tokens)
        in_context = (context >= 0) & (context < context_tokens)
        place = tf.where(in_query, query_at + position - 1, context_at + context)
        ids = tf.gather(tokens, tf.where(in_query | in_context, place, 0))
        pad, cls, sep = (self.tokenizer.id_of(token) for token in (PAD, CLS, SEP))
        ids = tf.where(in_query | in_context, ids, pad)
        ids = tf.where((context == -1) | (context == context_tokens), sep, ids)
        ids = tf.where(position == 0, cls, ids)
        inputs = {
            "token_ids": ids,
            "segment_ids": tf.cast((context >= 0) & (context <= context_tokens), tf.int32),
            "padding_mask": tf.cast(context <= context_tokens, tf.int32),
        }
        labels = {"start": start[:, 0], "end": end[:, 0]}
        return inputs, labels, tf.nest.map_structure(lambda t: tf.ones_like(t, tf.float32), labels)

    def answers(
        self, start_logits, end_logits, *, null_threshold=0.0, max_answer_tokens=30, n_best=20
    ):
        """The answers that logits mean, as SQuAD's own evaluation reads them.

        Args:
            start_logits, end_logits: (num_examples, sequence_length), in the source's order.
            null_threshold: In version 2.0 a question has no answer if the null score, the lowest
                score of [CLS] in its windows, is above that of its best span by more than this.
            max_answer_tokens, n_best: As for `tf_largebatch.data.answers.best_spans`.

        Returns:
            {question's id: the text of the answer, "" for none}.

        Raises:
            ValueError: If the shapes don't fit, or a logit is NaN.
        """
        expected = (self.num_examples, self.sequence_length)
        if not np.shape(start_logits) == np.shape(end_logits) == expected:
            raise ValueError(
                "The logits must be those of all windows, (num_examples, sequence_length) = "
                f"{expected}. Received: start {np.shape(start_logits)}, end {np.shape(end_logits)}."
            )
        may_start, may_end = self._may_start_and_end
        best = best_spans(
            start_logits,
            end_logits,
            questions=self._windows[:, 0],
            may_start=may_start,
            may_end=may_end,
            max_answer_tokens=max_answer_tokens,
            n_best=n_best,
        )
        _, _, query_tokens, context_at, *_ = self._windows[best.window].T
        none = np.isneginf(best.score)
        if self.version == "2.0":
            none |= best.null_score - best.score > null_threshold
        to_token = context_at - query_tokens - 2
        starts = self._starts[np.where(none, 0, best.start + to_token)]
        ends = self._ends[np.where(none, 0, best.end + to_token)]
        return {
            question.id: "" if none[n] else self._contexts[context][starts[n] : ends[n]]
            for n, (question, context) in enumerate(
                zip(self._questions, self._context_of, strict=True)
            )
        }

    def judge(self, start_logits, end_logits, **options):
        """How right the answers are that logits mean.

        Args:
            start_logits, end_logits, options: As for `answers`.

        Returns:
            `{"f1": percent, "exact_match": percent, "questions": number}`.

        Raises:
            ValueError: As `answers`.
        """
        predictions = self.answers(start_logits, end_logits, **options)
        return evaluate(
            [predictions[question.id] for question in self._questions],
            [[text for text, _ in question.answers] for question in self._questions],
            version=self.version,
        )

    @functools.cached_property
    def _may_start_and_end(self):
        """Two arrays (num_examples, sequence_length) of booleans, as `best_spans` wants them."""
        question, _, query_tokens, context_at, context_tokens, *_ = self._windows.T
        first = query_tokens + 2
        position = np.arange(self.sequence_length)
        may_end = position >= first[:, np.newaxis]
        may_end &= position < (first + context_tokens)[:, np.newaxis]
        may_start = may_end.copy()
        borders = np.flatnonzero(np.diff(question, prepend=-1, append=-1))
        for low, high in itertools.pairwise(borders):
            if high - low > 1:
                rows = range(low, high)
                own = own_tokens(context_at[low:high] - context_at[low], context_tokens[low:high])
                for row, own_of_row in zip(rows, own, strict=True):
                    may_start[row, first[row] : first[row] + context_tokens[row]] = own_of_row
        return may_start, may_end


def _problem(question, starts, ends):
    """Why a question can't be asked; None if it can."""
    if not len(starts):
        return "its paragraph has no words."
    for answer in question.answers[:1]:
        first, last = tokens_of(answer, starts, ends)
        if first > last:
            return f"its answer {answer[0]!r} has no words."
    return None
