"""Sources for pre-training: what their examples are, that they are reproducible, where from."""

import hashlib
import os
import sys

import numpy as np
import pytest

from prepared_texts import write_prepared
from tf_largebatch import data

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def topics():
    return data.load("topics", sequence_length=64, max_predictions=10)


def read(source, examples, keys=None):
    import tensorflow as tf

    examples = np.asarray(examples, np.int64)
    if keys is not None:
        keys = np.asarray(keys, np.int32)
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), source.read(examples, keys))


def batches_of(source, **options):
    from tf_largebatch.data.batches import training_batches

    return training_batches(source, **{"global_batch_size": 8, "seed": 3, **options})


def unmasked(inputs, labels, weights):
    """The token ids with what was hidden put back."""
    ids = inputs["token_ids"].copy()
    for row, places, tokens, present in zip(
        ids, inputs["mask_positions"], labels["masked_lm"], weights["masked_lm"] > 0, strict=True
    ):
        row[places[present]] = tokens[present]
    return ids


def expected_example(source, number):
    """Token and segment ids in plain Python."""
    length = source.options.sequence_length
    cls, sep = (source.vocabulary.index(token) for token in ("[CLS]", "[SEP]"))
    a, a_end, b, b_end = source.plan.spans[number]
    ids = [cls, *source.tokens.ids[a:a_end], sep]
    segments = [0] * len(ids)
    if b_end > b:
        ids += [*source.tokens.ids[b:b_end], sep]
        segments += [1] * (len(ids) - len(segments))
    filling = [0] * (length - len(ids))
    return ids + filling, segments + filling, [1] * len(ids) + filling


@pytest.mark.parametrize("packing", ["pairs", "full_sentences"])
def test_examples_are_what_the_plan_says(packing):
    splits = data.load("topics", sequence_length=64, max_predictions=10, packing=packing)
    for source in (splits.train, splits.test):
        n = source.num_examples
        assert source.task == "masked_lm" and n == len(source.plan.spans) > 20
        inputs, labels, weights = read(source, range(n))
        ids = unmasked(inputs, labels, weights)
        for number in range(n):
            tokens, segments, padding = expected_example(source, number)
            assert ids[number].tolist() == tokens
            assert inputs["segment_ids"][number].tolist() == segments
            assert inputs["padding_mask"][number].tolist() == padding
        assert (inputs["token_ids"] != ids).any(1).mean() > 0.95
        is_pair = packing == "pairs"
        assert source.model_arguments == {"vocabulary_size": 2048, "next_sentence": is_pair}
        assert (
            set(labels) == set(weights) == {"masked_lm"} | ({"next_sentence"} if is_pair else set())
        )
        if is_pair:
            assert labels["next_sentence"].tolist() == source.plan.is_random.tolist()
            assert (weights["next_sentence"] == 1).all()


def test_batches_have_static_shapes_and_their_dtypes(topics):
    import tensorflow as tf

    inputs, labels, weights = batches_of(topics.train, total_updates=1).element_spec
    wide, narrow = tf.TensorSpec((8, 64), tf.int32), tf.TensorSpec((8, 10), tf.int32)
    assert inputs == {
        "token_ids": wide, "segment_ids": wide, "padding_mask": wide, "mask_positions": narrow,
    }  # fmt: skip
    assert labels == {"masked_lm": narrow, "next_sentence": tf.TensorSpec((8,), tf.int32)}
    assert weights["masked_lm"] == tf.TensorSpec((8, 10), tf.float32)
    assert weights["next_sentence"] == tf.TensorSpec((8,), tf.float32)


def test_masks_change_with_the_epoch_and_never_in_evaluation(topics):
    first, again = (read(topics.train, range(64)) for _ in range(2))
    epochs = [read(topics.train, range(64), [[e, i] for i in range(64)]) for e in range(2)]
    for name in first[0]:
        np.testing.assert_array_equal(first[0][name], again[0][name])
    moved = (epochs[0][0]["mask_positions"] != epochs[1][0]["mask_positions"]).any(1)
    assert moved.mean() > 0.9
    np.testing.assert_array_equal(unmasked(*epochs[0]), unmasked(*epochs[1]))
    np.testing.assert_array_equal(unmasked(*epochs[0]), unmasked(*first))
    # An example is masked alike in any batch.
    alone = read(topics.train, [17])
    np.testing.assert_array_equal(alone[0]["token_ids"][0], first[0]["token_ids"][17])


