"""Windows that cover a text, and whose the tokens are that lie in several."""

import pytest

from tf_largebatch.data.windows import cut_windows, own_tokens, tokens_of


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 6, 7, 23, 24, 25])
@pytest.mark.parametrize("room, stride", [(1, 1), (5, 1), (5, 3), (6, 6), (6, 100)])
def test_windows_cover_the_text_as_berts_loop_does(num_tokens, room, stride):
    expected, first = [], 0
    while True:  # from the beginning, as long as something is left
        count = min(room, num_tokens - first)
        expected.append((first, count))
        if first + count == num_tokens:
            break
        first += min(count, stride)
    assert cut_windows(num_tokens, room, stride) == expected


# In the last one a window is shorter by more than 100 tokens, which counts for more than a token.
@pytest.mark.parametrize(
    "num_tokens, room, stride",
    [(1, 5, 2), (5, 5, 2), (6, 5, 2), (23, 5, 1), (40, 12, 5), (40, 12, 11), (400, 300, 250)],
)
def test_each_token_is_owned_by_the_first_of_the_windows_with_the_most_context(
    num_tokens, room, stride
):
    windows = cut_windows(num_tokens, room, stride)
    found = own_tokens(*zip(*windows, strict=True))
    for token in range(num_tokens):
        scores = [
            min(token - f, f + c - 1 - token) + 0.01 * c if f <= token < f + c else -1
            for f, c in windows
        ]
        owners = [
            w for w, (f, c) in enumerate(windows) if f <= token < f + c and found[w][token - f]
        ]
        assert owners == [scores.index(max(scores))]


def test_tokens_of_an_answer_without_words():
    first, last = tokens_of((" \u200b", 1), starts=[0, 3], ends=[1, 4])
    assert first > last
