"""Vocabularies: made, read, written; and text as ids, each of which knows where it came from."""

import random

import numpy as np
import pytest

from tf_largebatch.data.vocabulary import (
    SPECIAL_TOKENS,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    load_vocabulary,
    save_vocabulary,
)
from tf_largebatch.data.words import split_words

pytestmark = pytest.mark.tensorflow


def words(*tokens):
    return Vocabulary([*SPECIAL_TOKENS, *tokens])


def longest_match(word, vocabulary):
    """WordPiece of one word, in plain Python."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else f"##{word[start:end]}"
            if piece in vocabulary.tokens:
                pieces.append(vocabulary.tokens.index(piece))
                break
        else:
            return [vocabulary.id_of(UNKNOWN)]
        start = end
    return pieces


def test_tokenizing_is_longest_match_from_the_left():
    vocabulary = words("a", "ab", "abc", "##a", "##b", "##bc", "##cab", "c", ",", "##c", "e", "zz")
    draw = random.Random(0)
    texts = ["".join(draw.choices("aAbcz, ", k=30)) for _ in range(200)]
    for text, ids in zip(texts, vocabulary.tokenize(texts), strict=True):
        expected = [i for word in split_words(text) for i in longest_match(word, vocabulary)]
        assert ids.tolist() == expected and ids.dtype == np.int32


def test_offsets_give_back_what_was_written():
    text = "Walking, naïvely: the CAFE\u0301s of 东京 & xyzzy!"
    vocabulary = words("walk", "##ing", ",", "na", "##ive", "##ly", "the", "cafe", "##s", "东", ":",
                       "!", "&", "of")  # fmt: skip
    ids, starts, ends = vocabulary.tokenize_with_offsets(text)
    assert ids.tolist() == vocabulary.tokenize([text])[0].tolist()
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == [
        "Walk", "ing", ",", "na", "ïve", "ly", ":", "the", "CAFE\u0301", "s", "of", "东", "京", "&",
        "xyzzy", "!",
    ]  # fmt: skip


@pytest.mark.parametrize("lower_case", [True, False])
def test_offsets_of_any_text_are_in_order_and_cover_its_words(lower_case):
    draw = random.Random(1)
    alphabet = "abcABC ,.éÉ\u0301\tßİ中-\u200b한"
    vocabulary = build_vocabulary(["abc bca a b c A"], 64, lower_case=lower_case)
    assert vocabulary.lower_case == lower_case
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=draw.randrange(25)))
        ids, starts, ends = vocabulary.tokenize_with_offsets(text)
        assert ids.tolist() == vocabulary.tokenize([text])[0].tolist()
        assert (starts < ends).all() and (ends[:-1] <= starts[1:]).all()
        for i, a, b in zip(ids, starts, ends, strict=True):
            token = vocabulary.tokens[i].removeprefix("##")
            written = "".join(split_words(text[a:b], lower_case))
            assert token in (written, UNKNOWN)


def test_brackets_in_a_text_are_no_special_tokens():
    vocabulary = words("[", "]", "mask")
    assert vocabulary.tokenize(["[MASK]"])[0].tolist() == [5, 7, 6]


def test_detokenizing_joins_pieces_and_leaves_special_tokens_out():
    vocabulary = words("walk", "##ing", "home")
    ids = [2, *vocabulary.tokenize(["Walking home alone"])[0], 3, 0, 0]
    assert vocabulary.detokenize(ids) == "walking home [UNK]"


def test_a_built_vocabulary_has_all_characters_then_the_most_frequent_words():
    texts = ["the cat, the dog", "a cat: the bird"]
    vocabulary = build_vocabulary(texts, size=64)
    characters = vocabulary.tokens[5:]
    assert vocabulary.tokens[:5] == SPECIAL_TOKENS
    assert vocabulary.tokens[-4:] == ("the", "cat", "bird", "dog")  # 3 times, 2, then by the word
    for word in split_words(" ".join(texts)):
        assert word[0] in characters
        assert all(f"##{character}" in characters for character in word[1:])
    shuffled = build_vocabulary(reversed(texts), size=64)
    assert shuffled.tokens == vocabulary.tokens
    assert UNKNOWN not in [vocabulary.tokens[i] for t in vocabulary.tokenize(texts) for i in t]


def test_rare_characters_leave_half_of_the_vocabulary_to_words():
    texts = [" ".join(f"word{i}" for i in range(100)), "".join(map(chr, range(0x400, 0x480)))]
    vocabulary = build_vocabulary(texts, size=100)
    assert vocabulary.size == 100
    assert sum(len(t.removeprefix("##")) > 1 for t in vocabulary.tokens[5:]) >= 47


def test_the_topics_are_covered_by_2048_tokens():
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    vocabulary = build_vocabulary(texts)
    ids = np.concatenate(vocabulary.tokenize(texts))
    assert vocabulary.size == 2048
    assert vocabulary.id_of(UNKNOWN) not in ids
    vocabulary.check_covers(ids, "the topics")


@pytest.mark.parametrize("lower_case", [True, False])
def test_a_saved_vocabulary_is_loaded_as_it_was(tmp_path, lower_case):
    vocabulary = build_vocabulary(["Der Bär, 东京 Über"], 64, lower_case=lower_case)
    path = tmp_path / "vocab.txt"
    path.write_text("old")
    save_vocabulary(vocabulary, path)
    loaded = load_vocabulary(path)
    assert loaded.tokens == vocabulary.tokens and loaded.lower_case == lower_case
    assert [p.name for p in tmp_path.iterdir()] == ["vocab.txt"]


@pytest.mark.parametrize("text", ["ein haus für alle", "naïve", "a b c", "Ein Haus", "EIN É"])
def test_a_built_vocabulary_treats_texts_as_the_one_loaded_from_its_file(tmp_path, text):
    for lower_case in (True, False):
        built = build_vocabulary([text], 64, lower_case=lower_case)
        save_vocabulary(built, tmp_path / "vocab.txt")
        loaded = load_vocabulary(tmp_path / "vocab.txt")
        assert loaded.lower_case == built.lower_case
        new = [text, text.upper(), text.lower()]
        for one, other in zip(built.tokenize(new), loaded.tokenize(new), strict=True):
            assert one.tolist() == other.tolist()
        assert built.id_of(UNKNOWN) not in built.tokenize([text])[0]
        restored = built.detokenize(built.tokenize([text])[0])
        assert lower_case or restored == text


def test_no_character_in_lower_case_looks_like_one_that_is_not():
    texts = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    tokens = {word for text in texts for word in split_words(text)}
    assert len(tokens) > 10**5
    special = {*SPECIAL_TOKENS}
    assert Vocabulary([*SPECIAL_TOKENS, *sorted(tokens - special)]).lower_case


def test_a_long_word_is_unknown_and_no_token():
    longest, longer = "x" * 200, "é" * 101
    texts = [f"a {longest} {longer}", "y" * 300]
    vocabulary = build_vocabulary(texts, lower_case=False)
    assert vocabulary.tokens[5:] == ("##x", "a", "x", longest)
    ids = [vocabulary.tokens[i] for text in vocabulary.tokenize(texts) for i in text]
    assert ids == ["a", longest, UNKNOWN, UNKNOWN]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(OSError, match=f"can't be written to {folder} .*name another folder"):
            save_vocabulary(words("a"), folder / "vocab.txt")


def test_a_vocabulary_of_berts_has_its_ids_looked_up_by_name(tmp_path):
    lines = ["[PAD]", "[unused0]", *SPECIAL_TOKENS[1:], "a", "##b"]
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    vocabulary = load_vocabulary(path)
    assert vocabulary.id_of("[CLS]") == 3 and vocabulary.lower_case
    assert vocabulary.special_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert vocabulary.begins_word.tolist() == [True] * 7 + [False]
    assert vocabulary.tokenize(["AB é"])[0].tolist() == [6, 7, 2]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "vocab.txt must hold one token a line. Received: an empty file"),
        (b"[PAD]\n\xff\n", "vocab.txt must be UTF-8.*line 2, at byte 6"),
        (b"[PAD]\na\nb\na\n", "of .*vocab.txt must come once. Received: 'a' in lines 2 and 4"),
        (b"[PAD]\n\na\n", "of .*vocab.txt must be text.*'' in line 2"),
        (b"[PAD]\na b\n", "'a b' in line 2"),
        (
            b"[PAD]\n##" + b"a" * 201,
            "of .*vocab.txt must have at most 200.*201 bytes in line 2, '##",
        ),
        (b"[PAD]\n[UNK]\n[CLS]\na\n", r"vocab.txt must hold.*4 tokens without \[SEP\] \[MASK\]"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, content, words):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_vocabulary(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="one token a line. Received: .*none.txt, which can't"):
        load_vocabulary(tmp_path / "none.txt")


def test_a_vocabulary_that_does_not_fit_says_by_how_much():
    vocabulary = words("a")
    vocabulary.check_covers([5] * 90 + [1] * 10, "corpus")
    with pytest.raises(ValueError, match=r"must cover corpus: at most 10%.*Received: 12.5%"):
        vocabulary.check_covers(np.array([5] * 7 + [1]), "corpus")


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="size must be a whole number of at least 64"):
        build_vocabulary(["a"], size=10)
    with pytest.raises(ValueError, match="can't be made of texts without a word"):
        build_vocabulary(["", " \n"])
    with pytest.raises(ValueError, match="texts must be a list of str"):
        words("a").tokenize("a")


def test_without_tensorflow_text_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match="tensorflow-text.*tf-largebatch.nlp"):
        words("a").tokenize(["a"])
