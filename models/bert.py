"""BERT (Devlin et al. 2018, arXiv:1810.04805): for pretraining, and for spans as in SQuAD.

The encoder is `keras_hub.models.BertBackbone`, which must be installed; the heads are here. Both
kinds of network hold the encoder as their layer "backbone", so pretrained weights move by

    spans.get_layer("backbone").set_weights(pretrained.get_layer("backbone").get_weights())

As in BERT: kernels and embeddings start as a normal distribution of deviation 0.02, cut off at
twice that, biases at zero; the epsilon of layer normalisation is 1e-12; GELU is the approximation
by tanh, which keras_hub uses in the encoder and BERT's code everywhere (in its own head for masked
words keras_hub takes the exact one by erf, and an epsilon of 1e-5: logits differ in the fourth
digit). The length of the sequences is free up to `max_sequence_length`: shorter ones take the first
rows of the position embeddings, so that one model serves both phases, of 128 and of 512 tokens.

| network    | layers | width | heads | parameters of the encoder |
|------------|--------|-------|-------|---------------------------|
| bert_tiny  |      2 |   128 |     2 |                 4,385,920 |
| bert_mini  |      4 |   256 |     4 |                11,170,560 |
| bert_small |      4 |   512 |     8 |                28,763,648 |
| bert_base  |     12 |   768 |    12 |               109,482,240 |
| bert_large |     24 | 1,024 |    16 |               335,141,888 |

with a vocabulary of 30,522; the inner width of the feed-forward layers is four times the width. The
three small ones are of Turc et al. 2019 (arXiv:1908.08962).
"""

import keras
from keras import layers, ops

from models import _classifier, _text

# Logits of padding: their softmax is zero in float32, and their sum with others stays finite.
NEVER = -1e9


def bert_tiny(vocabulary_size=30522, *, next_sentence=False, dropout=0.1, max_sequence_length=512):
    """BERT of 2 layers of 128, 2 heads, for pretraining; otherwise as `bert_base`.

    >>> bert_tiny().count_params()
    4433210
    """
    return _masked_lm(
        "bert_tiny", 2, 128, 2, vocabulary_size, next_sentence, dropout, max_sequence_length
    )


def bert_mini(vocabulary_size=30522, *, next_sentence=False, dropout=0.1, max_sequence_length=512):
    """BERT of 4 layers of 256, 4 heads, for pretraining; otherwise as `bert_base`."""
    return _masked_lm(
        "bert_mini", 4, 256, 4, vocabulary_size, next_sentence, dropout, max_sequence_length
    )


def bert_small(vocabulary_size=30522, *, next_sentence=False, dropout=0.1, max_sequence_length=512):
    """BERT of 4 layers of 512, 8 heads, for pretraining; otherwise as `bert_base`."""
    return _masked_lm(
        "bert_small", 4, 512, 8, vocabulary_size, next_sentence, dropout, max_sequence_length
    )


def bert_base(vocabulary_size=30522, *, next_sentence=False, dropout=0.1, max_sequence_length=512):
    """BERT of 12 layers of 768, 12 heads, for pretraining: masked words, and sentences in order.

    The head for masked words is a dense layer with GELU, a layer normalisation, and the product
    with the token embeddings, plus a bias for each token. The encoder always has its pooler, a
    dense layer on the first token; without `next_sentence` nothing follows it, and its weights get
    no gradient. 110,104,890 parameters; `next_sentence` adds 1,538.

    Args:
        vocabulary_size: Number of tokens.
        next_sentence: Whether to judge also whether the second sentence follows the first.
        dropout: Rate behind embeddings, attention and feed-forward layers, and on the attention's
            weights.
        max_sequence_length: Rows of the position embeddings: the longest sequence.

    Returns:
        A `keras.Model` from a dict of int32, with batch B, length L and K masked places:
        `"token_ids"`, `"segment_ids"` and `"padding_mask"` (1 for tokens, 0 for padding), all
        (B, L), and `"mask_positions"` (B, K); to a dict of logits: `"masked_lm"` (B, K,
        vocabulary_size) and, where asked for, `"next_sentence"` (B, 2). They are float32, also
        under a policy that computes in half precision (float64 under a float64 policy).

    Raises:
        ValueError: If a size isn't a positive integer, or the dropout isn't from 0 to below 1.
        ImportError: If keras_hub isn't installed.
    """
    return _masked_lm(
        "bert_base", 12, 768, 12, vocabulary_size, next_sentence, dropout, max_sequence_length
    )


