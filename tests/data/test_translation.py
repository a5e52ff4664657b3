"""Translation: what is read from parallel text, how it is judged, and the made-up sentences."""

import sys

import numpy as np
import pytest

from tf_largebatch import data

pytestmark = pytest.mark.tensorflow

ENGLISH = ["A dog sees the cat.", "The cats sleep.", "A dog sleeps near the old house.", "No!"]
GERMAN = ["Ein Hund sieht die Katze.", "Die Katzen schlafen.", "Ein Hund schläft am Haus.", "Nein!"]


def write(folder, **texts):
    """Files of lines: write(folder, train_en=["A dog."]); bytes are written as they are."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        content = text if isinstance(text, bytes) else "".join(f"{t}\n" for t in text).encode()
        (folder / name.replace("_", ".")).write_bytes(content)
    return str(folder)


def four(tmp_path, **changes):
    """A folder with four pairs to train on and the last two to be judged by."""
    texts = {"train_en": ENGLISH, "train_de": GERMAN, "test_en": ENGLISH[2:], "test_de": GERMAN[2:]}
    return write(tmp_path / "pairs", **(texts | changes))


def rows(source, numbers, *length):
    import tensorflow as tf

    inputs, labels, weights = source.read(tf.constant(numbers, tf.int64), None, *length)
    return (
        inputs["source_ids"].numpy(),
        inputs["target_ids"].numpy(),
        *(array.numpy() for array in (labels, weights)),
    )


def tokens(source, ids):
    return " ".join(source.vocabulary[i] for i in ids)


def test_parallel_text_becomes_pieces_with_a_start_and_an_end(tmp_path):
    train, test = (lambda s: (s.train, s.test))(data.load("parallel_text", four(tmp_path)))
    assert (train.num_examples, test.num_examples, train.task) == (4, 2, "translation")
    source, target, labels, weights = rows(train, [1, 0])
    assert source.shape == target.shape == labels.shape == weights.shape == (2, 150)
    assert [a.dtype.name for a in (source, target, labels, weights)] == [*["int32"] * 3, "float32"]
    assert tokens(train, source[0][:6]) == "The cats sleep . [SEP] [PAD]"
    assert tokens(train, labels[0][:6]) == "Die Katzen schlafen . [SEP] [PAD]"
    assert tokens(train, target[0][:6]) == "[CLS] Die Katzen schlafen . [PAD]"
    assert tokens(train, labels[1][:8]) == "Ein Hund sieht die Katze . [SEP] [PAD]"
    np.testing.assert_array_equal(weights, labels != 0)
    assert weights.sum() == 5 + 7 and train.lengths.tolist() == [7, 5, 9, 3]
    assert (
        train.model_arguments == test.model_arguments == {"vocabulary_size": len(train.vocabulary)}
    )
    assert test.references == tuple(GERMAN[2:]) and test.chance_bleu is not None
    assert train.detokenize(labels) == [GERMAN[1], GERMAN[0]]


def test_a_length_cuts_only_padding(tmp_path):
    train = data.load("parallel_text", four(tmp_path)).train
    for whole, cut in zip(rows(train, [2, 3, 1]), rows(train, [2, 3, 1], 9), strict=True):
        assert cut.shape == (3, 9) and not whole[:, 9:].any()
        np.testing.assert_array_equal(whole[:, :9], cut)


def test_files_of_other_languages_and_endings(tmp_path):
    folder = write(
        tmp_path / "other", train_fr=["Oui."], train_nl=b"\xef\xbb\xbfJa.\r\n", test_fr=b"Oui",
        test_nl=["Ja."],
    )  # fmt: skip
    splits = data.load("parallel_text", folder, source_language="fr", target_language="nl")
    _, _, labels, _ = rows(splits.train, [0])
    assert splits.train.detokenize(labels) == ["Ja."] and splits.test.references == ("Ja.",)


def test_longer_pairs_are_left_out_of_training_and_counted_but_cut_in_the_test(tmp_path):
    splits = data.load("parallel_text", four(tmp_path), max_length=7)
    assert (splits.train.num_examples, splits.train.dropped_pairs) == (3, 1)
    assert splits.train.notes == (
        "1 of 4 training pairs is longer than max_length=7 and was left out",
    )
    assert splits.train.lengths.tolist() == [7, 5, 3]
    assert (splits.test.num_examples, splits.test.dropped_pairs) == (2, 0)
    assert splits.test.cut_pairs == 1 and splits.test.notes == (
        "1 of 2 held-out pairs is longer than max_length=7 and was cut there",
    )
    both = data.load("parallel_text", four(tmp_path), max_length=3).test
    assert both.notes == ("1 of 2 held-out pairs is longer than max_length=3 and was cut there",)
    source, _, labels, _ = rows(splits.test, [0])
    assert tokens(splits.test, source[0]) == "A dog sleeps near the old [SEP]"
    assert tokens(splits.test, labels[0]) == "Ein Hund schläft am Haus . [SEP]"
    assert splits.test.references == tuple(GERMAN[2:])


def test_a_vocabulary_of_your_own(tmp_path):
    folder = four(tmp_path)
    train = data.load("parallel_text", folder).train
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in train.vocabulary), encoding="utf-8")
    again = data.load("parallel_text", folder, vocabulary=path).train
    for one, other in zip(rows(train, range(4)), rows(again, range(4)), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r".PAD. must be the first token of .*vocab.txt.*line 2"):
        data.load("parallel_text", folder, vocabulary=path)
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nHund\n", encoding="utf-8")
    with pytest.raises(ValueError, match="vocab.txt must cover .*pairs.* may be .UNK"):
        data.load("parallel_text", folder, vocabulary=path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"train_de": GERMAN[:3]}, "parallel, line by line. Received: 4 and 3 lines"),
        ({"train_de": [*GERMAN[:2], " ", GERMAN[3]]}, r"train.de, line 3 is empty.*skip_bad_rec"),
        ({"test_en": b"x\nNo \xff\n"}, r"test.en, line 2 isn't UTF-8 .byte 3 of the line"),
        ({"test_de": b" \n"}, r"test.de must hold one sentence a line. Received: an empty file"),
    ],
)
def test_a_bad_line_is_named(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        data.load("parallel_text", four(tmp_path, **changes))


def test_bad_lines_are_left_out_with_their_pairs_and_counted(tmp_path):
    folder = four(
        tmp_path, train_en=[ENGLISH[0], "", *ENGLISH[2:]],
        train_de=GERMAN[0].encode() + b"\nJa\n\xc3\nNein!\n", test_en=["No!"], test_de=["Nein!"],
    )  # fmt: skip
    train = data.load("parallel_text", folder, skip_bad_records=True).train
    bad = {name.rpartition("pairs/")[2]: wrong for name, wrong in train.bad_records.items()}
    assert bad == {
        "train.en, line 2": "is empty",
        "train.de, line 3": "isn't UTF-8 (byte 0 of the line)",
    }
    _, _, labels, _ = rows(train, range(train.num_examples))
    assert train.detokenize(labels) == [GERMAN[0], GERMAN[3]]


@pytest.mark.parametrize("part", ["train", "test"])
def test_pairs_that_are_all_bad_are_an_error(tmp_path, part):
    changes = {f"{part}_en": b"\nNo\n", f"{part}_de": b"Ja\n\xff\n"}
    words = (
        rf"{part}.en and .*{part}.de must hold a pair.* Received: 2 pairs, all bad; .*{part}.en, "
    )
    with pytest.raises(ValueError, match=f"{words}line 1 is empty.$"):
        data.load("parallel_text", four(tmp_path, **changes), skip_bad_records=True)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"source_language": "fr"}, r"needs the file .*train.fr, one sentence a line"),
        ({"max_length": 1}, "max_length must be a whole number of at least 2"),
        ({"max_length": 2}, "at most max_length=2 pieces. Received: 4 pairs, none of which"),
        ({"vocabulary_size": 10}, "size must be a whole number of at least 64"),
        ({"vocabulary": "nowhere.txt"}, "nowhere.txt, which can't be read"),
        ({"length": 5}, "no option 'length'. Nearest: max_length"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        data.load("parallel_text", four(tmp_path), **options)


def test_without_a_folder_or_a_file_the_way_out_is_named(tmp_path):
    with pytest.raises(ValueError, match="must be told the folder.*Received: data_dir=None"):
        data.load("parallel_text")
    with pytest.raises(ValueError, match="train.en, one sentence a line. Received: it can't be"):
        data.load("parallel_text", str(tmp_path / "nowhere"))


def test_batches_have_one_of_the_bucket_lengths_or_the_static_one(tmp_path):
    from tf_largebatch.data.batches import training_batches

    options = {"global_batch_size": 2, "seed": 0, "total_updates": 4}
    for buckets, lengths in ((True, {6, 12}), (False, {150})):
        train = data.load("parallel_text", four(tmp_path), buckets=buckets).train
        batches = training_batches(train, **options)
        found = [labels.shape for _, labels, _ in batches.as_numpy_iterator()]
        assert {length for _, length in found} == lengths and len(found) == 4
        static = batches.element_spec[0]["target_ids"].shape.as_list()
        assert static == [2, None if buckets else 150]


def prepare_wmt(root, pairs, split, damaged=False):
    """Pairs as TensorFlow Datasets writes them."""
    import tensorflow as tf

    folder = root / "wmt16_translate" / "de-en" / "1.0.0"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"wmt16_translate-{split}.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for english, german in pairs:
            found = tf.train.Example()
            found.features.feature["en"].bytes_list.value.append(english.encode())
            found.features.feature["de"].bytes_list.value.append(german.encode())
            writer.write(found.SerializeToString())
    if damaged:
        content = bytearray(path.read_bytes())
        content[-8] ^= 1
        path.write_bytes(content)


def test_wmt16_is_read_as_it_was_prepared(tmp_path):
    pairs = list(zip(ENGLISH, GERMAN, strict=True))
    prepare_wmt(tmp_path, pairs, "train")
    prepare_wmt(tmp_path, pairs[:2], "test")
    splits = data.load("wmt16", str(tmp_path))
    source, _, labels, _ = rows(splits.train, range(4))
    assert splits.train.detokenize(labels) == GERMAN and splits.train.detokenize(source) == ENGLISH
    assert splits.test.references == tuple(GERMAN[:2]) and splits.train.name == "wmt16"

    other = data.load("wmt16", str(tmp_path), test_dir=four(tmp_path)).test
    assert other.references == tuple(GERMAN[2:])

    prepare_wmt(tmp_path, [*pairs, ("Yes.", "")], "train")
    with pytest.raises(ValueError, match="split train, pair 4, de is empty"):
        data.load("wmt16", str(tmp_path))
    assert len(data.load("wmt16", str(tmp_path), skip_bad_records=True).train.bad_records) == 1
    prepare_wmt(tmp_path, pairs, "train", damaged=True)
    with pytest.raises(ValueError, match="split train in .* cannot be used.*corrupted.*Prepare"):
        data.load("wmt16", str(tmp_path))


def test_without_the_package_wmt16_names_the_embedded_pairs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="wmt16_translate/de-en isn't in .*no download: phrases"):
        data.load("wmt16", str(tmp_path))


def test_bleu_is_that_of_sacrebleu(tmp_path):
    sacrebleu = pytest.importorskip("sacrebleu")
    test = data.load("phrases").test
    words = [reference.split() for reference in test.references]
    for translations in (
        list(test.references),
        [" ".join([*line[1:], line[0]]) for line in words],
        [" ".join(line[:-2]) for line in words],
        list(test.baseline),
    ):
        expected = sacrebleu.corpus_bleu(translations, [list(test.references)]).score
        assert test.bleu(translations) == pytest.approx(expected, abs=1e-9)
    assert test.bleu(test.references) == pytest.approx(100)
    assert test.chance_bleu == test.bleu(test.baseline)


def test_bleu_by_hand(tmp_path):
    """Papineni et al. 2002: the geometric mean of four precisions, times the brevity penalty."""
    pytest.importorskip("sacrebleu")
    german = ["a b c d e f", "g h i j k"]
    folder = four(tmp_path, train_de=GERMAN[:2] + german, test_de=german)
    test = data.load("parallel_text", folder).test
    # Of 9 words 8 are right, of 7 pairs 5, of 5 triples 3, of 3 quadruples 1; 9 against 11 words.
    precisions = np.array([8 / 9, 5 / 7, 3 / 5, 1 / 3])
    expected = 100 * np.exp(np.log(precisions).mean()) * np.exp(1 - 11 / 9)
    assert test.bleu(["a b c d x", "g h i k"]) == pytest.approx(expected)


def test_bleu_without_regard_to_case_where_the_vocabulary_has_none(tmp_path):
    pytest.importorskip("sacrebleu")
    lower = [text.lower() for text in GERMAN[2:]]
    uncased = data.load("parallel_text", four(tmp_path), lower_case=True).test
    cased = data.load("parallel_text", four(tmp_path)).test
    assert uncased.bleu(lower) == pytest.approx(100)
    assert cased.bleu(lower) < cased.bleu(GERMAN[2:]) == pytest.approx(100)


def test_bleu_says_what_is_missing(tmp_path, monkeypatch):
    splits = data.load("parallel_text", four(tmp_path))
    with pytest.raises(ValueError, match="no references to judge translations by"):
        splits.train.bleu(GERMAN)
    with pytest.raises(ValueError, match="each of the 2 examples of .*pairs. Received: 1"):
        splits.test.bleu(["Nein!"])
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"BLEU needs the package sacrebleu.*tf-largebatch\[nlp"):
        splits.test.bleu(["Nein!", "Nein!"])


def test_text_is_put_together_as_it_is_written(tmp_path):
    lines = [
        "It's 3.5%, or 1,000 (a well-known figure).",
        "Who: you? No; me!",
        "[Yes] it works.",
    ]
    folder = four(tmp_path, train_en=lines, train_de=lines, test_en=lines, test_de=lines)
    train = data.load("parallel_text", folder).train
    _, _, labels, _ = rows(train, range(3))
    assert train.detokenize(labels) == lines
    end = train.vocabulary.index("[SEP]")
    first = labels[1].tolist()
    assert train.detokenize([first[:2], [*first[:2], end, *first], []]) == ["Who:", "Who:", ""]


def test_phrases_are_the_same_each_time_and_held_out_ones_are_new():
    first, again = data.load("phrases"), data.load("phrases", buckets=False)
    sources = []
    for one, other in ((first.train, again.train), (first.test, again.test)):
        numbers = range(one.num_examples)
        for array, same in zip(rows(one, numbers), rows(other, numbers), strict=True):
            np.testing.assert_array_equal(array, same)
        sources.append(set(one.detokenize(rows(one, numbers)[0])))
    assert len(sources[0]) == first.train.num_examples and len(sources[1]) == 500
    assert not sources[0] & sources[1]
    assert first.train.dropped_pairs == first.test.dropped_pairs == 0
    assert (np.concatenate(rows(first.train, range(16_000))[:1]) != 1).all()  # no [UNK]
    assert first.train.notes == first.test.notes == ()


def test_words_alone_do_not_translate_phrases():
    pytest.importorskip("sacrebleu")
    test = data.load("phrases").test
    assert test.chance_bleu < 12
    assert test.bleu(test.references[1:] + test.references[:1]) < test.chance_bleu


def test_phrases_obey_their_grammar():
    """Agreement and order, read from the sentences by their endings alone."""
    from tf_largebatch.data import phrases

    singular, plural = set(phrases._NOUNS), {many for many, _, _ in phrases._NOUNS.values()}
    checked = dict.fromkeys(("adjective", "article", "conjunction", "verb"), 0)
    for english, translation, alignment in phrases.sentences(2000):
        place = {source: number for number, source in enumerate(alignment)}
        assert len(place) == len(translation) and translation[-1] == "." and len(english) > 3
        verb = translation[-2]
        nouns = [(i, word) for i, word in enumerate(english) if word in singular | plural]
        for i, word in nouns:
            noun = translation[place[i]].removesuffix("n")
            ending = noun[-2:] if word in plural else noun[-1:]
            assert ending in (("ai", "oi") if word in plural else ("a", "o"))
            before = english[i - 1]
            if before in phrases._ADJECTIVES:
                assert translation[place[i - 1]].endswith(ending)
                assert place[i - 1] == place[i] + 1
                checked["adjective"] += 1
            if before == "the":
                assert translation[place[i - 1]] == "l" + ending
                checked["article"] += 1
        both = len(nouns) > 1 and "and" in english[: nouns[1][0]]
        assert verb.endswith("n") == (both or nouns[0][1] in plural)
        checked["conjunction"] += both
        checked["verb"] += 1
    assert min(checked.values()) > 50
