"""SQuAD's JSON, sound and broken."""

import re

import pytest

from tf_largebatch.data.paragraphs import BadRecords, decode, parse

LETTERS = "a b c d e f g h i j"


def asked(answer=None, start=None, name="q", text="who?", context=None, **more):
    """A question as JSON has it; the answer stands where it is first found."""
    answers = []
    if answer is not None:
        start = context.index(answer) if start is None else start
        answers = [{"text": answer, "answer_start": start}]
    return {"id": name, "question": text, "answers": answers, **more}


def document(*paragraphs):
    entries = [{"context": context, "qas": questions} for context, questions in paragraphs]
    return {"version": "any", "data": [{"title": "any", "paragraphs": entries}]}


GOOD = asked("c d", context=LETTERS)


@pytest.mark.parametrize(
    "question, record, words",
    [
        ({**GOOD, "id": 7}, "data[0].paragraphs[0].qas[0]", '"id" must be a text. Received: a int'),
        ({**GOOD, "question": " "}, "question q", '"question" must be a text. .*an empty text'),
        ({"id": "q", "question": "who?"}, "question q", '"answers" must be a list. Received: none'),
        ("who?", "data[0].paragraphs[0].qas[0]", "JSON object. Received: the text 'who[?]'"),
        (asked("c e", 4), "question q", "answer_start 4 must be where .*'c e'.*has 'c d'"),
        (asked("j k", 18), "question q", "answer_start 18 .*'j k' begins.*has 'j'"),
        (asked("a", -19), "question q", "answer_start -19 .*has nothing"),
        (asked("c", 99), "question q", "answer_start 99 .*has nothing"),
        (asked("c", "4"), "question q", "whole number. Received: '4'"),
        (asked("", 4), "question q", '"text" of its answer must be a text.*an empty text'),
        (asked(), "question q", "must have an answer. Received: none, which only version 2.0"),
        ({**GOOD, "is_impossible": True}, "question q", "must have an answer"),
    ],
)
def test_a_bad_record_is_named_or_counted(question, record, words):
    other = asked("e", name="other", context=LETTERS)
    content = document((LETTERS, [question, other]))
    full = (
        f"dev.json, {re.escape(record)}: .*{words}.*Mend the file, or .*option skip_bad_records.$"
    )
    with pytest.raises(ValueError, match=full):
        parse(content, "1.1", BadRecords("dev.json"))
    bad = BadRecords("dev.json", skip=True)
    [paragraph] = parse(content, "1.1", bad)
    assert [question.id for question in paragraph.questions] == ["other"]
    [(name, problem)] = bad.found.items()
    assert name == f"dev.json, {record}" and re.search(words, problem)
    assert not problem.endswith(".")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"is_impossible": True}, "is_impossible.*Received: True with 1 answers"),
        ({"answers": [], "is_impossible": False}, "is_impossible.*False with 0 answers"),
    ],
)
def test_version_2_must_say_whether_there_is_an_answer(changes, words):
    with pytest.raises(ValueError, match=words):
        parse(document((LETTERS, [{**GOOD, **changes}])), "2.0", BadRecords("dev.json"))


def test_version_2_without_and_with_answers():
    none = {**asked(name="none"), "is_impossible": True, "plausible_answers": [{"text": "x"}]}
    some = {**asked("c", name="some", context=LETTERS), "is_impossible": False}
    [paragraph] = parse(document((LETTERS, [none, some])), "2.0", BadRecords("dev.json"))
    assert [question.answers for question in paragraph.questions] == [(), (("c", 4),)]


def test_two_questions_of_one_id():
    with pytest.raises(ValueError, match="question q: its id must be its own"):
        parse(document((LETTERS, [GOOD]), (LETTERS, [GOOD])), "1.1", BadRecords("dev.json"))


@pytest.mark.parametrize(
    "content, words",
    [
        ([], 'key "data" is the list of articles. Received: a list'),
        ({"questions": 1}, "Received: a dict with the keys questions"),
        ({"data": []}, "must hold questions. Received: none that can be used, and 0 bad"),
        ({"data": [{"title": "x"}]}, r'data\[0\]: its "paragraphs" must be a list. Received: none'),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, r'paragraphs\[0\]: its "context" must be a t'),
        ({"data": [{"paragraphs": [{"context": "x"}]}]}, 'paragraphs.0.: its "qas" must be a list'),
    ],
)
def test_a_document_of_another_form(content, words):
    with pytest.raises(ValueError, match=f"dev.json.*{words}"):
        parse(content, "1.1", BadRecords("dev.json"))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "dev.json must hold SQuAD's JSON. Received: an empty file"),
        (b" \n", "an empty file"),
        (b'{"data": [\n1,\n2', "dev.json must be JSON. .*in line 3, column 2"),
        (b'{"data":\n "caf\xe9"}', "dev.json must be UTF-8. .*in line 2, at byte 14"),
    ],
)
def test_a_broken_file(content, words):
    with pytest.raises(ValueError, match=words):
        decode(content, "dev.json")
