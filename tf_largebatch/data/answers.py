"""Answers as spans of text: which span a model means, and how right it is.

The metrics are those of SQuAD's own evaluation (Rajpurkar et al. 2016 for version 1.1, 2018 for
version 2.0), the choice of the span that of BERT (Devlin et al. 2018, section 4.2 and 4.3).
"""

import collections
import re
import string
from typing import NamedTuple

import numpy as np

from tf_largebatch.scaling import check_count

VERSIONS = ("1.1", "2.0")

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text):
    """The words by which answers are compared, with single spaces between them.

    Lower case; without ASCII punctuation, which vanishes and parts no words; without the articles
    a, an and the. In this order, so that "U.S.A." is one word and "the-end" none of the articles.

    >>> normalize_answer(" The quick, well-read  fox's  an hour late. ")
    'quick wellread foxs hour late'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction, answer):
    """1.0 if the two are the same once normalised, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def f1_score(prediction, answer, *, version="1.1"):
    """The harmonic mean of precision and recall of the prediction's words.

    A word counts as often as it is in both. Where the prediction or the answer has no words at
    all, version 1.1 gives 0, and version 2.0 gives 1 if neither has any, else 0.

    Args:
        prediction, answer: Texts; they are normalised here.
        version: `"1.1"` or `"2.0"`.

    Returns:
        A float from 0 to 1.

    >>> f1_score("in the old town of Bern", "Bern, the town")  # 2 of 5 words, and all of the 2
    0.571428
    """
    given = normalize_answer(prediction).split()
    right = normalize_answer(answer).split()
    if version == "2.0" and not (given and right):
        return float(given == right)
    shared = (collections.Counter(given) & collections.Counter(right)).total()
    # 2PR / (P + R) with P = shared / |given| and R = shared / |right|.
    return 2 * shared / (len(given) + len(right)) if shared else 0.0


def evaluate(predictions, answers, *, version="1.1"):
    """F1 and exact match, each the mean over the questions of the best over a question's answers.

    Args:
        predictions: One text for each question; "" says that there is no answer.
        answers: For each question its right answers, a sequence of texts. In version 2.0 those
            without words are left out, and a question that has none left, as `[]` or `[""]`, has
            no answer.
        version: `"1.1"` or `"2.0"`.

    Returns:
        `{"f1": percent, "exact_match": percent, "questions": number}`.

    Raises:
        ValueError: If there is no question, the two lengths differ, the version is unknown, or
            in version 1.1 a question has no answer.

    >>> evaluate(["the Rhine", "1291", ""], [["Rhine"], ["in 1291", "1315"], []], version="2.0")
    {'f1': 88.88, 'exact_match': 66.66, 'questions': 3}
    """
    if version not in VERSIONS:
        raise ValueError(f"version must be one of {', '.join(VERSIONS)}. Received: {version!r}.")
    if not predictions or len(predictions) != len(answers):
        raise ValueError(
            "There must be one prediction for each question, and at least one question. Received: "
            f"{len(predictions)} predictions for {len(answers)} questions."
        )
    f1, exact = [], []
    for number, (prediction, right) in enumerate(zip(predictions, answers, strict=True)):
        if version == "2.0":
            right = [text for text in right if normalize_answer(text)] or [""]
        elif not right:
            raise ValueError(
                "In version 1.1 every question must have an answer. Received: none for question "
                f"{number}. Pass version='2.0'."
            )
        f1.append(max(f1_score(prediction, text, version=version) for text in right))
        exact.append(max(exact_match(prediction, text) for text in right))
    questions = len(predictions)
    return {
        "f1": 100 * sum(f1) / questions,
        "exact_match": 100 * sum(exact) / questions,
        "questions": questions,
    }


class BestSpans(NamedTuple):
    """The best span of each question, arrays (questions,).

    Attributes:
        window: The row of the logits that holds it.
        start, end: Its first and its last position in the window, both inclusive.
        score: Its start logit + its end logit; -inf if no span was allowed.
        null_score: The lowest score of position 0, over the question's windows.
    """

    window: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    null_score: np.ndarray


