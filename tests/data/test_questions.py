"""The embedded questions: each has one answer, and none is to be learnt by heart."""

import collections
import json
import re
import zlib

import numpy as np
import pytest

from tf_largebatch import data
from tf_largebatch.data.questions import _KINDS, _SUBJECTS, document
from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def splits():
    return data.load("questions")


SUBJECT, VALUE = r"the (?P<s>\w+)", r"(?P<v>\w+ \w+)"
SAID = {
    "returns": [rf"{SUBJECT} returns the {VALUE}[.]"],
    "raises": [rf"{SUBJECT} raises the {VALUE}[.]"],
    "takes": [rf"{SUBJECT} takes {VALUE}"],
    "where": [rf"{SUBJECT} is defined in the {VALUE}[.]", rf"the {VALUE} contains {SUBJECT}[.]"],
    "when": [rf"{SUBJECT} starts after the {VALUE}[.]", rf"after the {VALUE} {SUBJECT} starts[.]"],
}


def facts_of(split):
    """Each paragraph and its facts (subject, kind, value), read from the English."""
    for paragraph in document(split)["data"][0]["paragraphs"]:
        facts = []
        for sentence in re.findall(r"[^.]+[.]", paragraph["context"].lower()):
            for kind, patterns in SAID.items():
                found = [re.search(pattern, sentence) for pattern in patterns]
                facts += [(match["s"], kind, match["v"]) for match in found if match]
        yield paragraph, facts


ASKED = {"return": "returns", "raise": "raises", "take": "takes", "start": "when"}


def kind_asked(question):
    for word, kind in ASKED.items():
        if word in question:
            return kind
    return "where"


@pytest.mark.parametrize("split, paragraphs", [("train", 1500), ("test", 150)])
def test_each_paragraph_answers_its_questions_once(split, paragraphs):
    count = 0
    for paragraph, facts in facts_of(split):
        count += 1
        assert len(facts) == 4 and len({value for *_, value in facts}) == 4
        assert len({subject for subject, *_ in facts}) == 2
        kinds = collections.Counter(kind for _, kind, _ in facts)
        assert sorted(kinds.values()) == [1, 1, 2]  # one is said of both
        for asked in paragraph["qas"]:
            [answer] = asked["answers"]
            text, start = answer["text"], answer["answer_start"]
            assert paragraph["context"][start : start + len(text)] == text
            right = [
                value
                for subject, kind, value in facts
                if re.search(rf"\b{subject}\b", asked["question"])
                and kind == kind_asked(asked["question"])
            ]
            assert right == [text]
    assert count == paragraphs


def test_no_held_out_fact_is_said_in_training():
    train, test = ({fact for _, facts in facts_of(s) for fact in facts} for s in ("train", "test"))
    assert len(train) > 1500 and len(test) > 300
    assert not train & test
    # By its subject and its kind alone no fact is known: each has many values.
    values = collections.Counter((subject, kind) for subject, kind, _ in train)
    assert len(values) == len(_SUBJECTS) * len(_KINDS) and min(values.values()) >= 5


def test_the_place_of_an_answer_does_not_tell_it():
    places = collections.Counter()
    for paragraph, _ in facts_of("train"):
        order = sorted(paragraph["qas"], key=lambda asked: asked["answers"][0]["answer_start"])
        for place, asked in enumerate(order):
            places[kind_asked(asked["question"]), place] += 1
    for kind in {kind for kind, _ in places}:
        counts = np.array([places[kind, place] for place in range(4)])
        assert counts.sum() > 1000
        assert abs(counts / counts.sum() - 0.25).max() < 0.05  # 3 deviations: 0.04


def test_they_are_the_same_in_every_run():
    # Results are comparable only while this stays what it is.
    sums = [zlib.crc32(json.dumps(document(split)).encode()) for split in ("train", "test")]
    assert sums == [1255225063, 1297039423]


def test_sizes_and_chance(splits):
    for source, questions in [(splits.train, 6000), (splits.test, 600)]:
        assert source.windows == {
            "questions": questions,
            "questions_cut": 0,
            "questions_with_cut_paragraph": 0,
            "windows": questions,
            "windows_with_answer": questions,
        }
        assert source.num_examples == questions and source.bad_records == {}
        assert 25 < source.chance_f1 < 35  # one of four, and words in common
    unknown = splits.test.tokenizer.id_of("[UNK]")
    assert splits.test.vocabulary[unknown] == "[UNK]"
    assert not (splits.test._tokens == unknown).any()


def test_random_logits_are_no_better_than_chance(splits):
    start, end = np.random.default_rng(0).normal(size=(2, 600, 64))
    found = splits.test.judge(start, end)
    assert found["questions"] == 600
    assert found["exact_match"] < 5 and found["f1"] < splits.test.chance_f1


def test_a_given_vocabulary_is_taken_and_long_pieces_make_windows(tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), ".", "?", ","]
    save_vocabulary(Vocabulary(tokens), tmp_path / "vocab.txt")
    test = data.load("questions", vocabulary=tmp_path / "vocab.txt", max_query_length=32).test
    assert test.model_arguments == {"vocabulary_size": len(tokens)}
    assert test.windows["questions_with_cut_paragraph"] == 600 < test.num_examples
