"""The LSTM language model that large-batch papers train on the Penn Treebank."""

import keras
from keras.initializers import RandomUniform

from models import _classifier, _text


def lstm_lm(
    vocabulary_size=10_000, *, units=650, layers=2, dropout=0.5, initial_range=0.05, tied=False
):
    """The words' LSTM of Zaremba et al. 2014 (arXiv:1409.2329), by default the medium one.

    Embedding, LSTM layers of as many units, logits; dropout behind the embedding and each LSTM
    layer, never from one step to the next. Kernels and embeddings start uniform between plus and
    minus `initial_range`, biases at zero, the forget gate's too.

    |        | units | dropout | initial_range | parameters for 10,000 words |
    |--------|-------|---------|---------------|-----------------------------|
    | small  |   200 |       0 |          0.1  |                   4,651,600 |
    | medium |   650 |     0.5 |          0.05 |                  19,775,200 |
    | large  | 1,500 |    0.65 |          0.04 |                  66,022,000 |

    The sizes are the paper's, section 4.1; "PTB-small" and "PTB-large" of the LEGW paper
    (arXiv:1901.08256) are the first and the last. The paper carries the LSTM's state on from one
    window of text to the next; here each window starts from zeros, so that windows can be drawn in
    any order.

    Args:
        vocabulary_size: Number of words.
        units: Size of the embeddings and of each LSTM's state.
        layers: Number of LSTM layers.
        dropout: Rate of dropout.
        initial_range: Where the uniform distribution of the first weights ends.
        tied: Whether the logits are the product with the embeddings, without a bias, instead of a
            dense layer (Press and Wolf 2017, arXiv:1608.05859).

    Returns:
        A `keras.Model` from (batch, time) int32 words, of any length, to (batch, time,
        vocabulary_size) logits of the next word, in float32 also under a policy that computes in
        half precision (in float64 under a float64 policy).

    Raises:
        ValueError: If a size isn't a positive integer, or the dropout isn't from 0 to below 1, or
            the range isn't above 0.

    >>> lstm_lm(units=200, dropout=0).count_params()
    4651600
    """
    _text.check_sizes("lstm_lm", vocabulary_size=vocabulary_size, units=units, layers=layers)
    _text.check_dropout("lstm_lm", dropout)
    _text.check_range("lstm_lm", initial_range)
    words = _text.ids("words")
    # Given in any case: without it the reverse way would round the logits to half precision.
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary_size,
        units,
        embeddings_initializer=_uniform(initial_range),
        reverse_dtype=_text.logits_dtype(),
        name="embedding",
    )
    x = keras.layers.Dropout(dropout, name="embedding_dropout")(embedding(words))
    for number in range(1, layers + 1):
        x = _text.lstm(units, _uniform(initial_range), f"lstm_{number}", unit_forget_bias=False)(x)
        x = keras.layers.Dropout(dropout, name=f"lstm_{number}_dropout")(x)
    if tied:
        logits = embedding(x, reverse=True)
        logits = keras.layers.Activation("linear", dtype=_text.logits_dtype(), name="logits")(
            logits
        )
    else:
        logits = _classifier.logits(x, vocabulary_size, kernel_initializer=_uniform(initial_range))
    return keras.Model(words, logits, name="lstm_lm")


def _uniform(initial_range):
    """A new one for each weight, or all would start alike."""
    return RandomUniform(-initial_range, initial_range)
