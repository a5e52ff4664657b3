"""Translations: against the network on whole targets, and against a search through all of them."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from models import decoding
from models.gnmt import gnmt_small
from models.language_model import lstm_lm
from models.lenet import lenet5

WORDS, START, END = 7, 2, 3
# JAX takes minutes over what follows here, and learns nothing new from some of it.
ENOUGH_ONCE = pytest.mark.tensorflow


def network(seed=1, words=WORDS):
    """A network that has never learned, but has much to say."""
    model = gnmt_small(words, units=6)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape, scale=1.2) for w in model.get_weights()])
    return model


def sources(batch=4, words=WORDS):
    ids = np.random.default_rng(0).integers(4, words, (batch, 5)).astype("int32")
    ids[1, 3:] = 0
    return ids


def log_softmax(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def on_whole_targets(model, source_ids, tokens):
    """Log-probabilities (batch, time, words) and attention (batch, time, length) of the network."""
    with_attention = keras.Model(
        model.input, [model.output, model.get_layer("attention").output[1]]
    )
    late = np.concatenate([np.full((len(tokens), 1), START), tokens[:, :-1]], axis=1)
    logits, attention = with_attention.predict_on_batch(
        {"source_ids": source_ids, "target_ids": late}
    )
    return log_softmax(logits), attention


def score(model, source_ids, tokens, alpha, beta):
    """The score of each translation, from the paper."""
    log_p, attention = on_whole_targets(model, source_ids, tokens)
    scores = []
    for row, source, lp, attended in zip(tokens, source_ids, log_p, attention, strict=True):
        length = np.count_nonzero(row)
        total = sum(lp[j, row[j]] for j in range(length))
        covered = attended[:length, : np.count_nonzero(source)].sum(0)
        coverage = beta * np.log(np.minimum(covered, 1)).sum()
        scores.append(total / ((5 + length) / 6) ** alpha + coverage)
    return np.array(scores)


def padded(tokens, width):
    return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_steps_give_what_the_network_gives_for_the_whole_target(policy):
    keras.config.set_dtype_policy(policy)
    model, source_ids = network(), sources()
    target = np.random.default_rng(3).integers(1, WORDS, (4, 6)).astype("int32")
    expected = ops.convert_to_numpy(model({"source_ids": source_ids, "target_ids": target}))
    translator = decoding.Translator(model, start_id=START, end_id=END)
    step, state = translator._begin(source_ids, candidates=WORDS)
    for t in range(6):
        logits, attention, new = step.advance(ops.convert_to_tensor(target[:, t]), **state)
        tolerance = 2e-5 if policy == "float32" else 0.1
        found = ops.convert_to_numpy(logits)
        np.testing.assert_allclose(found, expected[:, t], rtol=0, atol=tolerance)
        attention = ops.convert_to_numpy(attention)
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
        assert (attention[1, 3:] == 0).all()
        state["states"] = new


def test_greedy_takes_the_likeliest_token_at_each_step():
    model, source_ids = network(), sources(batch=12)
    tokens, scores = decoding.greedy(model, source_ids, start_id=START, end_id=END, max_length=8)
    assert tokens.dtype == "int32" and scores.dtype == "float32"
    log_p, _ = on_whole_targets(model, source_ids, tokens)
    log_p[:, :, [0, START]] = -np.inf
    ended = np.zeros(12, bool)
    for t in range(tokens.shape[1]):
        np.testing.assert_array_equal(tokens[:, t], np.where(ended, 0, log_p[:, t].argmax(-1)))
        ended |= tokens[:, t] == END
    assert 0 < ended.sum() < 12 and tokens.shape == (12, 8)  # some end, some do not
    np.testing.assert_allclose(scores, score(model, source_ids, tokens, 0, 0), rtol=1e-4)


@pytest.mark.parametrize("alpha, beta", [(0.0, 0.0), (0.6, 0.1)])
def test_a_beam_of_one_is_greedy(alpha, beta):
    model, source_ids = network(), sources(batch=12)
    options = {"start_id": START, "end_id": END, "max_length": 8}
    expected, _ = decoding.greedy(model, source_ids, **options)
    tokens, scores = decoding.beam_search(
        model, source_ids, beam_width=1, length_penalty=alpha, coverage_penalty=beta, **options
    )
    np.testing.assert_array_equal(padded(tokens, 8), padded(expected, 8))
    np.testing.assert_allclose(scores, score(model, source_ids, tokens, alpha, beta), rtol=1e-4)


@pytest.mark.parametrize(
    "alpha, beta", [(0.0, 0.0), (0.6, 0.1), pytest.param(2.0, 0.0, marks=ENOUGH_ONCE)]
)
def test_a_beam_scores_better_than_greedy_search(alpha, beta):
    model, source_ids = network(words=12), sources(batch=12, words=12)
    options = {"start_id": START, "end_id": END, "max_length": 8}
    first, _ = decoding.greedy(model, source_ids, **options)
    tokens, scores = decoding.beam_search(
        model, source_ids, beam_width=6, length_penalty=alpha, coverage_penalty=beta, **options
    )
    np.testing.assert_allclose(scores, score(model, source_ids, tokens, alpha, beta), rtol=1e-4)
    of_first = score(model, source_ids, first, alpha, beta)
    assert (scores > of_first - 1e-4).all()
    assert (scores > of_first + 0.01).sum() >= 3


@pytest.mark.parametrize(
    "alpha, beta",
    [
        pytest.param(0.0, 0.0, marks=ENOUGH_ONCE),
        (0.6, 0.1),
        pytest.param(1.0, 1.0, marks=ENOUGH_ONCE),
        pytest.param(3.0, 0.0, marks=ENOUGH_ONCE),
    ],
)
def test_a_wide_beam_finds_the_best_of_all(alpha, beta):
    model, source_ids = network(seed=4), sources()
    others = [token for token in range(WORDS) if token not in (0, START, END)]
    everything = [
        [*body, END] for n in range(4) for body in itertools.product(others, repeat=n)
    ] + [list(body) for body in itertools.product(others, repeat=4)]
    everything = np.array([row + [0] * (4 - len(row)) for row in everything], "int32")
    translator = decoding.Translator(model, start_id=START, end_id=END)
    found = [  # one by one, so that none goes on only because another one does
        translator.beam_search(
            source_ids[row : row + 1], max_length=4, beam_width=200,
            length_penalty=alpha, coverage_penalty=beta,
        )
        for row in range(4)
    ]  # fmt: skip
    tokens = np.concatenate([padded(each.tokens, 4) for each in found])
    scores = np.concatenate([each.scores for each in found])
    repeated = np.repeat(source_ids, len(everything), axis=0)
    all_scores = score(model, repeated, np.tile(everything, (4, 1)), alpha, beta).reshape(4, -1)
    for row, expected in enumerate(all_scores):
        np.testing.assert_allclose(scores[row], expected.max(), rtol=1e-4)
        np.testing.assert_array_equal(tokens[row], everything[expected.argmax()])


@ENOUGH_ONCE
def test_the_penalties_matter():
    model, source_ids = network(seed=4), sources(batch=8)
    options = {"start_id": START, "end_id": END, "max_length": 8, "beam_width": 8}
    lengths = [
        np.count_nonzero(
            decoding.beam_search(
                model, source_ids, length_penalty=alpha, coverage_penalty=beta, **options
            ).tokens
        )
        for alpha, beta in ((0.0, 0.0), (3.0, 0.0), (0.0, 5.0))
    ]
    assert lengths[1] > lengths[0]
    assert lengths[2] > lengths[0]


@ENOUGH_ONCE
def test_a_sentence_is_translated_alike_alone_and_in_a_batch():
    model, source_ids = network(words=12), sources(batch=6, words=12)
    options = {"start_id": START, "end_id": END, "max_length": 7, "beam_width": 3}
    tokens, scores = decoding.beam_search(model, source_ids, **options)
    for row in (0, 1, 5):
        length = np.count_nonzero(source_ids[row])
        alone = decoding.beam_search(model, source_ids[row : row + 1, :length], **options)
        np.testing.assert_array_equal(padded(alone.tokens, 7)[0], padded(tokens, 7)[row])
        np.testing.assert_allclose(alone.scores[0], scores[row], rtol=1e-4)


def test_a_translator_follows_the_weights():
    model, source_ids = network(words=12), sources(words=12)
    translator = decoding.Translator(model, start_id=START, end_id=END)
    options = {"beam_width": 2, "max_length": 6}
    before = translator.beam_search(source_ids, **options)
    model.set_weights([-w for w in model.get_weights()])
    after = translator.beam_search(source_ids, **options)
    assert abs(after.scores - before.scores).max() > 0.1
    expected = score(model, source_ids, after.tokens, 0.6, 0.1)
    np.testing.assert_allclose(after.scores, expected, rtol=1e-4)


@ENOUGH_ONCE
def test_a_loaded_network_translates_alike(tmp_path):
    model, source_ids = network(), sources()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    options = {"start_id": START, "end_id": END, "beam_width": 2}
    expected = decoding.beam_search(model, source_ids, **options)
    found = decoding.beam_search(loaded, source_ids, **options)
    assert expected.tokens.shape[1] <= 10
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"source_ids": [[4, 0, 5]]}, "padding, 0, must follow the tokens. Received.*4, 0, 5"),
        ({"source_ids": [[0, 0]]}, "must begin with a token"),
        ({"source_ids": [4, 5]}, r"shape \(batch, length\). Received: shape \(2,\)"),
        ({"source_ids": [[0.5]]}, "whole numbers.*dtype float64"),
        ({"source_ids": np.zeros((0, 3), int)}, r"Received: shape \(0, 3\)"),
        ({"start_id": 0}, "start_id must be a token of the 7.*Received: start_id=0"),
        ({"end_id": 7}, "end_id must be a token of the 7.*Received: end_id=7"),
        ({"end_id": START}, "must differ. Received: 2 for both"),
        ({"max_length": 0}, "max_length must be a positive integer. Received: 0"),
        ({"beam_width": 0}, "beam_width must be a positive integer. Received: 0"),
        ({"length_penalty": -0.1}, "length_penalty must be.*Received: length_penalty=-0.1"),
        ({"coverage_penalty": "x"}, "coverage_penalty must be.*Received: coverage_penalty='x'"),
        ({"model": lenet5}, "a network of models.gnmt. Received: 'lenet5'.*no layer 'memory'"),
        ({"model": lstm_lm}, "a network of models.gnmt. Received: 'lstm_lm'"),
    ],
)
def test_refuses_what_it_cannot_translate(arguments, words):
    arguments = dict(arguments)
    model = arguments.pop("model", network)()
    options = {"source_ids": sources(), "start_id": START, "end_id": END} | arguments
    with pytest.raises(ValueError, match=words):
        decoding.beam_search(model, options.pop("source_ids"), **options)
    if not {"beam_width", "length_penalty", "coverage_penalty"} & set(options):
        with pytest.raises(ValueError, match=words):
            decoding.greedy(model, arguments.get("source_ids", sources()), **options)