def bert_large(vocabulary_size=30522, *, next_sentence=False, dropout=0.1, max_sequence_length=512):
    """BERT of 24 layers of 1,024, 16 heads, for pretraining; otherwise as `bert_base`.

    336,224,058 parameters; `next_sentence` adds 2,050.
    """
    return _masked_lm(
        "bert_large", 24, 1024, 16, vocabulary_size, next_sentence, dropout, max_sequence_length
    )


def bert_tiny_spans(vocabulary_size=30522, *, dropout=0.1, max_sequence_length=512):
    """BERT of 2 layers of 128, 2 heads, for spans; otherwise as `bert_base_spans`.

    >>> model = bert_tiny_spans()
    >>> model.count_params() - model.get_layer("backbone").count_params() == (128 + 1) * 2
    True
    """
    return _spans("bert_tiny_spans", 2, 128, 2, vocabulary_size, dropout, max_sequence_length)


def bert_mini_spans(vocabulary_size=30522, *, dropout=0.1, max_sequence_length=512):
    """BERT of 4 layers of 256, 4 heads, for spans; otherwise as `bert_base_spans`."""
    return _spans("bert_mini_spans", 4, 256, 4, vocabulary_size, dropout, max_sequence_length)


def bert_small_spans(vocabulary_size=30522, *, dropout=0.1, max_sequence_length=512):
    """BERT of 4 layers of 512, 8 heads, for spans; otherwise as `bert_base_spans`."""
    return _spans("bert_small_spans", 4, 512, 8, vocabulary_size, dropout, max_sequence_length)


def bert_base_spans(vocabulary_size=30522, *, dropout=0.1, max_sequence_length=512):
    """BERT of 12 layers of 768, 12 heads, that marks where an answer starts and ends.

    One dense layer gives two numbers for each token (Devlin et al. 2018, section 4.2).

    Args:
        vocabulary_size, dropout, max_sequence_length: As of `bert_base`.

    Returns:
        A `keras.Model` from a dict of int32 (B, L), `"token_ids"`, `"segment_ids"` and
        `"padding_mask"`, to a dict of logits (B, L), `"start"` and `"end"`: -1e9 at padding,
        of the dtype that `bert_base` gives.

    Raises:
        As `bert_base`.
    """
    return _spans("bert_base_spans", 12, 768, 12, vocabulary_size, dropout, max_sequence_length)


def bert_large_spans(vocabulary_size=30522, *, dropout=0.1, max_sequence_length=512):
    """BERT of 24 layers of 1,024, 16 heads, for spans; otherwise as `bert_base_spans`."""
    return _spans("bert_large_spans", 24, 1024, 16, vocabulary_size, dropout, max_sequence_length)


@keras.saving.register_keras_serializable(package="models")
class Backbone(layers.Layer):
    """keras_hub's BERT encoder as one layer, which also gives its table of token embeddings.

    The table goes on as a tensor, so that the head's product with it stays tied to the embedding in
    a copy or a loaded model, too. It has the dtype of the weights, whatever the layer computes in.

    Args:
        vocabulary_size, num_layers, num_heads, hidden_dim, dropout, max_sequence_length: As of
            `keras_hub.models.BertBackbone`; the inner width is `4 * hidden_dim`.
        pooled: Whether the pooler is trained; False where nothing reads its output.
        **layer: As of `keras.layers.Layer`.
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        dropout,
        max_sequence_length,
        pooled=True,
        **layer,
    ):
        super().__init__(**layer, autocast=False)
        from keras_hub.models import BertBackbone

        self.sizes = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "dropout": dropout,
            "max_sequence_length": max_sequence_length,
        }
        with keras.name_scope(self.name):  # the encoder makes its weights at once
            self.encoder = BertBackbone(
                **self.sizes,
                intermediate_dim=4 * hidden_dim,
                dtype=self.dtype_policy,
                name="encoder",
            )
        self.pooled = pooled
        self.encoder.get_layer("pooled_dense").trainable = pooled

    def build(self, input_shape):
        """The weights are there already."""

    def call(self, inputs, training=None):
        """From the inputs to `"sequence"` (B, L, H), `"pooled"` (B, H), `"table"` (V, H)."""
        length, longest = inputs["token_ids"].shape[1], self.sizes["max_sequence_length"]
        if length is not None and length > longest:
            raise ValueError(
                f"A sequence must not be longer than max_sequence_length={longest}. Received: "
                f"{length} tokens. Raise that option of the network, or shorten the sequences."
            )
        outputs = self.encoder(inputs, training=training)
        return {
            "sequence": outputs["sequence_output"],
            "pooled": outputs["pooled_output"],
            "table": ops.convert_to_tensor(self.encoder.token_embedding.embeddings),
        }

    def compute_output_spec(self, inputs, training=None):
        """The shapes of `call`, which JAX can't trace with the length unknown."""
        batch, length = inputs["token_ids"].shape
        width, tokens = self.sizes["hidden_dim"], self.sizes["vocabulary_size"]
        return {
            "sequence": keras.KerasTensor((batch, length, width), self.compute_dtype),
            "pooled": keras.KerasTensor((batch, width), self.compute_dtype),
            "table": keras.KerasTensor((tokens, width), self.variable_dtype),
        }

    def get_config(self):
        """The arguments, as Keras saves them."""
        return super().get_config() | self.sizes | {"pooled": self.pooled}


