"""The pieces of words that text models read: made from a corpus, or read from BERT's vocab.txt.

Text becomes words (`tf_largebatch.data.words`), and words become pieces by longest match from the
left (WordPiece), in tensorflow-text; pieces after a word's first begin with "##". No token in
brackets can come from a text, whose brackets are words of their own.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import re
import unicodedata

import numpy as np

from tf_largebatch.data.words import split_words, words_with_origins
from tf_largebatch.scaling import check_count

PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

CONTINUATION = "##"
MAX_UNKNOWN_SHARE = 0.1
MAX_BYTES_PER_WORD = 200  # a longer one is unknown; BERT's limit, in characters there

_MAX_WORDS_KEPT = 2**20  # in a vocabulary's memory, so that each is looked up once
_BRACKETED = re.compile(r"\[[^\[\]]+\]")


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a text model, and the way from text to their numbers and back.

    Attributes:
        tokens: All tokens; a token's place is its id. The five of `SPECIAL_TOKENS` must be there,
            anywhere.
        name: What messages call it.
        lower_case: Whether texts are put in lower case and lose their accents; None: unless a token
            has a capital letter or an accent.

    Raises:
        ValueError: If there is no token, one is empty, has white space in it, is longer than 200
            bytes or comes twice, or a special one is missing.

    >>> vocabulary = Vocabulary([*SPECIAL_TOKENS, "walk", "##ing", "caf", "##e", "!"])
    >>> [ids.tolist() for ids in vocabulary.tokenize(["Walking!", "café, walk"])]
    [[5, 6, 9], [7, 8, 1, 5]]
    >>> vocabulary.detokenize([2, 5, 6, 9, 3])
    'walking !'
    """

    tokens: tuple = dataclasses.field(repr=False)
    name: str = "the vocabulary"
    lower_case: bool | None = None

    def __post_init__(self):
        tokens = tuple(self.tokens)
        places = {}
        for place, token in enumerate(tokens):
            if not isinstance(token, str) or token.split() != [token]:
                raise ValueError(
                    f"Each token of {self.name} must be text without white space. Received: "
                    f"{token!r} in line {place + 1}. Ids are line numbers, so write one token a "
                    "line and leave none out."
                )
            size = len(token.removeprefix(CONTINUATION).encode())
            if size > MAX_BYTES_PER_WORD:
                raise ValueError(
                    f"Each token of {self.name} must have at most {MAX_BYTES_PER_WORD} bytes: "
                    f"longer words are {UNKNOWN}. Received: {size} bytes in line {place + 1}, "
                    f"{token[:20]!r} and so on. Put another token there, such as [unused{place}]."
                )
            if token in places:
                raise ValueError(
                    f"Each token of {self.name} must come once. Received: {token!r} in lines "
                    f"{places[token] + 1} and {place + 1}."
                )
            places[token] = place
        missing = [token for token in SPECIAL_TOKENS if token not in places]
        if missing:
            raise ValueError(
                f"{self.name} must hold the tokens {' '.join(SPECIAL_TOKENS)}. Received: "
                f"{len(tokens)} tokens without {' '.join(missing)}. Add them, or take a vocab.txt "
                "of BERT's."
            )
        if self.lower_case is None:
            texts = (token for token in tokens if not _BRACKETED.fullmatch(token))
            object.__setattr__(self, "lower_case", not any(map(_is_cased, texts)))
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_pieces", {})

    @property
    def size(self):
        """The number of tokens."""
        return len(self.tokens)

    def id_of(self, token):
        """The id of a token; a `KeyError` if there is no such one."""
        return self._places[token]

    @functools.cached_property
    def special_ids(self):
        """(n,) int32: the ids of all tokens in brackets, BERT's [unused1] included."""
        return np.int32([i for i, t in enumerate(self.tokens) if _BRACKETED.fullmatch(t)])

    @functools.cached_property
    def begins_word(self):
        """(size,) bool: False for the tokens that continue a word."""
        return np.array([not _continues(token) for token in self.tokens])

    def tokenize(self, texts):
        """The ids of texts, without special tokens; what the vocabulary doesn't cover is [UNK].

        Args:
            texts: Any number of str.

        Returns:
            A list of arrays (number of pieces,) int32, one for each text.

        Raises:
            ImportError: If tensorflow-text isn't installed.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of str. Received: the str {texts[:40]!r}.")
        words = [split_words(text, self.lower_case) for text in texts]
        self._look_up(itertools.chain.from_iterable(words))
        find, flat = self._pieces.__getitem__, itertools.chain.from_iterable
        return [np.fromiter(flat(map(find, text)), np.int32) for text in words]

    def tokenize_with_offsets(self, text):
        """The ids of one text, and the part of the text that each piece stands for.

        Args:
            text: A str.

        Returns:
            Three arrays (number of pieces,) int32: ids, and starts and ends such that
            text[start:end] is the piece as it was written, or the whole word if it is unknown. What
            lower-casing and accents added or took away belongs to the piece it belonged to.

        Raises:
            ImportError: If tensorflow-text isn't installed.

        >>> vocabulary = Vocabulary([*SPECIAL_TOKENS, "caf", "##e", "!"])
        >>> ids, starts, ends = vocabulary.tokenize_with_offsets("Two  CAFÉ!")
        >>> ids.tolist(), starts.tolist(), ends.tolist()
        ([1, 5, 6, 7], [0, 5, 8, 9], [3, 8, 9, 10])
        """
        words = words_with_origins(text, self.lower_case)
        self._look_up(word for word, _ in words)
        ids, starts, ends = [], [], []
        for word, origins in words:
            low = 0
            for piece in self._pieces[word]:
                token = self.tokens[piece]
                length = len(token) - len(CONTINUATION) * _continues(token)
                high = low + length if piece != self._places[UNKNOWN] else len(word)
                ids.append(piece)
                starts.append(origins[low][0])
                ends.append(origins[high - 1][1])
                low = high
        return np.int32(ids), np.int32(starts), np.int32(ends)

    def detokenize(self, ids):
        """The words of `ids` with one space between them, special tokens but [UNK] left out.

        White space, accents and capitals aren't restored.
        """
        special = {*self.special_ids.tolist()} - {self._places[UNKNOWN]}
        text = []
        for i in np.asarray(ids).tolist():
            if i in special:
                continue
            if self.begins_word[i]:
                text += [" ", self.tokens[i]]
            else:
                text.append(self.tokens[i].removeprefix(CONTINUATION))
        return "".join(text).strip()

    def check_covers(self, ids, corpus):
        """Raises a `ValueError` if the vocabulary doesn't fit a corpus.

        Args:
            ids: The corpus' ids, in one dimension; at most a tenth may be [UNK].
            corpus: What messages call the corpus.
        """
        ids = np.asarray(ids)
        self.check_unknown_share(np.mean(ids == self._places[UNKNOWN]) if ids.size else 0, corpus)

    def check_unknown_share(self, share, corpus):
        """As `check_covers`, where the share of [UNK] has been counted."""
        if share > MAX_UNKNOWN_SHARE:
            raise ValueError(
                f"{self.name} must cover {corpus}: at most {MAX_UNKNOWN_SHARE:.0%} of the pieces "
                f"may be {UNKNOWN}. Received: {share:.1%}. Take a vocabulary of the same language "
                "and case, or none, to have one made from the corpus."
            )

    @functools.cached_property
    def _library(self):
        try:
            import tensorflow as tf
            import tensorflow_text
        except ImportError as error:
            raise ImportError(
                "Text needs the package tensorflow-text, which comes with the extra nlp: "
                "pip install 'tf-largebatch[nlp]'."
            ) from error
        with tf.init_scope(), tf.device("CPU"):
            return tensorflow_text.FastWordpieceTokenizer(
                list(self.tokens),
                suffix_indicator=CONTINUATION,
                unknown_token=UNKNOWN,
                max_bytes_per_word=MAX_BYTES_PER_WORD,
                token_out_type=tf.int32,
                no_pretokenization=True,
            )

    def _look_up(self, words):
        """Puts the pieces of all the words into `_pieces`: a corpus has few words, each often."""
        words = set(words)
        if len(self._pieces) + len(words) > _MAX_WORDS_KEPT:
            self._pieces.clear()
        new = sorted(words - self._pieces.keys())
        if new:
            library = self._library
            import tensorflow as tf

            with tf.init_scope(), tf.device("CPU"):
                found = library.tokenize(tf.constant(new))
                values, rows = found.values.numpy().tolist(), found.row_splits.numpy().tolist()
            for word, (low, high) in zip(new, itertools.pairwise(rows), strict=True):
                self._pieces[word] = values[low:high]


def build_vocabulary(texts, size=2048, *, lower_case=True, name="the vocabulary"):
    """The vocabulary of a corpus: its characters, then its most frequent words.

    It depends on nothing but the texts: first the special tokens, then the characters, as the
    beginning of a word and with "##" where one continues a word, then words, by how often they
    occur and then by themselves, until there are `size`. At most half of the tokens are characters,
    the most frequent ones. A corpus of few words makes a smaller vocabulary. Words of more than 200
    bytes are left out: they are [UNK] in any case.

    Args:
        texts: Any number of str.
        size: Tokens at most; at least 64.
        lower_case: Whether texts are put in lower case and lose their accents. If not, it is as
            when the tokens are loaded from a file: done unless one has a capital or an accent.
        name: What messages call it.

    Returns:
        A `Vocabulary`.

    Raises:
        ValueError: If `size` isn't such a number, or there is no word in the texts.

    >>> build_vocabulary(["a bee, a sea"], size=64).tokens[5:]
    ('##e', 'a', '##a', ',', 'b', 's', 'bee', 'sea')
    """
    size = check_count("size", size, at_least=64)
    words = collections.Counter()
    for text in texts:
        words.update(split_words(text, lower_case))
    for word in [word for word in words if len(word.encode()) > MAX_BYTES_PER_WORD]:
        del words[word]
    if not words:
        raise ValueError(f"{name} can't be made of texts without a word. Check where they lie.")
    characters = collections.Counter()
    for word, count in words.items():
        characters[word[0]] += count
        for character in word[1:]:
            characters[CONTINUATION + character] += count
    room = (size - len(SPECIAL_TOKENS)) // 2
    tokens = [*SPECIAL_TOKENS, *_by_frequency(characters)[:room]]
    known = set(tokens)
    frequent = (word for word in _by_frequency(words) if word not in known)
    tokens += itertools.islice(frequent, size - len(tokens))
    return Vocabulary(tokens, name, lower_case or None)


def load_vocabulary(path, lower_case=None):
    """The vocabulary in a file, one token a line, as BERT's vocab.txt.

    Args:
        path: The file, on any file system that TensorFlow knows.
        lower_case: As for `Vocabulary`.

    Returns:
        A `Vocabulary` named after the file.

    Raises:
        ValueError: If there is no such file, it is empty or not UTF-8, or no vocabulary.
    """
    import tensorflow as tf

    path = os.fspath(path)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise ValueError(
            f"The vocabulary must be a file with one token a line. Received: {path}, which can't "
            f"be read ({error.message.splitlines()[0]})."
        ) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} must be UTF-8. Received: other bytes in line {line}, at byte {error.start} of "
            "the file. Convert it: iconv -t UTF-8."
        ) from None
    if not text.strip():
        raise ValueError(f"{path} must hold one token a line. Received: an empty file.")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    return Vocabulary(lines, path, lower_case)


def save_vocabulary(vocabulary, path):
    """Write a vocabulary as BERT's vocab.txt, one token a line.

    Under another name first, so that an old file stays whole until the new one is.

    Args:
        vocabulary: A `Vocabulary`.
        path: The file, on any file system that TensorFlow knows.

    Raises:
        OSError: If it can't be written; the message names its folder.
    """
    import tensorflow as tf

    path = os.fspath(path)
    unfinished = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with tf.io.gfile.GFile(unfinished, "wb") as file:
            file.write("".join(f"{token}\n" for token in vocabulary.tokens).encode())
        tf.io.gfile.rename(unfinished, path, overwrite=True)
    except tf.errors.OpError as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(unfinished)
        raise OSError(
            f"The vocabulary can't be written to {os.path.dirname(path) or '.'} "
            f"({error.message.splitlines()[0]}): name another folder."
        ) from None


def _by_frequency(counts):
    return sorted(counts, key=lambda token: (-counts[token], token))


def _is_cased(token):
    """Whether it has a capital or a letter with an accent, which no text in lower case has."""
    return token != token.lower() or any(
        unicodedata.category(mark) == "Mn"
        for character in token
        for mark in unicodedata.normalize("NFD", character)[1:]
    )


def _continues(token):
    return token.startswith(CONTINUATION) and len(token) > len(CONTINUATION)
