"""Made-up sentences in two languages: small enough to be learnt in a minute, yet to be translated.

One language is a little English. The other one is invented, and word for word doesn't reach it:

- The verb comes last, and before it what is said of time; place follows the subject; prepositions
  follow what they govern.
- A noun is of class a or class o, which must be learnt by heart; number and object are endings.
- Adjectives, "the" and "this" follow the noun and agree with its class and number; "a" has no
  counterpart.
- "will" and "did" become an ending of the verb, which agrees with the subject: with "and" in the
  plural, whatever stands next to it.
"""

import collections
import random

from tf_largebatch.data.source import Splits
from tf_largebatch.data.vocabulary import build_vocabulary, load_vocabulary

_NOUNS = {  # English plural, stem and class
    "dog": ("dogs", "kem", "o"), "cat": ("cats", "mir", "a"), "bird": ("birds", "tul", "o"),
    "horse": ("horses", "gav", "a"), "child": ("children", "nip", "o"),
    "woman": ("women", "sed", "a"), "king": ("kings", "dolv", "o"), "fox": ("foxes", "yas", "a"),
    "river": ("rivers", "plen", "o"), "house": ("houses", "bit", "a"),
}  # fmt: skip
_ADJECTIVES = {"small": "lis", "red": "vet", "old": "sirk", "young": "pov", "white": "blen"}
_TRANSITIVE = {  # English with -s and past, and the stem
    "see": ("sees", "saw", "mar"), "follow": ("follows", "followed", "zed"),
    "find": ("finds", "found", "trov"), "carry": ("carries", "carried", "polt"),
    "love": ("loves", "loved", "ham"), "hear": ("hears", "heard", "kul"),
}  # fmt: skip
_INTRANSITIVE = {
    "sleep": ("sleeps", "slept", "dur"), "wait": ("waits", "waited", "bly"),
    "sing": ("sings", "sang", "nal"),
}  # fmt: skip
_TENSES = {"present": "i", "past": "ade", "future": "ure"}
_TIMES = {
    "present": {"now": "nu", "often": "fo", "today": "idag"},
    "past": {"yesterday": "eri", "once": "jam"},
    "future": {"tomorrow": "suta", "soon": "bal"},
}
_AGREEING = {"the": "l", "this": "s", "these": "s"}  # behind the noun
_BEFORE_NOUN = {"my": "mio", "every": "ciu", "many": "molt", "two": "du", "some": "kel"}
_SINGULAR = ("the", "the", "a", "a", "this", "my", "every")
_PLURAL = ("the", "the", "these", "my", "many", "two", "some")
_PLACES = {"near": "ape", "behind": "trol", "under": "sub", "with": "kun"}

MAX_WORDS = 8  # of English, without the full stop

_TRAIN, _TEST = 16_000, 500


def phrases(buckets=True, vocabulary=None):
    """16,000 sentences to learn from and 500 others held out, the same for every run.

    They have 2 to 8 words, of 219 different ones, all in the vocabulary.

    Args:
        buckets: Whether batches are of like length; False for TPUs.
        vocabulary: Path of a vocab.txt, one token a line; None: the words and characters of the
            sentences. Pairs that are longer than ten pieces of it are left out of training.

    Returns:
        `Splits(train, test)` of `tf_largebatch.data.translation.TranslationSource`; the baseline of
        the test is `word_for_word`.

    Raises:
        ValueError: If the vocabulary doesn't fit.
        ImportError: If tensorflow-text isn't installed.

    >>> splits = phrases()
    >>> splits.train.num_examples, splits.test.num_examples, splits.train.model_arguments
    (16000, 500, {'vocabulary_size': 271})
    >>> splits.test.references[1], splits.test.baseline[1], splits.test.chance_bleu
    ('mio tuloi seda veta kun dururen.', 'mio tuloi durin kun veto seda.', 4.72)
    """
    from tf_largebatch.data.translation import TranslationSource

    pairs = sentences(_TRAIN + _TEST)
    test, train = pairs[:_TEST], pairs[_TEST:]
    translate = word_for_word(train)
    if vocabulary is None:
        texts = (_text(words) for pair in train for words in pair[:2])
        tokenizer = build_vocabulary(texts, size=1024, name="phrases' vocabulary")
    else:
        tokenizer = load_vocabulary(vocabulary)

    def source(pairs, **options):
        return TranslationSource(
            name="phrases",
            sources=[_text(english) for english, _, _ in pairs],
            targets=[_text(translation) for _, translation, _ in pairs],
            tokenizer=tokenizer,
            max_length=MAX_WORDS + 2,  # the full stop and [SEP]; no translation is longer
            buckets=buckets,
            **options,
        )

    to_learn_from = source(train)
    to_learn_from.check_vocabulary()
    return Splits(
        train=to_learn_from,
        test=source(
            test,
            part="held-out",
            drop_longer=False,
            references=tuple(_text(translation) for _, translation, _ in test),
            baseline=tuple(_text(translate(english)) for english, _, _ in test),
        ),
    )


