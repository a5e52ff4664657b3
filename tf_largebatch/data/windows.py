"""Windows of a text that is longer than what a network reads at a time, as BERT cuts them."""

import numpy as np


def cut_windows(num_tokens, room, stride):
    """Windows that cover a text: a list of (first token, number of tokens).

    Args:
        num_tokens: Tokens of the text; at least 1.
        room: Tokens in a window at most.
        stride: Tokens from one beginning to the next; never more than the window has.

    >>> cut_windows(num_tokens=10, room=6, stride=3)
    [(0, 6), (3, 6), (6, 4)]
    """
    step = min(stride, room)
    last = max(0, -(-(num_tokens - room) // step))  # the number of the first that reaches the end
    return [(n * step, min(room, num_tokens - n * step)) for n in range(last + 1)]


def own_tokens(firsts, counts):
    """The tokens that have more context in a window than in any other of the same text.

    A token's context in a window is what it has on its poorer side, plus a hundredth of the
    window's length, as BERT has it; among equals the first window owns the token.

    Args:
        firsts, counts: (windows,) integers: each window's first token and its number of tokens.

    Returns:
        A list of boolean arrays (count,), one for each window.

    >>> own_tokens([0, 3, 6], [6, 6, 4])[1]
    array([False, False,  True,  True,  True, False])
    """
    firsts, counts = np.reshape(firsts, (-1, 1)), np.reshape(counts, (-1, 1))
    tokens = np.arange((firsts + counts).max())
    context = np.minimum(tokens - firsts, firsts + counts - 1 - tokens)  # (windows, tokens)
    owner = np.where(context >= 0, context + 0.01 * counts, -1).argmax(axis=0)
    return [
        owner[first : first + count] == window
        for window, (first, count) in enumerate(
            zip(firsts[:, 0].tolist(), counts[:, 0].tolist(), strict=True)
        )
    ]


def tokens_of(answer, starts, ends):
    """The first and the last of the tokens that have a part of an answer.

    Args:
        answer: (text, start), with the start in characters of the paragraph.
        starts, ends: (tokens,) integers, each rising: what `tokenize_with_offsets` gives.

    Returns:
        Two ints, both inclusive. The first is greater than the last if no token has a part of it.

    >>> tokens_of(("bc de", 1), starts=[0, 4, 8], ends=[3, 7, 9])  # of "abc def g"
    (0, 1)
    """
    text, start = answer
    first = np.searchsorted(ends, start, side="right")
    last = np.searchsorted(starts, start + len(text), side="left") - 1
    return int(first), int(last)