def digest_of_batches(batch_size, threads):
    """Of all that training sees from example 960 to 1920, over the end of an epoch."""
    import tensorflow as tf

    source = data.load("topics", sequence_length=64, whole_word=True).train
    bounds = {"first_update": 960 // batch_size, "total_updates": 1920 // batch_size}
    source_batches = batches_of(source, global_batch_size=batch_size, **bounds)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    assert 960 < source.num_examples < 1920
    digest = hashlib.sha256()
    for batch in source_batches.with_options(options).as_numpy_iterator():
        for rows in zip(*tf.nest.flatten(batch), strict=True):
            for row in rows:
                digest.update(np.ascontiguousarray(row).tobytes())
    return digest.hexdigest()


def test_batches_are_the_same_in_any_process_at_any_batch_size(elsewhere):
    there = elsewhere("test_pretraining", "digest_of_batches(96, threads=1)")
    assert there == digest_of_batches(8, threads=4)


def test_both_phases_have_one_vocabulary(topics):
    longer = data.load("topics", sequence_length=512)
    assert longer.train.vocabulary == topics.train.vocabulary == topics.test.vocabulary
    assert longer.train.options.max_predictions == 76
    assert data.load("topics").train.options.max_predictions == 20
    assert data.load("topics", sequence_length=50).train.options.max_predictions == 8


def test_the_best_guess_without_context_is_counted(topics):
    tokens = [topics.train.vocabulary[i] for i in topics.train.tokens.ids]
    common = max({*tokens} - {"[SEP]", "[UNK]"}, key=tokens.count)
    _, labels, weights = read(topics.test, range(topics.test.num_examples))
    guessed = labels["masked_lm"][weights["masked_lm"] > 0]
    expected = np.mean([topics.test.vocabulary[i] == common for i in guessed])
    assert abs(topics.test.unigram_accuracy - expected) < 1e-9
    assert 0.02 < expected < 0.15


def test_english_has_more_of_it(topics):
    splits = data.load("english", max_characters=400_000, sequence_length=64)
    assert splits.train.num_examples > 1.3 * topics.train.num_examples
    assert not (splits.train.tokens.ids == 1).any()  # nothing unknown


def write_text(folder, count=60, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for d in range(start, start + count):
        lines += [f"Document {d} has line {s} of some words and no more." for s in range(12)] + [""]
    (folder / f"text{start}.txt").write_text("\n".join(lines))


def test_a_folder_is_read_once_and_gives_what_memory_gives(tmp_path, monkeypatch):
    from tf_largebatch.data import corpus as corpora
    from tf_largebatch.data.masked_lm import PretrainingSource
    from tf_largebatch.data.tokenized import tokenized

    write_text(tmp_path / "a")
    (tmp_path / "a" / "empty.txt").write_text("")
    options = {"sequence_length": 48, "vocabulary_size": 300, "skip_bad_records": True}
    first = data.load("text_folder", tmp_path, **options)
    names = sorted(os.listdir(tmp_path))
    assert [name.partition("-")[0] for name in names] == ["a", "tokens", "vocabulary"]
    opened = []
    monkeypatch.setattr(corpora, "_text", lambda path: opened.append(path))
    second = data.load("text_folder", tmp_path, **options)
    longer = data.load("text_folder", tmp_path, **{**options, "sequence_length": 96})
    assert not opened and sorted(os.listdir(tmp_path)) == names
    assert longer.train.vocabulary == first.train.vocabulary
    for splits in (first, second):
        assert splits.train.bad_records == {str(tmp_path / "a" / "empty.txt"): "is empty"}
        assert splits.test.bad_records == {}
    monkeypatch.undo()
    source = first.train
    corpus = corpora.text_files(tmp_path, skip_bad_records=True)
    in_memory, _ = tokenized(corpus, source.tokenizer)
    beside = PretrainingSource("m", in_memory, source.plan, source.tokenizer, source.options)
    batches = [batches_of(s, total_updates=9) for s in (source, second.train, beside)]
    for expected, *others in zip(*(b.as_numpy_iterator() for b in batches), strict=True):
        for other in others:
            for name in expected[0]:
                np.testing.assert_array_equal(expected[0][name], other[0][name])


def test_a_folder_elsewhere_keeps_the_tokens(tmp_path):
    write_text(tmp_path / "texts")
    cache = tmp_path / "new" / "cache"
    options = {"vocabulary_size": 300, "cache_dir": str(cache), "sequence_length": 32}
    data.load("text_folder", tmp_path / "texts", **options)
    assert len(os.listdir(cache)) == 2 and os.listdir(tmp_path / "texts") == ["text0.txt"]
    with pytest.raises(ValueError, match="Received: gs://bucket. Pass a local folder as cache_dir"):
        data.load("text_folder", tmp_path / "texts", cache_dir="gs://bucket")
    (tmp_path / "file").write_text("")
    for wrong in ("file", "file/in"):
        options["cache_dir"] = str(tmp_path / wrong)
        with pytest.raises(OSError, match=f"{wrong} can't be written .*another folder as cache_di"):
            data.load("text_folder", tmp_path / "texts", **options)


def test_a_given_vocabulary_is_used_or_refused(tmp_path, topics):
    from tf_largebatch.data.vocabulary import Vocabulary, save_vocabulary

    write_text(tmp_path / "texts")
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = "document has line of some words and no more .".split()
    numbers = [prefix + str(n) for n in range(10) for prefix in ("", "##")]
    save_vocabulary(Vocabulary([*tokens, *words, *numbers]), tmp_path / "vocab.txt")
    path = str(tmp_path / "vocab.txt")
    train = data.load("text_folder", tmp_path / "texts", vocabulary=path, sequence_length=64).train
    inputs, labels, weights = read(train, range(20))
    assert train.vocabulary[:104] == tuple(tokens)
    assert (inputs["token_ids"][:, 0] == 101).all() and (
        unmasked(inputs, labels, weights) != 100
    ).all()
    with pytest.raises(ValueError, match=r"vocab.txt must cover topics.*Received: \d\d.\d%"):
        data.load("topics", vocabulary=path)


def test_wikipedia_and_books_are_mixed(tmp_path):
    texts = [f"Article {n} is about nothing. It says so twice or more." for n in range(50)]
    write_prepared(tmp_path, "wikipedia", "20230601.en", texts)
    options = {"sequence_length": 32, "vocabulary_size": 300, "next_sentence": False}
    alone = data.load("wikipedia", tmp_path, **options)
    assert alone.train.model_arguments["next_sentence"] is False
    with pytest.raises(
        ValueError, match="can't be downloaded.*no folder books.*: wikipedia;.*: engl"
    ):
        data.load("wikipedia_books", tmp_path, **options)
    write_text(tmp_path / "books")
    both = data.load("wikipedia_books", tmp_path, **options)
    assert both.train.num_examples > alone.train.num_examples
    words = both.train.tokenizer.detokenize(both.train.tokens.ids)
    assert "article" in words and "document" in words


def test_prepared_data_that_are_not_there_are_named_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for name in ("wikipedia", "wiki40b", "c4"):
        with pytest.raises(
            ImportError, match=f"{name}.* isn't in .*no download: english"
        ) as caught:
            data.load(name, tmp_path)
        assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    "options, words",
    [
        ({"sequence_length": 7}, "sequence_length must be a whole number of at least 8"),
        ({"max_predictions": 0}, "max_predictions must be a whole number of at least 1"),
        ({"max_predictions": 200}, "at most 128"),
        ({"packing": "documents"}, "packing must be one of pairs, full_sentences"),
        ({"packing": "full_sentences", "next_sentence": True}, "next_sentence needs pairs"),
        ({"vocabulary": "nowhere.txt"}, "nowhere.txt, which can't be read"),
        ({"vocabulary_size": 10}, "size must be a whole number of at least 64"),
        ({"whole_words": True}, "no option 'whole_words'. Nearest: whole_word.*sequence_length"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        data.load("topics", **options)
