"""Windows of paragraphs with questions, and the answers that logits mean."""

import numpy as np
import pytest

from tf_largebatch.data.paragraphs import BadRecords, Paragraph, Question
from tf_largebatch.data.spans import SpanSource
from tf_largebatch.data.vocabulary import SPECIAL_TOKENS, Vocabulary

pytestmark = pytest.mark.tensorflow

# Ten words that are tokens, one of two pieces, one with an accent, and a question of two tokens.
TOKENS = [*SPECIAL_TOKENS, "who", "?", *"abcdefghij", "play", "##ing", "cafe", "."]
LETTERS = "a b c d e f g h i j"


def source(context, *answers, **options):
    """A source of one paragraph and one question to each answer, a text, a pair or None."""
    pairs = [(a, context.index(a)) if isinstance(a, str) else a for a in answers]
    questions = [Question(f"q{n}", "who?", (p,) if p else ()) for n, p in enumerate(pairs)]
    options = {"sequence_length": 10, "stride": 2, "max_query_length": 4, **options}
    paragraph = Paragraph(context, tuple(questions))
    return SpanSource(
        name="toy", paragraphs=[paragraph], tokenizer=Vocabulary(TOKENS, "toy"), **options
    )


def read(source, examples=None):
    import tensorflow as tf

    numbers = range(source.num_examples) if examples is None else examples
    parts = tf.function(source.read)(tf.constant(list(numbers), tf.int64))
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), parts)


def shown(source):
    """The windows as texts and the places of their answers."""
    inputs, labels, _ = read(source)
    words = [" ".join(TOKENS[i] for i in row) for row in inputs["token_ids"]]
    return words, list(zip(labels["start"].tolist(), labels["end"].tolist(), strict=True))


def test_windows_by_hand():
    # 10 = [CLS] who ? [SEP] + 5 of the paragraph + [SEP]. Windows begin at 0, 2, 4 and 6;
    # the one at 4 ends with the last token but one, so that another one has the 4 that are left.
    words, spans = shown(source(LETTERS, "c d"))
    assert words == [
        "[CLS] who ? [SEP] a b c d e [SEP]",
        "[CLS] who ? [SEP] c d e f g [SEP]",
        "[CLS] who ? [SEP] e f g h i [SEP]",
        "[CLS] who ? [SEP] g h i j [SEP] [PAD]",
    ]
    assert spans == [(6, 7), (4, 5), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    "answer, spans",
    [
        ("a", [(4, 4), (0, 0), (0, 0), (0, 0)]),
        ("e", [(8, 8), (6, 6), (4, 4), (0, 0)]),  # the last of one window, the first of another
        ("e f", [(0, 0), (6, 7), (4, 5), (0, 0)]),  # its border runs through the answer
        ("a b c d e", [(4, 8), (0, 0), (0, 0), (0, 0)]),
        ("a b c d e f", [(0, 0), (0, 0), (0, 0), (0, 0)]),  # fits no window
        ("j", [(0, 0), (0, 0), (0, 0), (7, 7)]),
    ],
)
def test_an_answer_on_the_border_of_a_window(answer, spans):
    assert shown(source(LETTERS, answer))[1] == spans


@pytest.mark.parametrize(
    "context, answer, pieces, text",
    [
        ("a playing b", "play", ["play"], "play"),
        ("a playing b", "lay", ["play"], "play"),  # the whole piece belongs to it
        ("a playing b", "ing", ["##ing"], "ing"),
        ("a playing b", "ying b", ["play", "##ing", "b"], "playing b"),
        ("a Playing b", "Playing", ["play", "##ing"], "Playing"),
        ("a Café. b", "Café", ["cafe"], "Café"),  # lower-cased, its accent gone
        ("a cafe\u0301. b", "cafe\u0301.", ["cafe", "."], "cafe\u0301."),  # the accent apart
        ("a b c € a b c d e café  b", "café  b", ["cafe", "b"], "café  b"),  # after an unknown one
        ("a c 𝄞 d\u00a0b c d e f g h", "b", ["b"], "b"),  # beyond 16 bits; a no-break space
    ],
)
def test_answers_in_words_and_among_foreign_characters(context, answer, pieces, text):
    example = source(context, answer, sequence_length=20)
    words, [(start, end)] = shown(example)
    assert words[0].split()[start : end + 1] == pieces
    assert example.answers(*perfect_logits(example)) == {"q0": text}  # as it is written