@keras.saving.register_keras_serializable(package="models")
class TiedLogits(layers.Layer):
    """Logits by the product with a table of embeddings that another layer owns, plus a bias.

    Computed in float32 at least.

    >>> table = ops.convert_to_tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> [float(logit) for logit in TiedLogits()(ops.ones((1, 2)), table)[0]]
    [3.0, 7.0, 11.0]
    """

    def __init__(self, **layer):
        super().__init__(**layer, autocast=False)

    def build(self, x_shape, table_shape):
        """Makes the bias, one number a token, zero at first."""
        self.bias = self.add_weight(shape=(table_shape[0],), initializer="zeros", name="bias")

    def call(self, x, table):
        """From x (..., H) and the table (V, H) to logits (..., V)."""
        dtype = keras.backend.result_type(table.dtype, "float32")
        logits = ops.matmul(ops.cast(x, dtype), ops.transpose(ops.cast(table, dtype)))
        return logits + ops.cast(self.bias, dtype)

    def get_config(self):
        """As of any layer. Without this line Keras guesses one, from which the name is missing."""
        return super().get_config()


def _masked_lm(
    name, depth, width, heads, vocabulary_size, next_sentence, dropout, max_sequence_length
):
    inputs, encoded = _encode(
        name, depth, width, heads, vocabulary_size, dropout, max_sequence_length, next_sentence
    )
    positions = _text.ids("mask_positions")
    x = ops.take_along_axis(encoded["sequence"], ops.expand_dims(positions, -1), axis=1)
    x = layers.Dense(width, kernel_initializer=_initializer(), name="masked_lm_dense")(x)
    x = ops.gelu(x, approximate=True)
    x = layers.LayerNormalization(epsilon=1e-12, name="masked_lm_layer_norm")(x)
    outputs = {"masked_lm": TiedLogits(name="masked_lm")(x, encoded["table"])}
    if next_sentence:
        logits = _classifier.logits(
            encoded["pooled"], 2, name="next_sentence_dense", kernel_initializer=_initializer()
        )
        outputs["next_sentence"] = _named(logits, "next_sentence")
    return keras.Model({**inputs, "mask_positions": positions}, outputs, name=name)


def _spans(name, depth, width, heads, vocabulary_size, dropout, max_sequence_length):
    inputs, encoded = _encode(
        name, depth, width, heads, vocabulary_size, dropout, max_sequence_length, pooled=False
    )
    logits = _classifier.logits(
        encoded["sequence"], 2, name="spans_dense", kernel_initializer=_initializer()
    )
    present = ops.not_equal(inputs["padding_mask"], 0)
    outputs = {
        end: _named(ops.where(present, logits[..., i], NEVER), end)
        for i, end in enumerate(("start", "end"))
    }
    return keras.Model(inputs, outputs, name=name)


def _named(x, name):
    """`x` unchanged, from a layer of this name: Keras calls an output by its last layer."""
    return layers.Identity(dtype=x.dtype, name=name)(x)


def _encode(name, depth, width, heads, vocabulary_size, dropout, max_sequence_length, pooled):
    _text.check_sizes(
        name, vocabulary_size=vocabulary_size, max_sequence_length=max_sequence_length
    )
    _text.check_dropout(name, dropout)
    inputs = {key: _text.ids(key) for key in ("token_ids", "segment_ids", "padding_mask")}
    backbone = Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=depth,
        num_heads=heads,
        hidden_dim=width,
        dropout=dropout,
        max_sequence_length=max_sequence_length,
        pooled=pooled,
        name="backbone",
    )
    return inputs, backbone(inputs)


def _initializer():
    return keras.initializers.TruncatedNormal(stddev=0.02)
