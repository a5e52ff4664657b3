"""Translations by a GNMT network: greedily, or by beam search with GNMT's penalties.

The source is encoded once, and each step advances the decoder's states by one token, so that the
cost grows with the length. All sentences of a batch go along together. What runs for each step is
compiled once for each shape; a `Translator` keeps it from one batch to the next.
"""

import math
import numbers
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from models import _classifier

PADDING = 0
# Where attention sums to 0 in float32, its logarithm is taken from here.
TINY = 1e-30


class Translations(NamedTuple):
    """What was found, in NumPy.

    Attributes:
        tokens: (batch, length) int32, in the form of the labels: without the start token, with the
            end token where one came, then zeros.
        scores: (batch,) float32; what they are is said at the search.
    """

    tokens: np.ndarray
    scores: np.ndarray


def greedy(model, source_ids, *, start_id, end_id, max_length=None):
    """`Translator.greedy` for a single batch.

    Args:
        model, start_id, end_id: As of `Translator`.
        source_ids, max_length: As of `Translator.greedy`.
    """
    translator = Translator(model, start_id=start_id, end_id=end_id)
    return translator.greedy(source_ids, max_length=max_length)


def beam_search(model, source_ids, *, start_id, end_id, **options):
    """`Translator.beam_search` for a single batch.

    Args:
        model, start_id, end_id: As of `Translator`.
        source_ids, **options: As of `Translator.beam_search`.
    """
    return Translator(model, start_id=start_id, end_id=end_id).beam_search(source_ids, **options)


