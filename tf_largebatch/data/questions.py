"""Questions that are embedded: about imaginary programs, in SQuAD's form, nothing to download."""

import random

from tf_largebatch.data.paragraphs import BadRecords
from tf_largebatch.data.source import Splits
from tf_largebatch.data.squad import span_source
from tf_largebatch.data.vocabulary import build_vocabulary, load_vocabulary

_PARAGRAPHS = {"train": 1500, "test": 150}
_SEED = 0  # never the training seed: every run is judged by the same questions
_HELD_OUT = 5  # one fact in so many

_SUBJECTS = (
    "parser compiler debugger interpreter generator iterator decorator manager handler wrapper "
    "constructor descriptor container system module package program library stack table process "
    "protocol interface operator"
).split()


def _each(first, second):
    return [f"{one} {other}" for one in first.split() for other in second.split()]


# What can be said of a subject {s}, how it is said, with the answer as {a}, and how it is asked.
_KINDS = (
    (
        _each("empty sorted nested reversed ordered", "list tuple string sequence"),
        ("The {s} returns the {a}.", "A call of the {s} returns the {a}."),
        ("What does the {s} return?", "What is returned by the {s}?"),
    ),
    (
        _each("value type key name index syntax memory import attribute input", "error warning"),
        ("The {s} raises the {a}.", "When it fails, the {s} raises the {a}."),
        ("What does the {s} raise?", "What is raised by the {s} when it fails?"),
    ),
    (
        _each("2 3 4 5 6 8 10 32 64 100", "lines bytes"),
        ("The {s} takes {a} at a time.", "In each step the {s} takes {a}."),
        ("What does the {s} take at a time?", "What is taken by the {s} in each step?"),
    ),
    (
        _each("main local shared global private", "file module class directory"),
        ("The {s} is defined in the {a}.", "The {a} contains the {s}."),
        ("Where is the {s} defined?", "Where can I find the {s}?"),
    ),
    (
        _each("first second third last next", "test loop command operation"),
        ("The {s} starts after the {a}.", "After the {a} the {s} starts."),
        ("When does the {s} start?", "After what does the {s} start?"),
    ),
)


def questions(sequence_length=64, stride=32, max_query_length=24, vocabulary=None):
    """6,000 questions about 1,500 paragraphs, and 600 about 150 that are held out.

    A paragraph says three things of one subject and one of the same three of another, four facts in
    random order and words, and each fact is asked for. Who finds the right kind of thing but not
    whose it is, is right in three cases of four; who guesses reaches `chance_f1`, 27 percent. No
    fact of a held-out paragraph, such as that the parser takes 2 lines, is said in training.

    Args:
        sequence_length, stride, max_query_length: Of the windows, in tokens
            (`tf_largebatch.data.spans.SpanSource`).
        vocabulary: The file with the tokens of the encoder that is trained further, one a line;
            None: the words of the paragraphs to train on.

    Returns:
        `Splits(train, test)` of `SpanSource`, the same in every run.

    Raises:
        ValueError: If the vocabulary doesn't fit, or an option is out of range.
        ImportError: If tensorflow-text isn't installed.

    >>> test = questions().test
    >>> test.paragraphs[0].context[:63]
    'The stack raises the value warning. The local file contains the'
    >>> question = test.questions[1]
    >>> question.text, question.answers
    ('Where can I find the stack?', (('local file', 40),))
    """
    documents = {split: document(split) for split in _PARAGRAPHS}
    if vocabulary is None:
        tokenizer = build_vocabulary(_texts(documents["train"]), name="the vocabulary of questions")
    else:
        tokenizer = load_vocabulary(vocabulary)
    train, test = (
        span_source(
            documents[split],
            BadRecords("questions"),
            name="questions",
            tokenizer=tokenizer,
            version="1.1",
            sequence_length=sequence_length,
            stride=stride,
            max_query_length=max_query_length,
            part=part,
        )
        for split, part in (("train", "training"), ("test", "held-out"))
    )
    return Splits(train=train, test=test)


def document(split):
    """The questions as SQuAD's JSON holds them.

    Args:
        split: `"train"` or `"test"`.

    Returns:
        A dict, as `tf_largebatch.data.paragraphs` describes it.
    """
    draw = _Draw(f"{_SEED} {split}")
    paragraphs = [_paragraph(draw, split, n) for n in range(_PARAGRAPHS[split])]
    return {"version": "1.1", "data": [{"title": "Programs", "paragraphs": paragraphs}]}


def _paragraph(draw, split, number):
    one, other = draw.some(range(len(_SUBJECTS)), 2)
    kinds = draw.some(range(len(_KINDS)), 3)
    facts = draw.some([(other, kinds[0]), *((one, kind) for kind in kinds)], 4)
    context, asked, used = "", [], set()
    for place, (subject, kind) in enumerate(facts):
        values, sayings, askings = _KINDS[kind]
        allowed = [
            value
            for order, value in enumerate(values)
            if _is_held_out(subject, kind, order) == (split == "test") and value not in used
        ]
        value = draw.one(allowed)
        used.add(value)
        saying = draw.one(sayings)
        before, after = saying.replace("{s}", _SUBJECTS[subject]).split("{a}")
        context += " " * bool(context) + before
        asked.append(
            {
                "id": f"{split}-{number}-{place}",
                "question": draw.one(askings).format(s=_SUBJECTS[subject]),
                "answers": [{"text": value, "answer_start": len(context)}],
            }
        )
        context += value + after
    return {"context": context, "qas": asked}


def _is_held_out(subject, kind, value):
    """Is what `_KINDS[kind]` says with its value `value` of a subject kept from training?"""
    return (subject + kind + value) % _HELD_OUT == 0


class _Draw:
    """Draws from nothing but random(), whose numbers are the same in every version of Python."""

    def __init__(self, seed):
        self._random = random.Random(seed).random

    def one(self, items):
        return items[int(self._random() * len(items))]

    def some(self, items, count):
        """`count` different items in random order."""
        rest = list(items)
        return [rest.pop(int(self._random() * len(rest))) for _ in range(count)]


def _texts(document):
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]
            yield from (asked["question"] for asked in paragraph["qas"])