def test_segments_and_padding():
    inputs, labels, weights = read(source(LETTERS, "c d"))
    np.testing.assert_array_equal(inputs["segment_ids"][0], [0] * 4 + [1] * 6)
    np.testing.assert_array_equal(inputs["segment_ids"][3], [0] * 4 + [1] * 5 + [0])
    np.testing.assert_array_equal(inputs["padding_mask"][0], [1] * 10)
    np.testing.assert_array_equal(inputs["padding_mask"][3], [1] * 9 + [0])
    for tensor in [*inputs.values(), *labels.values()]:
        assert tensor.dtype == np.int32
    for tensor in weights.values():
        np.testing.assert_array_equal(tensor, np.ones(4, np.float32), strict=True)
    assert weights.keys() == labels.keys()


def test_a_long_question_is_cut_and_leaves_the_window_its_room():
    question = Question("q", "a b c d e f", (("j", 18),))
    example = SpanSource(
        name="toy",
        paragraphs=[Paragraph(LETTERS, (question,))],
        tokenizer=Vocabulary(TOKENS, "toy"),
        sequence_length=10,
        stride=9,
        max_query_length=4,
    )
    words, _ = shown(example)
    assert words[:2] == ["[CLS] a b c d [SEP] a b c [SEP]", "[CLS] a b c d [SEP] d e f [SEP]"]
    assert example.windows == {
        "questions": 1,
        "questions_cut": 1,
        "questions_with_cut_paragraph": 1,
        "windows": 4,
        "windows_with_answer": 1,
    }


def perfect_logits(source):
    """Those of a model that knows the labels."""
    _, labels, _ = read(source)
    rows = np.arange(source.num_examples)
    start, end = np.full((2, source.num_examples, source.sequence_length), -5.0)
    start[rows, labels["start"]] = end[rows, labels["end"]] = 5
    return start, end


def test_perfect_logits_are_judged_perfect():
    example = source(LETTERS, "c d", "e", "j", "a b c d e")
    assert example.judge(*perfect_logits(example)) == {
        "f1": 100.0,
        "exact_match": 100.0,
        "questions": 4,
    }


def test_a_start_counts_only_where_the_token_has_most_context():
    example = source(LETTERS, "e")
    start, end = np.zeros((2, 4, 10))
    # e is the last of window 0, in the middle of window 1, the first of window 2.
    start[0, 8] = end[0, 8] = 9
    start[1, 6] = end[1, 6] = 5
    assert example.answers(start, end) == {"q0": "e"}
    start[1, 5] = end[1, 5] = 6  # d: window 0 has one token after it, window 1 one before it
    assert example.answers(start, end) == {"q0": "e"}
    start[0, 7] = 6  # there it counts; the end may be where it likes
    assert example.answers(start, end) == {"q0": "d e"}


def test_only_the_paragraph_answers():
    example = source(LETTERS, "e")
    start, end = np.zeros((2, 4, 10))
    start[:, 1] = end[:, 2] = 99  # the question
    end[3, 9] = 99  # padding
    start[0, 5] = end[0, 6] = 1
    assert example.answers(start, end) == {"q0": "b c"}


def test_no_answer_by_the_lowest_null_score_of_all_windows():
    example = source(LETTERS, "c d", None, version="2.0")
    assert example.num_examples == 8
    start, end = np.full((2, 8, 10), -3.0)
    start[:, 0] = end[:, 0] = 2  # null score 4
    start[0, 6] = end[0, 7] = 1.5  # "c d" of the first question: 3
    start[4, 6] = end[4, 7] = 1.5
    assert example.answers(start, end) == {"q0": "", "q1": ""}
    assert example.answers(start, end, null_threshold=1) == {"q0": "c d", "q1": "c d"}
    start[3, 0] = -2  # one window of the first question is sure that there is something
    assert example.answers(start, end) == {"q0": "c d", "q1": ""}
    assert example.judge(start, end) == {"f1": 100.0, "exact_match": 100.0, "questions": 2}
    found = example.judge(start, end, null_threshold=1)
    assert (found["f1"], found["exact_match"]) == (50.0, 50.0)