class Translator:
    """Searches for translations by a network; its weights are read anew at each search.

    Args:
        model: What `models.gnmt` builds, also loaded or copied.
        start_id: The token that begins the target.
        end_id: The token that ends it. Start and padding never come out.

    Raises:
        ValueError: If the model is another one, or the tokens aren't two of its vocabulary beside
            padding.

    >>> from models.gnmt import gnmt_small
    >>> translator = Translator(gnmt_small(9, units=4), start_id=2, end_id=3)
    >>> translator.greedy([[5, 6, 7], [8, 0, 0]], max_length=1).tokens.shape
    (2, 1)
    """

    def __init__(self, model, *, start_id, end_id):
        self._layers = {layer.name: layer for layer in model.layers}
        missing = [n for n in ("memory", "attention", "decoder_1") if n not in self._layers]
        if missing:
            raise ValueError(
                f"Translations need a network of models.gnmt. Received: {model.name!r}, which has "
                f"no layer {missing[0]!r}."
            )
        words = self._layers["logits"].units
        for name, value in (("start_id", start_id), ("end_id", end_id)):
            if not _classifier.is_positive_integer(value) or value >= words:
                raise ValueError(
                    f"{name} must be a token of the {words}, and not padding, 0. Received: "
                    f"{name}={value!r}."
                )
        if start_id == end_id:
            raise ValueError(f"start_id and end_id must differ. Received: {start_id} for both.")
        self._start_id, self._end_id, self._words = int(start_id), int(end_id), words
        outputs = [self._layers[name].output for name in ("memory", "attention_keys")]
        self._encoder = keras.Model(model.input["source_ids"], outputs)
        self._steps = {}

    def greedy(self, source_ids, *, max_length=None):
        """The likeliest token at each step.

        Args:
            source_ids: (batch, length) int, 0 at padding, which follows the tokens.
            max_length: Most tokens of a translation, with the end token; by default twice the width
                of `source_ids`, as in TensorFlow's nmt tutorial.

        Returns:
            `Translations`; the score is the log-probability.

        Raises:
            ValueError: If an argument isn't as said above.
        """
        source_ids = _checked_source(source_ids)
        max_length = _checked_length(max_length, source_ids)
        batch = len(source_ids)
        step, state = self._begin(source_ids, candidates=1)
        last = np.full(batch, self._start_id, "int32")
        tokens = np.full((batch, max_length), PADDING, "int32")
        scores = np.zeros(batch, "float32")
        ended = np.zeros(batch, bool)
        for position in range(max_length):
            found = step.predict_on_batch({"tokens": last, **state})
            state["states"] = found["states"]
            last = found["tokens"][:, 0]
            scores += np.where(ended, 0, found["log_p"][:, 0])
            tokens[:, position] = np.where(ended, PADDING, last)
            ended |= last == self._end_id
            if ended.all():
                break
        return Translations(tokens[:, : position + 1], scores)

    def beam_search(
        self,
        source_ids,
        *,
        beam_width=10,
        length_penalty=0.6,
        coverage_penalty=0.1,
        max_length=None,
    ):
        """The translation Y of X with the best score that a beam finds (Wu et al. 2016, section 7).

            score(Y) = log P(Y | X) / lp(Y) + cp(X; Y),
            lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha,
            cp(X; Y) = beta * sum_i log min(1, sum_j p_ij),

        where |Y| counts the end token, and p_ij is the attention of Y's token j on X's token i. The
        beam holds the `beam_width` likeliest beginnings by log P; ended ones keep their places
        until likelier ones take them, and the best score of any that ended is remembered. The
        search is over when no beginning can score better any more. At `max_length` those that
        haven't ended count as they are.

        Args:
            source_ids, max_length: As of `greedy`.
            beam_width: Beginnings held for each sentence; 1 is greedy search.
            length_penalty: alpha, at least 0; 0 scores by log P.
            coverage_penalty: beta, at least 0. The defaults of both are MLPerf's; its width is 5.

        Returns:
            `Translations`; the score is the one above.

        Raises:
            ValueError: If an argument isn't as said above.
        """
        source_ids = _checked_source(source_ids)
        max_length = _checked_length(max_length, source_ids)
        if not _classifier.is_positive_integer(beam_width):
            raise ValueError(f"beam_width must be a positive integer. Received: {beam_width!r}.")
        _check_penalty("length_penalty", length_penalty)
        _check_penalty("coverage_penalty", coverage_penalty)

        def divisor(length):
            return ((5.0 + length) / 6.0) ** length_penalty

        batch, width, candidates = len(source_ids), beam_width, min(beam_width, self._words)
        present = np.repeat((source_ids != PADDING)[:, None], width, axis=1)
        step, state = self._begin(np.repeat(source_ids, width, axis=0), candidates)
        first_rows, each = np.arange(batch)[:, None] * width, np.arange(batch)

        # All (batch, width, ...), but the best, which are (batch, ...).
        tokens = np.full((batch, width, max_length), PADDING, "int32")
        last = np.full((batch, width), self._start_id, "int32")
        log_p = np.full((batch, width), -np.inf, "float32")
        log_p[:, 0] = 0.0  # one beginning at first: nothing
        lengths = np.zeros((batch, width), "int32")
        ended = np.zeros((batch, width), bool)
        coverage = np.zeros(present.shape, "float32")
        best_tokens = np.full((batch, max_length), PADDING, "int32")
        best_score = np.full(batch, -np.inf, "float32")

        for position in range(max_length):
            found = step.predict_on_batch({"tokens": last.reshape(-1), **state})
            # (batch, width, candidates); what has ended goes on with padding alone
            more = found["log_p"].reshape(batch, width, candidates)
            word = found["tokens"].reshape(batch, width, candidates)
            nothing = np.where(np.arange(candidates) == 0, np.float32(0), np.float32(-np.inf))
            more = np.where(ended[..., None], nothing, more) + log_p[..., None]
            word = np.where(ended[..., None], PADDING, word).reshape(batch, -1)
            coverage += found["attention"].reshape(coverage.shape) * ~ended[..., None]

            more = more.reshape(batch, -1)
            chosen = np.argsort(-more, axis=1, kind="stable")[:, :width]
            parents = chosen // candidates
            log_p = np.take_along_axis(more, chosen, axis=1)
            last = np.take_along_axis(word, chosen, axis=1)
            tokens = np.take_along_axis(tokens, parents[..., None], axis=1)
            tokens[:, :, position] = last
            coverage = np.take_along_axis(coverage, parents[..., None], axis=1)
            ended = np.take_along_axis(ended, parents, axis=1)
            lengths = np.take_along_axis(lengths, parents, axis=1) + ~ended
            ended |= last == self._end_id
            rows = (first_rows + parents).reshape(-1)
            state["states"] = [[part[rows] for part in layer] for layer in found["states"]]

            covered = np.log(np.clip(coverage, TINY, 1.0)).sum(-1, where=present)
            scores = log_p / divisor(lengths) + coverage_penalty * covered
            counted = np.where(ended | (position == max_length - 1), scores, -np.inf)
            best, score = counted.argmax(-1), counted.max(-1)
            best_tokens = np.where((score > best_score)[:, None], tokens[each, best], best_tokens)
            best_score = np.maximum(best_score, score)
            # More tokens only lower log P and raise its divisor; coverage is at most 0.
            hope = np.where(ended, -np.inf, log_p / divisor(max_length)).max(-1)
            if (hope <= best_score).all():
                break
        return Translations(best_tokens[:, : position + 1], best_score.astype("float32"))

    def _begin(self, source_ids, candidates):
        """The compiled step, and what it goes on from."""
        if candidates not in self._steps:
            allowed = np.zeros(self._words, "float32")
            allowed[[PADDING, self._start_id]] = -np.inf
            self._steps[candidates] = Step(self._layers, allowed, candidates)
        step = self._steps[candidates]
        memory, keys = (
            ops.convert_to_tensor(part) for part in self._encoder.predict_on_batch(source_ids)
        )
        states = [list(layer.get_initial_state(len(source_ids))) for layer in step.decoder]
        present = ops.convert_to_tensor(source_ids != PADDING)
        return step, {"states": states, "memory": memory, "keys": keys, "present": present}


