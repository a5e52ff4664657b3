"""GNMT (Wu et al. 2016, arXiv:1609.08144) in the form called v2, as MLPerf trained it.

That form has four layers instead of eight, and another attention: the query is the output of the
decoder's bottom layer at the same step, and the context goes to all layers above it. The bottom
layer itself reads the target's embeddings alone, as in MLPerf's reference (mlcommons/training,
rnn_translator), so that in training every layer runs over all steps at once. In TensorFlow's nmt
tutorial it reads the context of the step before, too, which takes a loop over the steps and 4 *
units^2 parameters more.

With V tokens, n layers of u units, and 4u(i + u + 1) parameters for an LSTM that reads i numbers:

| part                                       | reads | parameters                      |
|--------------------------------------------|-------|---------------------------------|
| embedding, shared by source and target     |       | V u                             |
| encoder: first layer, in both directions   |     u | 2 * 4u(2u + 1)                  |
| encoder: second layer                      |    2u | 4u(3u + 1)                      |
| encoder: n - 2 more, with residuals        |     u | (n - 2) * 4u(2u + 1)            |
| attention: query, keys; vector, bias, scale |    u | 2u^2 + 2u + 1                   |
| decoder: bottom layer                      |     u | 4u(2u + 1)                      |
| decoder: n - 1 more, residuals from third  |    2u | (n - 1) * 4u(3u + 1)            |
| logits, not tied to the embedding          |     u | V u + V                         |

V = 32,320, n = 4 and u = 1,024 make 160,634,433. (PyTorch's LSTMs have a second bias.)
Translations are searched for in `models.decoding`.
"""

import keras
from keras import ops
from keras.initializers import RandomUniform

from models import _classifier, _text


def gnmt(vocabulary_size=32_320, *, units=1024, layers=4, dropout=0.2, initial_range=0.1):
    """GNMT v2: an encoder and a decoder of LSTM layers, joined by normalised Bahdanau attention.

    Dropout comes before each LSTM layer, residual connections from the third on. Kernels and
    embeddings start uniform between plus and minus `initial_range`, biases at zero, but 1 in the
    forget gates. The decoder starts from zeros. 160,634,433 parameters (see above).

    In training, attention holds batch * source length * target length * units numbers.

    Args:
        vocabulary_size: Number of tokens, shared by source and target.
        units: Size of the embeddings and of each LSTM's state.
        layers: LSTM layers of the encoder, and of the decoder; at least 2.
        dropout: Rate of dropout.
        initial_range: Where the uniform distribution of the first weights ends.

    Returns:
        A `keras.Model` from a dict of int32, `"source_ids"` (batch, S) and `"target_ids"` (batch,
        T), the target one step late, beginning with the start token, both 0 at padding, which
        follows the tokens; to (batch, T, vocabulary_size) logits of the target, in float32 also
        under a policy that computes in half precision (in float64 under a float64 policy).

    Raises:
        ValueError: If a size isn't a positive integer, or there are fewer than 2 layers, or the
            dropout isn't from 0 to below 1, or the range isn't above 0.

    >>> gnmt(100, units=8).count_params()
    7765
    """
    return _build("gnmt", vocabulary_size, units, layers, dropout, initial_range)


def gnmt_small(vocabulary_size=32_320, *, units=128, layers=3, dropout=0.2, initial_range=0.1):
    """`gnmt` for a minute on a laptop: three layers are the fewest with a residual connection.

    >>> gnmt_small(2_000).count_params()
    1664721
    """
    return _build("gnmt_small", vocabulary_size, units, layers, dropout, initial_range)


