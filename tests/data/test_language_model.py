"""Language models' data: every token foretold once, and what foretelling without a past gives."""

import numpy as np
import pytest

from tf_largebatch import data

pytestmark = pytest.mark.tensorflow

TRAIN = "the cat sat on the mat\n the <unk> sat \n"
VALID = "the dog sat\n"


def folder(tmp_path, *, prefix="", **files):
    """A folder with the three files; bytes are written as they are."""
    for part, text in ({"train": TRAIN, "valid": VALID, "test": "the mat sat\n"} | files).items():
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / f"{prefix}{part}.txt").write_bytes(content)
    return str(tmp_path)


def stream(ids, sequence_length, size=10):
    from tf_largebatch.data.language_model import TokenStream
    from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary

    tokenizer = Vocabulary([*SPECIAL_TOKENS, *(f"w{n}" for n in range(5, size))])
    return TokenStream(
        name="stream", ids=np.array(ids), tokenizer=tokenizer, sequence_length=sequence_length
    )


def read_all(source):
    import tensorflow as tf

    found = source.read(tf.range(source.num_examples, dtype=tf.int64))
    return [array.numpy() for array in found]


@pytest.mark.parametrize(
    "tokens, length", [(2, 1), (2, 35), (36, 35), (37, 35), (100, 7), (71, 35)]
)
def test_each_token_but_the_first_is_foretold_once(tokens, length):
    ids = np.random.default_rng(0).integers(1, 10, tokens)
    inputs, labels, weights = read_all(stream(ids, length))
    assert inputs.shape == labels.shape == weights.shape == (-(-(tokens - 1) // length), length)
    assert [array.dtype.name for array in (inputs, labels, weights)] == [
        "int32",
        "int32",
        "float32",
    ]
    np.testing.assert_array_equal(labels[weights == 1], ids[1:])
    np.testing.assert_array_equal(inputs[weights == 1], ids[:-1])
    assert not labels[weights == 0].any() and set(weights.ravel()) <= {0.0, 1.0}


def test_windows_are_batched_like_any_examples():
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    source = stream(np.arange(60) % 10, 7)
    batches = training_batches(source, global_batch_size=4, seed=0, total_updates=5)
    assert [spec.shape.as_list() for spec in batches.element_spec] == [[4, 7]] * 3
    judged = sum(
        weights.sum()
        for _, _, weights in evaluation_batches(source, batch_size=4).as_numpy_iterator()
    )
    assert judged == 59


def test_chance_levels_are_those_of_the_training_frequencies():
    from tf_largebatch.data.language_model import TokenStream

    train = stream([5, 6, 5, 7, 5, 6], 2)
    test = TokenStream(
        name="test", ids=np.array([6, 5, 9, 5]), tokenizer=train.tokenizer,
        training_counts=train.training_counts,
    )  # fmt: skip
    assert test.unigram_accuracy == pytest.approx(2 / 3)  # 5, 9, 5 against 5
    # Of 6 + 10 with one more for each token: 5 came 3 times, 9 never.
    expected = np.prod([4 / 16, 1 / 16, 4 / 16]) ** (-1 / 3)
    assert test.unigram_perplexity == pytest.approx(expected)
    assert train.unigram_accuracy == pytest.approx(2 / 5)


def test_words_of_a_folder_are_taken_as_they_are(tmp_path):
    splits = data.load("lm_folder", folder(tmp_path), sequence_length=4)
    train, test = splits.train, splits.test
    assert train.vocabulary[5:] == ("the", "sat", "cat", "mat", "on")
    words = [train.vocabulary[i] for i in train.ids]
    assert " ".join(words) == "the cat sat on the mat [SEP] the [UNK] sat [SEP]"
    assert [test.vocabulary[i] for i in test.ids] == ["the", "[UNK]", "sat", "[SEP]"]
    assert (train.num_examples, test.num_examples, train.task) == (3, 1, "language_model")
    assert train.model_arguments == {"vocabulary_size": 10} and train.bad_records == {}
    assert test.unigram_accuracy == 0 and train.unigram_accuracy == 0.2


def test_names_as_the_penn_treebank_has_them_and_the_other_held_out_part(tmp_path):
    folder(tmp_path, prefix="ptb.")
    (tmp_path / "ptb.valid.txt").unlink()
    test = data.load("lm_folder", tmp_path, held_out="test").test
    assert [test.vocabulary[i] for i in test.ids] == ["the", "mat", "sat", "[SEP]"]
    with pytest.raises(ValueError, match=r"folder with the file valid.txt.*held_out says which"):
        data.load("lm_folder", tmp_path)


def test_a_vocabulary_of_your_own_or_a_smaller_one(tmp_path):
    where = folder(tmp_path, train="a b " * 30 + "a c\n", valid="a b\n", test="a b\n")
    small = data.load("lm_folder", where, vocabulary_size=7).train
    assert small.vocabulary[5:] == ("a", "b") and (small.ids == 1).sum() == 1
    path = tmp_path / "words"
    path.write_text("\n".join(small.vocabulary), encoding="utf-8")
    again = data.load("lm_folder", where, vocabulary=path).train
    np.testing.assert_array_equal(again.ids, small.ids)
    with pytest.raises(ValueError, match=r"must cover .*at most 10%.*Received: 49.2%"):
        data.load("lm_folder", where, vocabulary_size=6)


@pytest.mark.parametrize(
    "files, options, words",
    [
        ({}, {"sequence_length": 0}, "sequence_length must be a whole number of at least 1"),
        ({}, {"held_out": "dev"}, "held_out must be valid or test. Received: held_out='dev'"),
        ({}, {"vocabulary_size": 5}, "vocabulary_size must be a whole number of at least 6"),
        ({"valid": "\n"}, {}, "valid.txt must hold text. Received: an empty file"),
        ({"train": b"a\nb \xff\n"}, {}, r"train.txt, line 2 isn't UTF-8 .byte 2.*skip_bad_recor"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, files, options, words):
    with pytest.raises(ValueError, match=words):
        data.load("lm_folder", folder(tmp_path, **files), **options)


def test_without_a_folder_the_embedded_text_is_named(tmp_path):
    for where in (None, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="folder with the file train.txt.*english_lm"):
            data.load("lm_folder", where)


def test_bad_lines_are_left_out_and_counted(tmp_path):
    where = folder(tmp_path, train=TRAIN.encode() + b"\xc3 dog\nthe dog\n")
    train = data.load("lm_folder", where, skip_bad_records=True).train
    ((line, wrong),) = train.bad_records.items()
    assert line.endswith("train.txt, line 3") and wrong == "isn't UTF-8 (byte 0 of the line)"
    assert [train.vocabulary[i] for i in train.ids[-3:]] == ["the", "dog", "[SEP]"]


def test_lines_that_are_all_bad_are_an_error(tmp_path):
    where = folder(tmp_path, valid=b"\xc3\n\xff\n")
    with pytest.raises(ValueError, match="valid.txt .* Received: 2 lines, all bad; .*isn't UTF-8"):
        data.load("lm_folder", where, skip_bad_records=True)


def test_words_too_long_for_a_vocabulary_are_unknown(tmp_path):
    train = data.load("lm_folder", folder(tmp_path, train=f"{TRAIN}{'é' * 150} dog\n")).train
    assert [train.vocabulary[i] for i in train.ids[-3:]] == ["[UNK]", "dog", "[SEP]"]


def test_a_stream_of_wrong_ids_is_refused():
    for ids, words in (
        ([5], "two or more whole numbers. Received: shape .1,."),
        ([5.0, 6.0], "dtype float64"),
        ([5, 10], "from 0 to 9. Received: 5 to 10"),
        ([-1, 5], "from 0 to 9. Received: -1 to 5"),
    ):
        with pytest.raises(ValueError, match=words):
            stream(ids, 3)


def test_the_embedded_text_holds_out_what_it_does_not_train_on():
    splits = data.load("topics_lm", sequence_length=20, vocabulary_size=1024)
    train, test = splits.train, splits.test
    assert train.model_arguments == {"vocabulary_size": 1024}
    assert 15 < len(train.ids) / len(test.ids) < 30
    assert (train.ids == 1).mean() < 0.01
    assert 0.02 < test.unigram_accuracy < 0.15
    assert 50 < test.unigram_perplexity < 1024
    windows = {tuple(row) for row in read_all(train)[0].tolist()}
    held_out = read_all(test)[0].tolist()
    assert np.mean([tuple(row) in windows for row in held_out]) < 0.05
