"""SQuAD's metrics, and the span that logits mean, against independent plain Python."""

import itertools

import numpy as np
import pytest

from tf_largebatch.data.answers import (
    best_spans,
    evaluate,
    exact_match,
    f1_score,
    normalize_answer,
)


@pytest.mark.parametrize(
    "text, words",
    [
        ("The Cat", "cat"),
        ("a  cat\tand\nan owl", "cat and owl"),
        ("theory of an android", "theory of android"),  # articles are whole words
        ("U.S.A.", "usa"),  # the article is gone only if punctuation leaves it alone
        ("Vitamin A.", "vitamin"),
        ("the-end", "theend"),  # punctuation parts no words
        ("$1,234.50", "123450"),
        ("Übung", "übung"),
        ("“Nein”", "“nein”"),  # only ASCII's punctuation goes
        ("naïve\u00a0café", "naïve café"),  # a no-break space is white space
        ("the année", "année"),
        ("a", ""),
        ("...", ""),
    ],
)
def test_normalising(text, words):
    assert normalize_answer(text) == words


@pytest.mark.parametrize(
    "prediction, answer, f1, exact",
    [
        ("the cat", "Cat!", 1, 1),
        ("black cat", "cat", 2 / 3, 0),
        ("cat black", "black cat", 1, 0),  # order counts for the exact match alone
        ("cat cat dog", "cat dog dog", 2 / 3, 0),  # shared: cat once, dog once; P = R = 2/3
        ("cat cat", "cat", 2 / 3, 0),  # P = 1/2, R = 1
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("Zürich", "ZÜRICH", 1, 1),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_f1_and_exact_match(prediction, answer, f1, exact, version):
    assert f1_score(prediction, answer, version=version) == pytest.approx(f1, abs=1e-12)
    assert f1_score(answer, prediction, version=version) == pytest.approx(f1, abs=1e-12)
    assert exact_match(prediction, answer) == exact


@pytest.mark.parametrize("prediction, exact", [("", 1), ("an", 1), ("cat", 0)])
def test_the_versions_differ_where_there_are_no_words(prediction, exact):
    assert f1_score(prediction, "the", version="1.1") == 0
    assert f1_score(prediction, "the", version="2.0") == exact
    assert exact_match(prediction, "the") == exact


def test_the_best_of_several_answers_counts_for_each_metric():
    found = evaluate(["big black cat", "1999"], [["cat", "big cat", "dog"], ["1998", "in 1999"]])
    assert found == {
        "f1": pytest.approx(100 * (0.8 + 2 / 3) / 2),  # P 2/3, R 1; P 1, R 1/2
        "exact_match": 0.0,
        "questions": 2,
    }


def test_no_answer():
    answers = [[], [""], ["the"], ["cat", "the"], ["cat"]]
    for prediction, right in [("", [1, 1, 1, 0, 0]), ("cat", [0, 0, 0, 1, 1])]:
        for number, expected in enumerate(right):
            found = evaluate([prediction], [answers[number]], version="2.0")
            assert (found["f1"], found["exact_match"]) == (100 * expected, 100 * expected)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (([], []), "at least one question. Received: 0 predictions for 0"),
        ((["a"], []), "one prediction for each question.*Received: 1 predictions for 0"),
        ((["a", "b"], [["x"], []]), "Received: none for question 1. Pass version='2.0'"),
        ((["a"], [["a"]], "3"), "version must be one of 1.1, 2.0. Received: '3'"),
    ],
)
def test_refuses_what_cannot_be_judged(arguments, words):
    predictions, answers, *version = arguments
    with pytest.raises(ValueError, match=words):
        evaluate(predictions, answers, **({"version": version[0]} if version else {}))


def slowly(start, end, questions, may_start, may_end, max_tokens, n_best):
    """Every pair of every window, one after the other."""
    best = {}
    for window, question in enumerate(questions):
        starts, ends = (
            sorted(range(len(row)), key=lambda p, row=row: -row[p])[:n_best]
            for row in (start[window].tolist(), end[window].tolist())
        )
        null = start[window, 0] + end[window, 0]
        found = best.setdefault(question, [-np.inf, None, None, None, np.inf])
        found[4] = min(found[4], null)
        for first, last in itertools.product(starts, ends):
            allowed = may_start[window][first] and may_end[window][last]
            if allowed and first <= last < first + max_tokens:
                score = start[window, first] + end[window, last]
                if score > found[0]:
                    found[:4] = score, window, first, last
    return [best[question] for question in sorted(best)]