def best_spans(
    start_logits,
    end_logits,
    *,
    questions,
    may_start,
    may_end,
    max_answer_tokens=30,
    n_best=20,
):
    """The span of the highest start logit + end logit over all windows of each question.

    Args:
        start_logits, end_logits: (windows, length).
        questions: (windows,) integers, the number of each window's question: 0, 1, ... in rising
            order, none left out.
        may_start, may_end: (windows, length) booleans, where a span may begin and end. BERT lets
            it end anywhere in the context, and begin at those tokens that have more context in
            this window than in any other.
        max_answer_tokens: The length of the longest span, in tokens.
        n_best: Only the so many highest start logits of a window are looked at, and so many end
            logits, wherever they stand.

    Returns:
        `BestSpans`. Among equals the earlier window wins, then the shorter span, then the earlier.

    Raises:
        ValueError: If the shapes don't fit, the questions aren't numbered so, a logit is NaN, or
            a count isn't a whole number of at least 1.

    >>> start, end = np.array([[0., 5, 1, 4]]), np.array([[0., 2, 9, 3]])
    >>> everywhere = np.ones((1, 4), bool)
    >>> spans = best_spans(
    ...     start, end, questions=[0], may_start=everywhere, may_end=everywhere, max_answer_tokens=1
    ... )
    >>> spans.start, spans.end, spans.score  # not 1 to 2, two tokens
    (array([2]), array([2]), array([10.]))
    """
    max_answer_tokens = check_count("max_answer_tokens", max_answer_tokens)
    n_best = check_count("n_best", n_best)
    start_logits, end_logits = np.asarray(start_logits), np.asarray(end_logits)
    questions = np.asarray(questions)
    shapes = {np.shape(part) for part in (start_logits, end_logits, may_start, may_end)}
    if len(shapes) > 1 or start_logits.ndim != 2 or questions.shape != start_logits.shape[:1]:
        raise ValueError(
            "The logits and the masks must have one shape (windows, length), and questions one "
            f"number for each window. Received: start_logits {start_logits.shape}, end_logits "
            f"{end_logits.shape}, may_start {np.shape(may_start)}, may_end {np.shape(may_end)}, "
            f"questions {questions.shape}."
        )
    steps = np.diff(questions, prepend=-1)
    if not steps.size or steps[0] != 1 or not np.isin(steps, (0, 1)).all():
        raise ValueError(
            "questions must count 0, 1, 2 ... with all windows of a question next to each other. "
            f"Received: {questions[:10].tolist()}{'' if len(questions) <= 10 else ' ...'}"
        )
    for name, logits in (("start_logits", start_logits), ("end_logits", end_logits)):
        bad = np.flatnonzero(np.isnan(logits).any(axis=1))
        if bad.size:
            raise ValueError(
                f"{name} must be numbers. Received: NaN in window {bad[0]} ({bad.size} such)."
            )
    first, last, scores = _best_in_window(
        np.where(may_start & _among_best(start_logits, n_best), start_logits, -np.inf),
        np.where(may_end & _among_best(end_logits, n_best), end_logits, -np.inf),
        max_answer_tokens,
    )
    first_windows = np.flatnonzero(steps)  # (questions,)
    # The sort keeps the order of equals, and a question's windows in its own range.
    window = np.lexsort((-scores, questions))[first_windows]
    null_scores = start_logits[:, 0] + end_logits[:, 0]
    return BestSpans(
        window=window,
        start=first[window],
        end=last[window],
        score=scores[window],
        null_score=np.minimum.reduceat(null_scores, first_windows),
    )


def _among_best(logits, n):
    """Is it one of the n highest of its row? Where several are equal, so are all of those."""
    length = logits.shape[1]
    if n >= length:
        return np.ones(logits.shape, bool)
    return logits >= np.partition(logits, length - n, axis=1)[:, length - n, np.newaxis]


def _best_in_window(start, end, max_tokens):
    """The best first and last position of each row and its score, (windows,) each."""
    windows, length = start.shape
    rows = np.arange(windows)
    first, last = np.zeros((2, windows), np.int64)
    best = np.full(windows, -np.inf, start.dtype)
    for extra in range(min(max_tokens, length)):  # tokens after the first
        sums = start[:, : length - extra] + end[:, extra:]
        position = sums.argmax(axis=1)
        score = sums[rows, position]
        better = score > best
        first = np.where(better, position, first)
        last = np.where(better, position + extra, last)
        best = np.where(better, score, best)
    return first, last, best
