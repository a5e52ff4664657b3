"""SQuAD's files, from a folder to windows."""

import json

import pytest

from tf_largebatch import data
from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

pytestmark = pytest.mark.tensorflow

TOKENS = [*SPECIAL_TOKENS, "who", "?", *"abcdefghij", "play", "##ing"]
LETTERS = "a b c d e f g h i j"


def document(context, *answers):
    """One paragraph, and a question to each answer: a text and its place."""
    asked = [
        {"id": f"q{n}", "question": "who?", "answers": [{"text": text, "answer_start": start}]}
        for n, (text, start) in enumerate(answers)
    ]
    return {"version": "any", "data": [{"paragraphs": [{"context": context, "qas": asked}]}]}


@pytest.fixture
def folder(tmp_path):
    train = document(LETTERS, ("c d", 4), ("e", 8))
    test = document("b a playing", ("playing", 4))
    for part, content in [("train", train), ("dev", test)]:
        (tmp_path / f"{part}-v1.1.json").write_text(json.dumps(content), encoding="utf-8")
    save_vocabulary(Vocabulary(TOKENS), tmp_path / "vocab.txt")
    return tmp_path


def load(folder, **options):
    vocabulary = folder / "vocab.txt"
    return data.load("squad", data_dir=folder, **{"vocabulary": vocabulary, **options})


def test_the_files(folder):
    from tf_largebatch.data.batches import evaluation_batches

    splits = load(folder, sequence_length=32, max_query_length=8)
    assert splits.train.num_examples == 2 and splits.test.num_examples == 1
    assert splits.train.model_arguments == {"vocabulary_size": len(TOKENS)}
    assert splits.train.task == "spans" and splits.train.vocabulary == tuple(TOKENS)
    [(inputs, labels, _)] = evaluation_batches(splits.test, batch_size=1).as_numpy_iterator()
    words = " ".join(TOKENS[i] for i in inputs["token_ids"][0])
    assert words.startswith("[CLS] who ? [SEP] b a play ##ing [SEP] [PAD]")
    assert (labels["start"], labels["end"]) == ([6], [7])


def test_the_defaults_are_berts(folder):
    train = load(folder).train
    assert (train.sequence_length, train.stride, train.max_query_length) == (384, 128, 64)


def test_a_number_from_the_command_line_is_a_version(folder):
    assert load(folder, version=1.1).train.version == "1.1"
    with pytest.raises(ValueError, match=r"SQuAD's file train-v2.0.json. .*can't be read"):
        load(folder, version=2.0)
    with pytest.raises(ValueError, match="version must be one of 1.1, 2.0. Received: '3'"):
        load(folder, version=3)


def test_what_is_missing_is_said(folder):
    with pytest.raises(ValueError, match=r"folder of train-v1.1.json and .* need none: questions"):
        data.load("squad")
    with pytest.raises(ValueError, match="vocabulary=None. Pass the path"):
        load(folder, vocabulary=None)
    (folder / "dev-v1.1.json").unlink()
    with pytest.raises(ValueError, match=r"SQuAD's file dev-v1.1.json. Received: .*can't be read"):
        load(folder)


def test_a_bad_record_of_a_file_is_counted_by_option(folder):
    train = document(LETTERS, ("c d", 4), ("z", 3))
    (folder / "train-v1.1.json").write_text(json.dumps(train), encoding="utf-8")
    with pytest.raises(ValueError, match=r"train-v1.1.json, question q1: answer_start 3 must be"):
        load(folder)
    train = load(folder, skip_bad_records=True).train
    assert train.num_examples == 1
    [(record, problem)] = train.bad_records.items()
    assert record.endswith("train-v1.1.json, question q1") and "answer_start 3" in problem