@pytest.mark.parametrize("max_answer_tokens, n_best", [(1, 30), (4, 30), (4, 5), (50, 3), (4, 1)])
def test_the_best_span_is_that_of_a_search_of_all_pairs(max_answer_tokens, n_best):
    rng = np.random.default_rng(max_answer_tokens + n_best)
    questions = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    shape = (len(questions), 30)
    start, end = rng.normal(size=(2, *shape))
    may_start, may_end = rng.random((2, *shape)) < 0.6
    expected = slowly(start, end, questions, may_start, may_end, max_answer_tokens, n_best)
    found = best_spans(
        start,
        end,
        questions=questions,
        may_start=may_start,
        may_end=may_end,
        max_answer_tokens=max_answer_tokens,
        n_best=n_best,
    )
    np.testing.assert_array_equal(found.score, [row[0] for row in expected])
    np.testing.assert_array_equal(found.null_score, [row[4] for row in expected])
    some = [n for n, row in enumerate(expected) if row[1] is not None]
    assert some
    for n in some:
        assert (found.window[n], found.start[n], found.end[n]) == tuple(expected[n][1:4])


def everywhere(start, end, **options):
    start, end = np.array([start], float), np.array([end], float)
    mask = np.ones(start.shape, bool)
    return best_spans(start, end, questions=[0], may_start=mask, may_end=mask, **options)


def test_an_end_before_the_start_is_no_span():
    found = everywhere([0, 0, 9, 0], [0, 9, 0, 1])
    assert (found.start, found.end, found.score) == ([2], [3], [10])


def test_the_longest_span_has_so_many_tokens():
    start, end = [9] + [0] * 39, [0] * 30 + [9] + [0] * 9
    found = everywhere(start, end)  # from 0 to 30 there are 31
    assert found.score == 9 and found.end - found.start < 30
    found = everywhere(start, end, max_answer_tokens=31)
    assert (found.start, found.end, found.score) == ([0], [30], [18])


def test_among_equals_the_earlier_window_the_shorter_and_the_earlier_span_wins():
    flat = np.zeros((3, 5))
    mask = np.ones((3, 5), bool)
    mask[0, 0] = False
    found = best_spans(flat, flat, questions=[0, 0, 1], may_start=mask, may_end=mask)
    assert found.window.tolist() == [0, 2]
    assert found.start.tolist() == found.end.tolist() == [1, 0]


def test_without_an_allowed_span_the_score_says_so():
    mask = np.zeros((1, 4), bool)
    logits = np.float32([[1, 2, 3, 4]])
    found = best_spans(logits, logits, questions=[0], may_start=mask, may_end=~mask)
    assert found.score == -np.inf and found.null_score == 2


def test_infinitely_unlikely_padding_is_allowed_and_nan_is_not():
    low = -np.inf
    assert everywhere([1, 2, low], [1, 2, low]).start == [1]
    with pytest.raises(ValueError, match="end_logits must be numbers. Received: NaN in window 0"):
        everywhere([1, 2, 3], [1, np.nan, 3])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"questions": [0, 2, 2]}, r"count 0, 1, 2.*Received: \[0, 2, 2\]"),
        ({"questions": [1, 1, 1]}, "count 0, 1, 2"),
        ({"questions": [0, 1, 0]}, "next to each other"),
        ({"questions": [0, 1]}, r"one number for each window.*questions \(2,\)"),
        ({"may_end": np.ones((3, 4), bool)}, r"one shape.*may_end \(3, 4\)"),
        ({"max_answer_tokens": 0}, "max_answer_tokens must be a whole number of at least 1"),
        ({"n_best": 2.5}, "n_best must be a whole number of at least 1"),
    ],
)
def test_refuses_arguments_that_do_not_fit(changes, words):
    mask = np.ones((3, 5), bool)
    arguments = {"questions": [0, 0, 1], "may_start": mask, "may_end": mask, **changes}
    with pytest.raises(ValueError, match=words):
        best_spans(np.zeros((3, 5)), np.zeros((3, 5)), **arguments)