class Step(keras.Model):
    """One step of a network's decoder: it has the network's layers, and no weights of its own.

    Args:
        network: {name: layer} of what `models.gnmt` builds.
        allowed: (vocabulary_size,) float32 to add to log-probabilities: 0, or -inf for tokens that
            may not come.
        candidates: How many tokens to give.
    """

    def __init__(self, network, allowed, candidates):
        super().__init__()
        count = sum(f"decoder_{number}" in network for number in range(1, len(network)))
        self.decoder = [network[f"decoder_{number}"] for number in range(1, count + 1)]
        self.embedding, self.logits = network["embedding"], network["logits"]
        self.query, self.attention = network["attention_query"], network["attention"]
        self.allowed, self.candidates = allowed, candidates

    def call(self, inputs):
        """The likeliest next tokens.

        Args:
            inputs: `"tokens"` (n,) int32, the last ones; `"states"`, of each layer [h, c], each (n,
                units); `"memory"` and `"keys"` (n, S, units); `"present"` (n, S).

        Returns:
            `"tokens"` and their `"log_p"`, (n, candidates), the likeliest first; `"attention"` (n,
            S) on the source; the new `"states"`.
        """
        logits, attention, states = self.advance(**inputs)
        log_p = ops.log_softmax(logits) + ops.convert_to_tensor(self.allowed)
        log_p, tokens = ops.top_k(log_p, self.candidates)
        tokens = ops.cast(tokens, "int32")
        return {"tokens": tokens, "log_p": log_p, "attention": attention, "states": states}

    def advance(self, tokens, states, memory, keys, present):
        """From the inputs of `call` to logits (n, vocabulary_size), attention and new states.

        Logits and attention are float32.
        """
        bottom, *upper = self.decoder
        x, state = bottom.cell(self.embedding(tokens), states[0])
        query = self.query(ops.expand_dims(x, 1))
        context, attention = self.attention(query, keys, memory, present)
        new = [list(state)]
        for number, (layer, old) in enumerate(zip(upper, states[1:], strict=True), start=2):
            y, state = layer.cell(ops.concatenate([x, context[:, 0]], axis=-1), old)
            x = x + y if number > 2 else y
            new.append(list(state))
        return ops.cast(self.logits(x), "float32"), ops.cast(attention[:, 0], "float32"), new


def _checked_source(source_ids):
    source_ids = np.asarray(source_ids)
    if source_ids.ndim != 2 or source_ids.dtype.kind not in "iu" or 0 in source_ids.shape:
        raise ValueError(
            "source_ids must be whole numbers of shape (batch, length). Received: shape "
            f"{source_ids.shape}, dtype {source_ids.dtype}."
        )
    tokens = source_ids != PADDING
    bad = np.flatnonzero(~tokens[:, 0] | (tokens[:, 1:] & ~tokens[:, :-1]).any(axis=1))
    if bad.size:
        raise ValueError(
            "Each row of source_ids must begin with a token, and padding, 0, must follow the "
            f"tokens. Received: {source_ids[bad[0]].tolist()} in row {bad[0]}."
        )
    return source_ids.astype("int32")


def _checked_length(max_length, source_ids):
    if max_length is None:
        return 2 * source_ids.shape[1]
    if not _classifier.is_positive_integer(max_length):
        raise ValueError(f"max_length must be a positive integer. Received: {max_length!r}.")
    return max_length


def _check_penalty(name, value):
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number from 0 on. Received: {name}={value!r}.")
