"""The state of half-precision training: saved, resumed, loaded around, counted."""

import keras
import numpy as np
import pytest

from halves import problem, variables_of
from stepping import QUICK, run
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB

ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
ROUNDINGS = ("compensated", "stochastic")


def mixed_model(optimizer):
    """A bfloat16 layer before a float32 one."""
    layers = [
        keras.layers.Dense(8, activation="tanh", dtype="bfloat16"),
        keras.layers.Dense(3, dtype="float32"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, epochs=2):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 4)).astype("float32"), random.integers(0, 3, 32)
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def everything(model):
    variables = [*model.variables, *model.optimizer.variables]
    return np.concatenate([np.float64(v.numpy()).ravel() for v in variables])


@pytest.mark.parametrize("weight_rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ALL)
def test_resumed_training_goes_on_bit_for_bit(name, weight_rounding):
    start, gradients = problem("bfloat16", updates=6)
    dtypes = ["bfloat16", "float32", "bfloat16"]

    def make(values):
        optimizer = ALL[name](0.01, weight_rounding=weight_rounding)
        made = variables_of(dtypes, values)
        optimizer.build(made)
        return optimizer, made

    first, variables = make(start)
    half_way = run(first, variables, gradients[:3], QUICK)[-1]
    store = {}
    first.save_own_variables(store)
    second, copies = make(half_way)
    second.load_own_variables(store)
    ends = [run(o, v, gradients[3:], QUICK)[-1] for o, v in ((first, variables), (second, copies))]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(np.float32(a), np.float32(b))
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("weight_rounding", ROUNDINGS)
def test_a_saved_model_goes_on_bit_for_bit(weight_rounding, tmp_path):
    stopped = fit(mixed_model(LAMB(0.01, weight_rounding=weight_rounding)))
    stopped.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.optimizer.weight_rounding == weight_rounding
    np.testing.assert_array_equal(everything(loaded), everything(stopped))
    np.testing.assert_array_equal(everything(fit(loaded)), everything(fit(stopped)))


def test_residuals_are_saved_for_half_precision_alone():
    model = fit(mixed_model(LAMB()))
    store = {}
    model.optimizer.save_own_variables(store)
    keys = [key for key in store if key.endswith("residual")]
    assert sorted(keys) == ["0.residual", "1.residual"]  # of kernel and bias of the first layer
    assert store["0.residual"].dtype == "float32" and np.any(store["0.residual"])
    other = mixed_model(LAMB(weight_rounding="stochastic"))
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="0.residual is not expected"):
        other.optimizer.load_own_variables(store)


def test_loaded_weights_are_not_disturbed(tmp_path):
    """Another model's weights, loaded after training, with the optimizer's state left behind."""
    other, model = mixed_model("sgd"), fit(mixed_model(LAMB(0.01)))
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.warns(UserWarning, match="another kind of optimizer"):
        model.load_weights(tmp_path / "other.weights.h5")
    before = model.get_weights()
    model.optimizer.learning_rate = 0.0
    for a, b in zip(fit(model, epochs=1).get_weights(), before, strict=True):
        np.testing.assert_array_equal(np.float32(a), np.float32(b))


@pytest.mark.parametrize(
    "cls, dtype, options, bytes_per_weight",
    [
        (LARS, "float32", {}, 4),
        (LAMB, "float32", {}, 8),
        (LAMB, "float32", {"weight_rounding": "stochastic"}, 8),
        (LAMB, "float32", {"use_ema": True, "gradient_accumulation_steps": 2}, 16),
        (LARS, "bfloat16", {}, 8),
        (LAMB, "bfloat16", {}, 12),
        (LAMB, "bfloat16", {"use_ema": True, "gradient_accumulation_steps": 2}, 20),
        (LARS, "bfloat16", {"weight_rounding": "stochastic"}, 4),
        (LAMB, "bfloat16", {"weight_rounding": "stochastic"}, 8),
        (NLAMB, "bfloat16", {}, 12),
        (NNLAMB, "float16", {}, 12),
    ],
)
def test_bytes_of_state(cls, dtype, options, bytes_per_weight):
    optimizer = cls(**options)
    with pytest.raises(ValueError, match="LARS|LAMB.* has no state before it is built"):
        optimizer.state_bytes()
    optimizer.build(
        [keras.Variable(np.ones(s), dtype=dtype, name=f"v{s}") for s in ((30, 20), (400,))]
    )
    counter = {"tensorflow": 8, "jax": 4}[keras.backend.backend()]
    scalars = counter + 4 + 4 * (cls in (NLAMB, NNLAMB))  # updates, rate, product of momenta
    size = 1000 * bytes_per_weight + scalars
    assert optimizer.state_bytes() == size
    lines = []
    optimizer.summary(print_fn=lines.append)
    expected = f"State: {size} bytes for 1000 weights ({bytes_per_weight}.0 bytes a weight)"
    assert lines[-1] == expected


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ALL)
def test_float32_weights_pay_nothing(name):
    import tensorflow as tf

    graphs = []
    for weight_rounding in ROUNDINGS:
        w = keras.Variable(np.ones(3, "float32"), name="w")
        optimizer = ALL[name](use_ema=True, weight_rounding=weight_rounding)
        optimizer.build([w])
        graph = tf.function(optimizer.apply).get_concrete_function([tf.ones(3)]).graph
        graphs.append(sorted(op.type for op in graph.get_operations()))
        assert len([v for v in optimizer.variables if "residual" in v.name]) == 0
    assert graphs[0] == graphs[1]
    assert not {"Bitcast", "BitwiseAnd"} & set(graphs[0])
