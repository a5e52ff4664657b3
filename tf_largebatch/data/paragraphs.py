"""Paragraphs with questions about them, as SQuAD's JSON files hold them.

{"data": [{"paragraphs": [{"context": text, "qas": [{"id": name, "question": text, "answers":
[{"text": text, "answer_start": number of characters before it}]}]}]}]}. In version 2.0 a question
may also have "is_impossible", and no answers if that is true. Other keys are passed over.
"""

import json
from typing import NamedTuple


class Question(NamedTuple):
    """A question and its right answers.

    Attributes:
        id: What predictions call it.
        text: The question.
        answers: Pairs (text, start) such that context[start:start + len(text)] == text; of several
            the first is trained on. Empty if the paragraph doesn't answer it.
    """

    id: str
    text: str
    answers: tuple


class Paragraph(NamedTuple):
    """A text and the questions about it.

    Attributes:
        context: The text.
        questions: A tuple of `Question`.
    """

    context: str
    questions: tuple


class BadRecords:
    """The records of a file that can't be used.

    Attributes:
        file: What messages call the file.
        skip: Whether they are left out; otherwise the first one is an error.
        found: {record: what is wrong with it}, without a full stop at the end.
    """

    def __init__(self, file, skip=False):
        self.file, self.skip, self.found = file, skip, {}

    def add(self, record, problem):
        """Notes what is wrong with `record`, a sentence, or raises a `ValueError` that says it."""
        if not self.skip:
            raise ValueError(
                f"{self.file}, {record}: {problem} Mend the file, or leave such records out with "
                "the option skip_bad_records."
            )
        self.found[f"{self.file}, {record}"] = problem.removesuffix(".")


def decode(content, file):
    """What the bytes of a JSON file say.

    Args:
        content: The bytes.
        file: What messages call it.

    Returns:
        What `json.loads` makes of them.

    Raises:
        ValueError: If they are none, not UTF-8 or not JSON; the message says where.
    """
    if not content.strip():
        raise ValueError(
            f"{file} must hold SQuAD's JSON. Received: an empty file. Download it again."
        )
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file} must be UTF-8. Received: other bytes in line {line}, at byte {error.start} of "
            "the file. Download it again, or convert it: iconv -t UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} must be JSON. Received: text that breaks off or goes wrong in line "
            f"{error.lineno}, column {error.colno}: {error.msg}. Download it again."
        ) from None


def parse(document, version, bad):
    """The paragraphs of a document, checked.

    Args:
        document: What `decode` returned.
        version: `"1.1"` or `"2.0"`; in 1.1 every question must have an answer.
        bad: The `BadRecords` that learns what can't be used.

    Returns:
        A list of `Paragraph`; those without usable questions are left out.

    Raises:
        ValueError: If there is no question, or a record is bad and `bad` doesn't skip it.

    >>> asked = {"id": "q7", "question": "Who?", "answers": [{"text": "Bob", "answer_start": 7}]}
    >>> paragraph = {"context": "It was Ann.", "qas": [asked]}
    >>> parse({"data": [{"paragraphs": [paragraph]}]}, "1.1", BadRecords("dev.json"))
    Traceback (most recent call last):
    ValueError: dev.json, question q7: answer_start 7 must be where the answer 'Bob' begins, and
    there the context has 'Ann'. Mend the file, or leave such records out with the option
    skip_bad_records.
    """
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list):
        raise ValueError(
            f'{bad.file} must be a JSON object whose key "data" is the list of articles. Received: '
            f"{_kind(document)}{_keys(document)}. Take SQuAD's own files."
        )
    paragraphs, seen = [], set()
    for a, article in enumerate(articles):
        place = f"data[{a}]"
        for p, entry in enumerate(_list_in(article, "paragraphs", place, bad)):
            context = entry.get("context") if isinstance(entry, dict) else None
            at = f"{place}.paragraphs[{p}]"
            if not isinstance(context, str):
                bad.add(at, f'its "context" must be a text. Received: {_kind(context)}.')
                continue
            questions = []
            for q, asked in enumerate(_list_in(entry, "qas", at, bad)):
                name = asked.get("id") if isinstance(asked, dict) else None
                record = f"question {name}" if isinstance(name, str) else f"{at}.qas[{q}]"
                problem = _problem(asked, context, version)
                if not problem and name in seen:
                    problem = "its id must be its own, and an earlier question has it, too."
                if problem:
                    bad.add(record, problem)
                    continue
                seen.add(name)
                answers = ((answer["text"], answer["answer_start"]) for answer in asked["answers"])
                questions.append(Question(name, asked["question"], tuple(answers)))
            if questions:
                paragraphs.append(Paragraph(context, tuple(questions)))
    if not paragraphs:
        raise ValueError(
            f"{bad.file} must hold questions. Received: none that can be used, and "
            f"{len(bad.found)} bad records. Take SQuAD's own files."
        )
    return paragraphs


def _list_in(entry, key, place, bad):
    """The list `entry[key]`; an empty one if it's missing, which `bad` learns."""
    found = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(found, list):
        return found
    bad.add(place, f'its "{key}" must be a list. Received: {_kind(found)}.')
    return []


def _problem(asked, context, version):
    """What is wrong with a question, in a sentence; None if nothing is."""
    if not isinstance(asked, dict):
        return f"it must be a JSON object. Received: {_kind(asked)}."
    for key in ("id", "question"):
        text = asked.get(key)
        if not isinstance(text, str) or not text.strip():
            return f'its "{key}" must be a text. Received: {_kind(text)}.'
    answers = asked.get("answers")
    if not isinstance(answers, list):
        return f'its "answers" must be a list. Received: {_kind(answers)}.'
    impossible = asked.get("is_impossible", not answers)
    if version == "1.1" and (impossible or not answers):
        return "it must have an answer. Received: none, which only version 2.0 allows."
    if bool(impossible) == bool(answers):
        return (
            f'its "is_impossible" must say whether it has no answer. Received: {impossible} with '
            f"{len(answers)} answers."
        )
    for answer in answers:
        problem = _answers_problem(answer, context)
        if problem:
            return problem
    return None


def _answers_problem(answer, context):
    text = answer.get("text") if isinstance(answer, dict) else None
    start = answer.get("answer_start") if isinstance(answer, dict) else None
    if not isinstance(text, str) or not text.strip():
        return f'the "text" of its answer must be a text. Received: {_kind(text)}.'
    if isinstance(start, bool) or not isinstance(start, int):
        return f'the "answer_start" of its answer must be a whole number. Received: {start!r}.'
    if start < 0 or context[start : start + len(text)] != text:
        there = context[start : start + len(text)] if start >= 0 else ""
        return (
            f"answer_start {start} must be where the answer {_short(text)} begins, and there the "
            f"context has {_short(there) if there else 'nothing'}."
        )
    return None


def _short(text):
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _kind(value):
    if value is None:
        return "none"
    if isinstance(value, str):
        return "an empty text" if not value.strip() else f"the text {_short(value)}"
    return f"a {type(value).__name__}"


def _keys(document):
    return f" with the keys {', '.join(map(str, document))}" if isinstance(document, dict) else ""