def test_version_1_always_answers():
    example = source(LETTERS, "c d")
    start, end = np.zeros((2, 4, 10))
    start[:, 0] = end[:, 0] = 99
    start[0, 6] = end[0, 7] = 1
    assert example.answers(start, end) == {"q0": "c d"}


def test_logits_must_be_those_of_all_windows():
    example = source(LETTERS, "c d")
    with pytest.raises(ValueError, match=r"= \(4, 10\). Received: start \(5, 10\), end \(4, 10\)"):
        example.judge(np.zeros((5, 10)), np.zeros((4, 10)))


def test_chance_is_the_answer_of_any_question_about_the_paragraph():
    example = source(LETTERS, "c", "c d", "j")
    # Each of "c", "c d" is 2/3 right for the other, and "j" for none.
    assert example.chance_f1 == pytest.approx(100 * (1 + 2 / 3 + 2 / 3 + 1 + 1) / 9)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"sequence_length": 7}, "leave room.*sequence_length=7, max_query_length=4.*Pass.*8"),
        ({"stride": 0}, "stride must be a whole number of at least 1"),
        ({"max_query_length": 2.5}, "max_query_length must be a whole number"),
        ({"version": "1.2"}, "version must be one of 1.1, 2.0. Received: '1.2'"),
    ],
)
def test_refuses_lengths_that_leave_no_room(options, words):
    with pytest.raises(ValueError, match=words):
        source(LETTERS, "c", **options)


def test_a_vocabulary_that_does_not_fit():
    with pytest.raises(ValueError, match=r"toy must cover toy.*Received: \d\d.\d%"):
        source("Wholly other words, all of them unknown.", "other")


def test_the_order_is_the_same_in_batches():
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    example = source(LETTERS, "c d", "e", "j")
    whole, _, _ = read(example)
    batches = list(evaluation_batches(example, batch_size=5).as_numpy_iterator())
    assert [weights["end"].tolist() for _, _, weights in batches][-1] == [1, 1, 0, 0, 0]
    found = np.concatenate([inputs["token_ids"] for inputs, _, _ in batches])[:12]
    np.testing.assert_array_equal(found, whole["token_ids"])
    epoch = training_batches(example, global_batch_size=4, seed=1, total_updates=3)
    found = np.concatenate([inputs["token_ids"] for inputs, _, _ in epoch.as_numpy_iterator()])
    assert sorted(found.tolist()) == sorted(whole["token_ids"].tolist())


def test_words_that_are_none_make_a_bad_record():
    context = "a b \u200b c"
    invisible = Question("q", "who?", (("\u200b", 4),))
    fine = Question("fine", "who?", (("b", 2),))
    options = {
        "name": "toy",
        "paragraphs": [Paragraph(context, (invisible, fine)), Paragraph(" ", (fine,))],
        "tokenizer": Vocabulary(TOKENS, "toy"),
        "sequence_length": 10,
        "max_query_length": 4,
    }
    with pytest.raises(ValueError, match=r"dev.json, question q: its answer '\\u200b' has no word"):
        SpanSource(**options, bad=BadRecords("dev.json"))
    example = SpanSource(**options, bad=BadRecords("dev.json", skip=True))
    assert [question.id for question in example.questions] == ["fine"]
    assert example.bad_records == {
        "dev.json, question q": "its answer '\\u200b' has no words",
        "dev.json, question fine": "its paragraph has no words",
    }
    options["paragraphs"] = options["paragraphs"][1:]
    with pytest.raises(ValueError, match="toy has no question that can be used"):
        SpanSource(**options, bad=BadRecords("dev.json", skip=True))
