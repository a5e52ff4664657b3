"""Masking against plain Python that draws the same numbers, and those numbers by statistics."""

import random

import numpy as np
import pytest

from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary

pytestmark = pytest.mark.tensorflow

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
GOLDEN = 0x9E3779B97F4A7C15
WORDS = 2**32  # where the words' stream begins


def vocabulary_of(size=100):
    """Every third token continues a word; two more are special."""
    rest = [f"##c{i}" if i % 3 == 0 else f"w{i}" for i in range(size - 7)]
    return Vocabulary([*SPECIAL_TOKENS, "[unused0]", "[unused1]", *rest])


def split_mix(state, count):
    """`count` numbers of SplitMix64, as its authors print it."""
    numbers = []
    for _ in range(count):
        state = (state + GOLDEN) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


def hash_of(number):
    return split_mix(number - GOLDEN, 1)[0]


def examples(vocabulary, batch=40, length=48, seed=0):
    """Token ids of pairs, of many lengths."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((batch, length), np.int32)
    normal = np.setdiff1d(np.arange(vocabulary.size), vocabulary.special_ids)
    for row in ids:
        n = draw.integers(3, length + 1)
        row[:n] = draw.choice(normal, n)
        row[0], row[n - 1] = CLS, SEP
        row[draw.integers(1, n)] = SEP
        if n > 10:
            row[draw.integers(2, n - 2)] = UNKNOWN
    ids[0] = [CLS, SEP, SEP] + [PAD] * (length - 3)  # nothing to guess
    ids[1] = [CLS, 9, SEP, SEP] + [PAD] * (length - 4)  # one token
    return ids


def keys_of(batch, seed=0):
    return np.random.default_rng(seed).integers(-(2**31), 2**31, (batch, 2)).astype(np.int32)


def masked(ids, keys, vocabulary, **options):
    from tf_largebatch.data import masking

    found = masking.masked(ids, keys, vocabulary=vocabulary, **options)
    return type(found)(*(part.numpy() for part in found))


def words_in(ids, vocabulary):
    """Lists of places: a word ends where another begins, at special tokens, and at the end."""
    words, open_word = [], False
    for place, i in enumerate(ids.tolist()):
        if i in (PAD, CLS, SEP):
            open_word = False
        elif open_word and vocabulary.tokens[i].startswith("##"):
            words[-1].append(place)
        else:
            words.append([place])
            open_word = True
    return words


def expected_row(ids, key, vocabulary, max_predictions, whole_word):
    """One example, token after token."""
    state = hash_of(int(np.int32(key).view(np.uint64)[0]))
    drawn = split_mix(state, len(ids))
    maskable = [p for p, i in enumerate(ids.tolist()) if i not in (PAD, CLS, SEP)]
    n = int(np.floor(15 * sum(i != PAD for i in ids.tolist()) / 100 + 0.5))
    n = min(max(n, 1), max_predictions, len(maskable))
    if whole_word:
        words = words_in(ids, vocabulary)
        of_words = split_mix(state + WORDS * GOLDEN, len(words))
        chosen = []
        for w in sorted(range(len(words)), key=lambda w: (-(of_words[w] >> 33), w)):
            if len(chosen) + len(words[w]) <= n:
                chosen += words[w]
    else:
        chosen = sorted(maskable, key=lambda p: (-(drawn[p] >> 33), p))[:n]
    normal = [i for i, token in enumerate(vocabulary.tokens) if token[0] != "["]
    hidden = ids.copy()
    for p in chosen:
        low = drawn[p] % 2**33
        if low % 10 < 8:
            hidden[p] = MASK
        elif low % 10 == 8:
            hidden[p] = normal[low // 10 % len(normal)]
    return hidden, sorted(chosen)


def test_the_generator_is_split_mix():
    assert split_mix(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("whole_word", [False, True])
@pytest.mark.parametrize("max_predictions", [1, 5, 8, 48])
def test_masking_is_as_in_plain_python(whole_word, max_predictions):
    vocabulary = vocabulary_of()
    ids = examples(vocabulary, batch=100)
    keys = keys_of(100)
    found = masked(ids, keys, vocabulary, max_predictions=max_predictions, whole_word=whole_word)
    for row, key, hidden, positions, labels, weights in zip(ids, keys, *found, strict=True):
        expected, places = expected_row(row, key, vocabulary, max_predictions, whole_word)
        n = len(places)
        assert hidden.tolist() == expected.tolist()
        assert positions.tolist() == places + [0] * (max_predictions - n)
        assert labels.tolist() == row[places].tolist() + [0] * (max_predictions - n)
        assert weights.tolist() == [1] * n + [0] * (max_predictions - n)
    assert found.token_ids.dtype == found.positions.dtype == found.labels.dtype == np.int32
    assert found.weights.dtype == np.float32


def test_whole_words_are_masked_or_not_at_all_and_no_room_is_left():
    vocabulary = vocabulary_of()
    ids = examples(vocabulary, batch=300, seed=1)
    found = masked(ids, keys_of(300), vocabulary, max_predictions=8, whole_word=True)
    sizes = set()
    for row, positions, weights in zip(ids, found.positions, found.weights, strict=True):
        chosen = set(positions[weights > 0].tolist())
        words = words_in(row, vocabulary)
        total = sum(map(len, words))
        wanted = (15 * int((row != PAD).sum()) + 50) // 100
        room = min(max(wanted, 1), 8, total) - len(chosen)
        for word in words:
            assert len(chosen & {*word}) in (0, len(word))
            assert chosen & {*word} or len(word) > room
            sizes |= {len(word)} if chosen & {*word} else set()
    assert max(sizes) > 2


def chi_square(counts, expected):
    """In deviations of its distribution, nearly normal for many cells."""
    counts, expected = np.asarray(counts, float).ravel(), np.asarray(expected, float).ravel()
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("kind", ["random", "counting", "evaluation"])
def test_positions_and_replacements_are_even(kind):
    from tf_largebatch.data.masking import fixed_keys

    batch, length, k = 20_000, 32, 5
    vocabulary = vocabulary_of(size=57)
    ids = np.full((batch, length), 10, np.int32)
    ids[:, 0] = CLS
    ids[:, -1] = SEP
    keys = keys_of(batch)
    if kind == "counting":
        keys = np.stack([np.arange(batch), np.zeros(batch)], 1).astype(np.int32)
    elif kind == "evaluation":
        keys = fixed_keys(np.arange(batch)).numpy()
    found = masked(ids, keys, vocabulary, max_predictions=k)
    assert (found.weights.sum(1) == k).all()
    counts = np.bincount(found.positions.ravel(), minlength=length)
    assert counts[0] == counts[-1] == 0
    # Drawn without putting back: each place's variance is a sixth smaller.
    assert abs(chi_square(counts[1:-1], np.full(30, batch * k / 30))) < 4.5
    pairs = np.zeros((length, length))
    for i in range(k):
        for j in range(i + 1, k):
            np.add.at(pairs, (found.positions[:, i], found.positions[:, j]), 1)
    above = pairs[np.triu_indices(length, 1)]
    above = above[above > 0]
    assert len(above) == 30 * 29 / 2
    assert abs(chi_square(above, np.full(len(above), batch * k * (k - 1) / 2 / len(above)))) < 4.5
    there = np.take_along_axis(found.token_ids, found.positions, 1)
    random_ones = there[(there != MASK) & (there != 10)]
    n = batch * k
    share = 0.1 * 49 / 50  # one of 50 normal tokens is the one that was there
    actions = [(there == MASK).sum(), len(random_ones), (there == 10).sum()]
    assert chi_square(actions, [0.8 * n, share * n, (0.2 - share) * n]) < 4.5
    replaced = np.bincount(random_ones, minlength=57)
    assert replaced[:7].sum() == 0  # never a special one
    replaced = np.delete(replaced, 10)[7:]
    assert abs(chi_square(replaced, np.full(49, len(random_ones) / 49))) < 4.5
    # What one example draws says nothing of the next.
    chosen = np.zeros((batch, length))
    np.put_along_axis(chosen, found.positions, 1, 1)
    a, b = chosen[:-1, 1:-1], chosen[1:, 1:-1]
    together = a.T @ b
    assert abs(chi_square(together, np.full((30, 30), (batch - 1) * (k / 30) ** 2))) < 4.5


def test_words_are_drawn_evenly_whatever_their_size():
    vocabulary = vocabulary_of()
    begin, go_on = 8, 7
    assert vocabulary.tokens[go_on].startswith("##")
    row = [CLS] + [begin, go_on, begin] * 6 + [SEP]  # words of two and of one
    ids = np.tile(np.int32(row), (30_000, 1))
    found = masked(ids, keys_of(30_000), vocabulary, max_predictions=2, whole_word=True)
    # The first word drawn is of two pieces in half of the examples, and then fills the room; else
    # one of one piece is, then another one of one piece.
    two = found.positions[:, 0] % 3 == 1
    two &= found.positions[:, 1] == found.positions[:, 0] + 1
    assert abs(two.mean() - 0.5) < 4.5 * np.sqrt(0.25 / 30_000)
    assert (found.weights == 1).all()
    counts = np.bincount(found.positions[two, 0] // 3, minlength=6)
    assert abs(chi_square(counts, np.full(6, two.sum() / 6))) < 4.5


def test_a_mask_is_a_function_of_its_key_alone():
    vocabulary = vocabulary_of()
    ids, keys = examples(vocabulary, batch=16), keys_of(16)
    order = random.Random(0).sample(range(16), 16)
    for whole_word in (False, True):
        options = {"max_predictions": 8, "whole_word": whole_word}
        together = masked(ids, keys, vocabulary, **options)
        shuffled = masked(ids[order], keys[order], vocabulary, **options)
        alone = [masked(ids[i : i + 1], keys[i : i + 1], vocabulary, **options) for i in order]
        for i, part in enumerate(together):
            np.testing.assert_array_equal(part[order], shuffled[i])
            np.testing.assert_array_equal(shuffled[i], np.concatenate([one[i] for one in alone]))
        other = masked(ids, keys_of(16, seed=1), vocabulary, **options)
        assert (other.positions != together.positions).any(1).sum() > 10