@keras.saving.register_keras_serializable(package="models")
class NormalizedAttention(keras.layers.Layer):
    """Attention by the sum of query and key (Bahdanau et al. 2014), normalised.

    With a query q and a key k_s for each place s of the memory, both already projected, v a vector,
    g a scalar and b a bias (Luong et al. 2017, nmt tutorial, "normed_bahdanau"):

        score_s = g * sum_u(v_u / |v| * tanh(q + k_s + b)_u),

    softmax over s gives the weights, and they the context, a mean of the memory. g starts at
    1 / sqrt(units), b at zero. The softmax is in float32 at least.

    Args:
        initializer: Of v, as of any Keras layer.
        **layer: Those of `keras.layers.Layer`.
    """

    def __init__(self, initializer="glorot_uniform", **layer):
        super().__init__(**layer)
        self.initializer = keras.initializers.get(initializer)

    def build(self, query_shape, keys_shape, memory_shape, present_shape):
        """Makes v, b and g."""
        units = query_shape[-1]
        self.vector = self.add_weight(shape=(units,), initializer=self.initializer, name="vector")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        start = keras.initializers.Constant(units**-0.5)
        self.scale = self.add_weight(shape=(), initializer=start, name="scale")

    def call(self, query, keys, memory, present):
        """Looks at the memory.

        Args:
            query: (batch, T, units).
            keys: (batch, S, units).
            memory: (batch, S, width).
            present: (batch, S), False where there is nothing to see.

        Returns:
            The context (batch, T, width), and the weights (batch, T, S), float32 at least.
        """
        # (batch, T, S, units)
        x = ops.tanh(ops.expand_dims(query, 2) + ops.expand_dims(keys + self.bias, 1))
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        vector = ops.cast(self.vector, dtype)
        vector = ops.cast(self.scale, dtype) * vector / ops.sqrt(ops.sum(ops.square(vector)))
        scores = ops.cast(ops.matmul(x, ops.cast(vector, x.dtype)), dtype)
        weights = ops.softmax(ops.where(ops.expand_dims(present, 1), scores, -1e9))
        return ops.matmul(ops.cast(weights, memory.dtype), memory), weights

    def compute_output_spec(self, query, keys, memory, present):
        """The shapes of `call`, whose lengths may be unknown."""
        batch, steps, _ = query.shape
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        return (
            keras.KerasTensor((batch, steps, memory.shape[-1]), self.compute_dtype),
            keras.KerasTensor((batch, steps, keys.shape[1]), dtype),
        )

    def get_config(self):
        """The arguments, as Keras saves them."""
        own = {"initializer": keras.initializers.serialize(self.initializer)}
        return super().get_config() | own


def _build(name, vocabulary_size, units, layers, dropout, initial_range):
    _text.check_sizes(name, vocabulary_size=vocabulary_size, units=units, layers=layers)
    _text.check_dropout(name, dropout)
    _text.check_range(name, initial_range)
    if layers < 2:
        raise ValueError(
            f"{name} needs at least 2 layers: one in both directions, and one that joins them. "
            f"Received: layers={layers}."
        )

    def uniform():
        return RandomUniform(-initial_range, initial_range)

    def dense(label):
        return keras.layers.Dense(units, use_bias=False, kernel_initializer=uniform(), name=label)

    def dropped(x, label):
        return keras.layers.Dropout(dropout, name=f"{label}_dropout")(x)

    def residual(x, y, number, label):
        return keras.layers.Add(name=f"{label}_residual")([x, y]) if number > 2 else y

    source, target = _text.ids("source_ids"), _text.ids("target_ids")
    embedding = keras.layers.Embedding(
        vocabulary_size, units, embeddings_initializer=uniform(), name="embedding"
    )
    present = ops.not_equal(source, 0)

    x = dropped(embedding(source), "encoder_1")
    turn = _turn(present, x.dtype)
    forward = _text.lstm(units, uniform(), "encoder_1_forward")(x)
    backward = _text.lstm(units, uniform(), "encoder_1_backward")(ops.matmul(turn, x))
    backward = ops.matmul(turn, backward)
    x = keras.layers.Concatenate(name="encoder_1")([forward, backward])
    for number in range(2, layers + 1):
        label = f"encoder_{number}"
        y = _text.lstm(units, uniform(), label)(dropped(x, label))
        x = residual(x, y, number, label)
    memory = keras.layers.Identity(name="memory")(x)
    keys = dense("attention_keys")(memory)

    x = _text.lstm(units, uniform(), "decoder_1")(dropped(embedding(target), "decoder_1"))
    attention = NormalizedAttention(uniform(), name="attention")
    context, _ = attention(dense("attention_query")(x), keys, memory, present)
    for number in range(2, layers + 1):
        label = f"decoder_{number}"
        joined = keras.layers.Concatenate(name=f"{label}_input")([x, context])
        y = _text.lstm(units, uniform(), label)(dropped(joined, label))
        x = residual(x, y, number, label)
    logits = _classifier.logits(x, vocabulary_size, kernel_initializer=uniform())
    return keras.Model({"source_ids": source, "target_ids": target}, logits, name=name)


def _turn(present, dtype):
    """Matrices (batch, S, S) that turn each row's tokens round, and make padding zero.

    Keras' way, a mask and `go_backwards`, isn't for cuDNN on JAX, and fails on TensorFlow's where a
    whole row is padding. The products cost little beside an LSTM's.
    """
    places = ops.cumsum(ops.ones_like(present, "int32"), axis=1)  # 1, 2, ... in each row
    count = ops.sum(ops.cast(present, "int32"), axis=1, keepdims=True)
    # Not by adding the places: of a batch of one, Keras on TensorFlow takes one for a bias.
    opposite = count + 1 - places
    return ops.cast(ops.equal(ops.expand_dims(places, 1), ops.expand_dims(opposite, 2)), dtype)
