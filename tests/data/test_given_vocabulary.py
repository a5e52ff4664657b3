"""A run that is gone on with reads its tokens from a file: the data must be what they were."""

import functools
import importlib

import numpy as np
import pytest

from tf_largebatch import data

pytestmark = pytest.mark.tensorflow

TEXTS = [name for name in data.SOURCES if name not in (
    "digits", "digits32", "crops", "mnist", "cifar10", "imagenet2012", "image_folder", "tfrecords",
)]  # fmt: skip
EMBEDDED = {
    "topics": {},
    "english": {"max_characters": 300_000, "packing": "full_sentences"},
    "questions": {},
    "phrases": {},
    "topics_lm": {"vocabulary_size": 500},
    "english_lm": {},
}
OF_FILES = {
    "text_folder": {"vocabulary_size": 100, "sequence_length": 32},
    "lm_folder": {"vocabulary_size": 60},
    "parallel_text": {"max_length": 20},
}


@pytest.fixture
def folder(tmp_path):
    """Text in lower case with accents: capitals don't tell that the vocabulary knows both."""
    words = "für naïve leser über das éclair und noch ein wort".split()
    documents = [[words[d % 10], words[d // 10 % 10], str(d), "."] for d in range(60)]
    lines = [" ".join(words[n % 10 :] + document) for n, document in enumerate(documents)]
    for name, joined in {
        "text.txt": "\n\n", "train.txt": "\n", "valid.txt": "\n", "train.en": "\n",
        "train.de": "\n", "test.en": "\n", "test.de": "\n",
    }.items():  # fmt: skip
        text = joined.join(lines)
        if name.startswith(("valid", "test")):
            text = text.title()  # as the text to train on never is
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def everything(source):
    """All arrays of some hundred examples, training's and evaluation's."""
    import tensorflow as tf

    numbers = tf.range(0, source.num_examples, max(1, source.num_examples // 256), tf.int64)
    keys = tf.stack([tf.range(len(numbers)), tf.range(len(numbers)) + 7], axis=1)
    return tf.nest.flatten([source.read(numbers), source.read(numbers, keys)])


@pytest.mark.parametrize("name", [*EMBEDDED, *OF_FILES])
def test_with_the_tokens_it_built_a_source_is_the_same(name, folder, monkeypatch):
    from tf_largebatch.data import english

    if name == "english_lm":  # which has no option for the length of its text
        monkeypatch.setattr(english, "english", functools.partial(english.english, 300_000))
    options = EMBEDDED[name] if name in EMBEDDED else OF_FILES[name]
    first = data.load(name, folder, **options)
    path = folder / "vocabulary.txt"
    path.write_bytes("".join(f"{token}\n" for token in first.train.vocabulary).encode())
    again = data.load(name, folder, vocabulary=str(path), **options)
    for one, other in ((first.train, again.train), (first.test, again.test)):
        assert one.vocabulary == other.vocabulary and one.num_examples == other.num_examples
        assert one.model_arguments == other.model_arguments
        assert getattr(one, "lengths", np.zeros(0)).tolist() == (
            getattr(other, "lengths", np.zeros(0)).tolist()
        )
        for array, same in zip(everything(one), everything(other), strict=True):
            assert array.dtype == same.dtype
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", TEXTS)
def test_every_source_of_text_takes_a_vocabulary(name, tmp_path):
    module, function = data.SOURCES[name].split(":")
    assert "vocabulary" in data._options(getattr(importlib.import_module(module), function))
    if name in EMBEDDED:  # refused, not passed over
        with pytest.raises(ValueError, match="nowhere.txt, which can't be read"):
            data.load(name, vocabulary=str(tmp_path / "nowhere.txt"))


def test_phrases_in_pieces_of_another_vocabulary_say_what_was_left_out(folder):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *map(chr, range(97, 123))]
    tokens += [f"##{letter}" for letter in tokens[6:]] + ["two", "the", "dogs", "wait"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    splits = data.load("phrases", vocabulary=str(folder / "vocab.txt"))
    left = splits.train.num_examples
    assert splits.train.notes == (
        f"{16_000 - left} of 16000 training pairs are longer than max_length=10 and were left out",
    )
    assert splits.test.num_examples == 500 and "were cut there" in splits.test.notes[0]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens[:20]))
    with pytest.raises(ValueError, match="vocab.txt must cover phrases"):
        data.load("phrases", vocabulary=str(folder / "vocab.txt"))


def test_questions_say_which_are_cut():
    splits = data.load("questions", max_query_length=8)
    cut = splits.test.windows["questions_cut"]
    assert 0 < cut < 600
    assert splits.test.notes == (
        f"{cut} of 600 held-out questions are longer than max_query_length=8 and were cut there",
    )
    assert "of 6000 training questions" in splits.train.notes[0]
    assert data.load("questions").train.notes == ()