def sentences(count, seed=0):
    """Different English sentences with their translations, in random order.

    Args:
        count: How many pairs.
        seed: Integer that chooses them.

    Returns:
        A list of triples (English, translation, alignment): tuples of words, both with the full
        stop, and for each word of the translation the place of the English word that it renders.

    >>> for english, translation, alignment in sentences(5)[3:]:
    ...     print(" ".join(english), "|", " ".join(translation))
    two houses sang . | du bitai naladen .
    this woman will hear the child soon . | seda sa nipon lo bal kulure .
    >>> alignment
    (1, 0, 5, 4, 6, 3, 7)
    """
    draw = random.Random(seed)
    found = {}
    while len(found) < count:
        sentence = _Sentence(draw)
        if len(sentence.english) <= MAX_WORDS + 1:
            translation, alignment = zip(*sentence.translation, strict=True)
            found.setdefault(tuple(sentence.english), (translation, alignment))
    return [(english, *rest) for english, rest in found.items()]


def word_for_word(pairs):
    """What knowing each word, but nothing of grammar, comes to.

    Args:
        pairs: Triples as `sentences` gives them, to learn from.

    Returns:
        A function from the words of English to those of a translation: each word becomes the one
        that most often renders it, in the English order; one that is seldom rendered is left out.
    """
    rendered = collections.defaultdict(collections.Counter)
    for english, translation, alignment in pairs:
        words = collections.defaultdict(lambda: "")
        words.update(zip(alignment, translation, strict=True))
        for place, word in enumerate(english):
            rendered[word][words[place]] += 1
    best = {
        word: min(counts, key=lambda rendering: (-counts[rendering], rendering))
        for word, counts in rendered.items()
    }
    return lambda english: [best[word] for word in english if best.get(word)]


def _text(words):
    return " ".join(words).replace(" .", ".")


class _Sentence:
    """`english`, a list of words, and `translation`, a list of (word, place in `english`)."""

    def __init__(self, draw):
        self.draw = draw
        self.english = []
        tense = self._one_of(list(_TENSES))
        time = self._one_of(list(_TIMES[tense])) if self._happens(0.4) else None
        before, said_of_time = time is not None and self._happens(0.5), []
        if before:
            said_of_time = [(_TIMES[tense][time], self._say(time))]
        subject, plural = self._nouns()
        verb, is_negative = self._verb(tense, plural)
        object_, _ = self._noun("n") if self.is_transitive else ([], False)
        place = []
        if self._happens(0.35):
            word = self._one_of(list(_PLACES))
            at = self._say(word)
            where, _ = self._noun("")
            place = [*where, (_PLACES[word], at)]
        if time is not None and not before:
            said_of_time = [(_TIMES[tense][time], self._say(time))]
        self.translation = [
            *subject, *place, *object_, *said_of_time, *is_negative, *verb, (".", self._say(".")),
        ]  # fmt: skip

    def _happens(self, probability):
        return self.draw.random() < probability

    def _one_of(self, things):
        # Of the module random only random() is the same in all versions of Python.
        return things[int(self.draw.random() * len(things))]

    def _say(self, word):
        self.english.append(word)
        return len(self.english) - 1

    def _nouns(self):
        subject, plural = self._noun("")
        if self._happens(0.15):
            both = ("ja", self._say("and"))
            second, _ = self._noun("")
            return [*subject, both, *second], True
        return subject, plural

    def _noun(self, case):
        plural = self._happens(0.4)
        determiner = self._one_of(_PLURAL if plural else _SINGULAR)
        adjective = self._one_of(list(_ADJECTIVES)) if self._happens(0.4) else None
        noun = self._one_of(list(_NOUNS))
        many, stem, noun_class = _NOUNS[noun]
        ending = noun_class + "i" * plural
        if determiner == "a" and (adjective or noun)[0] in "aeiou":
            determiner = "an"
        said = self._say(determiner)
        before, behind = [], []
        if determiner in _AGREEING:
            behind = [(_AGREEING[determiner] + ending, said)]
        elif determiner in _BEFORE_NOUN:
            before = [(_BEFORE_NOUN[determiner], said)]
        described = []
        if adjective is not None:
            described = [(_ADJECTIVES[adjective] + ending, self._say(adjective))]
        named = [(stem + ending + case, self._say(many if plural else noun))]
        return [*before, *named, *described, *behind], plural

    def _verb(self, tense, plural):
        self.is_transitive = self._happens(0.75)
        verbs = _TRANSITIVE if self.is_transitive else _INTRANSITIVE
        verb = self._one_of(list(verbs))
        third, past, stem = verbs[verb]
        negation = []
        if self._happens(0.2):
            does = "do" if plural else "does"
            self._say({"present": does, "past": "did", "future": "will"}[tense])
            negation = [("ne", self._say("not"))]
        elif tense == "future":
            self._say("will")
        elif tense == "past":
            verb = past
        elif not plural:
            verb = third
        rendered = stem + _TENSES[tense] + "n" * plural
        return [(rendered, self._say(verb))], negation
