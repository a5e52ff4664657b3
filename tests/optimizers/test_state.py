"""Configurations and saved state: round trips, and refusals that change nothing."""

import keras
import numpy as np
import pytest

from tf_largebatch import BIAS_AND_NORM, LAMB, LARS, NLAMB, NNLAMB, schedules

ALL = {"LARS": LARS, "LAMB": LAMB, "NLAMB": NLAMB, "NNLAMB": NNLAMB}
EXCLUSIONS = {
    "exclude_from_weight_decay": [BIAS_AND_NORM], "exclude_from_layer_adaptation": ["kernel"],
}  # fmt: skip
NON_DEFAULT = {
    "LARS": {
        "learning_rate": 0.5, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True,
        "trust_coefficient": 0.01, "epsilon": 1e-3, "joint_norm": True,
        "momentum_mode": "outside", "weight_norm_clip": (0.1, 2.0), "trust_ratio_clip": (0.0, 5.0),
    },
    "LAMB": {
        "learning_rate": 0.5, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1,
        "bias_correction": False, "norm_ord": "inf", "weight_norm_clip": (0.1, 2.0),
        "trust_ratio_clip": (0.0, 5.0), "clipnorm": 1.0, "clipvalue": 2.0,
    },
    "NLAMB": {
        "learning_rate": 0.5, "momentum_decay": 0.004, "norm_ord": 1, "use_ema": True,
        "weight_rounding": "stochastic",
    },
    "NNLAMB": {"learning_rate": 0.5, "momentum_decay": 0.1, "gradient_accumulation_steps": 2},
}  # fmt: skip


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(32, 4)).astype("float32"), random.integers(0, 3, 32)


def model_with(optimizer, prefix="a"):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", name=f"{prefix}_hidden"),
            keras.layers.LayerNormalization(name=f"{prefix}_norm"),
            keras.layers.Dense(3, name=f"{prefix}_out"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def fit(model, epochs=2):
    model.fit(*data(), batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


@pytest.mark.parametrize("name", ALL)
def test_config_round_trips(name):
    optimizer = ALL[name](**NON_DEFAULT[name], **EXCLUSIONS)
    config = optimizer.get_config()
    for key, value in {**NON_DEFAULT[name], **EXCLUSIONS}.items():
        assert config[key] == value, key
    assert ALL[name].from_config(dict(config)).get_config() == config
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is ALL[name]
    assert again.get_config() == config


@pytest.mark.parametrize("name", ALL)
def test_default_config_round_trips_with_a_schedule(name):
    optimizer = ALL[name](schedules.LinearWarmup(0.1, 10))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert float(again.learning_rate) == 0.0


@pytest.mark.parametrize("name", ALL)
def test_saved_model_goes_on_where_it_stopped(name, tmp_path):
    stopped = fit(model_with(ALL[name](**NON_DEFAULT[name], **EXCLUSIONS)))
    stopped.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.optimizer.get_config() == stopped.optimizer.get_config()
    tables = [m.optimizer.exclusion_table() for m in (loaded, stopped)]
    assert [row[1:] for row in tables[0]] == [row[1:] for row in tables[1]]
    np.testing.assert_allclose(weights(fit(loaded)), weights(fit(stopped)), rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_weights_only_file_goes_into_a_second_instance_with_other_names(name, tmp_path):
    first = fit(model_with(ALL[name](**NON_DEFAULT[name]), prefix="a"))
    first.save_weights(tmp_path / "m.weights.h5")
    second = model_with(ALL[name](**NON_DEFAULT[name]), prefix="other")
    second.optimizer.build(second.trainable_variables)
    second.load_weights(tmp_path / "m.weights.h5")
    assert int(second.optimizer._iterations) == int(first.optimizer._iterations) > 0
    np.testing.assert_allclose(weights(fit(second)), weights(fit(first)), rtol=1e-6)


class Store(dict):
    """What Keras hands to `save_own_variables`."""


def saved(optimizer):
    store = Store()
    optimizer.save_own_variables(store)
    return store


def built(cls, *shapes, **options):
    optimizer = cls(**options)
    optimizer.build(
        [keras.Variable(np.ones(s, "float32"), name=f"v{i}") for i, s in enumerate(shapes)]
    )
    return optimizer


def test_keys_shapes_and_paths():
    store = saved(built(LAMB, (2, 3), (4,)))
    assert set(store) == {
        "iteration", "learning_rate", "0.momentum", "0.velocity", "1.momentum", "1.velocity",
        "exclusions",
    }  # fmt: skip
    assert store["0.velocity"].shape == (2, 3)
    assert bytes(store["exclusions"]) == b'[["v0", true, true], ["v1", true, true]]'


def test_exclusions_given_as_variables_survive_saving(tmp_path):
    """Keras drops a Sequential's name from the paths of a loaded model; the pattern allows it."""
    model = model_with(LAMB())
    kernel, bias = model.layers[0].kernel, model.layers[0].bias
    model.compile(optimizer=LAMB(exclude_from_weight_decay=[kernel, bias]), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    excluded = [row.variable for row in loaded.optimizer.exclusion_table() if not row.decayed]
    assert [path.split("/")[-2:] for path in excluded] == [
        ["a_hidden", "kernel"], ["a_hidden", "bias"],
    ]  # fmt: skip


def test_other_exclusions_than_saved_warn():
    source = built(LAMB, (2,), (3,), exclude_from_weight_decay=["v0"])
    target = built(LAMB, (2,), (3,))
    with pytest.warns(UserWarning, match=r"otherwise than when its state was saved: \['v0'\]"):
        target.load_own_variables(saved(source))


@pytest.mark.parametrize(
    "saver, loader, words",
    [
        ((LAMB, (2,)), (LAMB, (2,), (3,)), "1.momentum is missing"),
        ((LAMB, (2,), (3,)), (LAMB, (2,)), "1.momentum is not expected"),
        ((LAMB, (2,)), (LAMB, (3,)), r"0.momentum has shape \(2,\), not \(3,\)"),
        ((LARS, (2,)), (LAMB, (2,)), "0.velocity is missing"),
        ((LAMB, (2,)), (NLAMB, (2,)), "momentum_product is missing"),
        ((LAMB, (2, 3)), (LAMB, (3, 2)), "has shape"),
    ],
)
def test_state_that_does_not_fit_changes_nothing(saver, loader, words):
    source = built(*saver)
    for variable in source.variables:
        variable.assign(variable + 1)
    target = built(*loader)
    before = [v.numpy().copy() for v in target.variables]
    with pytest.raises(ValueError, match=words) as error:
        target.load_own_variables(saved(source))
    assert "Nothing of it was loaded" in str(error.value)
    assert "v0" in str(error.value)
    for variable, value in zip(target.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_misfit_in_a_file_is_an_error_too(tmp_path):
    first = fit(model_with(LAMB(0.1)))
    first.save_weights(tmp_path / "m.weights.h5")
    second = model_with(LARS(0.1))
    second.optimizer.build(second.trainable_variables)
    with pytest.raises(ValueError, match="saved state doesn't fit"):
        second.load_weights(tmp_path / "m.weights.h5")


def test_weights_for_inference_load_without_optimizer_state(tmp_path):
    first = fit(model_with(LAMB(0.1)))
    first.save_weights(tmp_path / "m.weights.h5")
    second = model_with(LAMB(0.1))
    with pytest.warns(UserWarning, match="was not loaded: it is not built yet"):
        second.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(weights(second), weights(first))


@pytest.mark.parametrize(
    "cls, options, words",
    [
        (LAMB, {"learning_rate": -0.1}, "`learning_rate` must be a number in"),
        (LAMB, {"learning_rate": float("nan")}, "learning_rate=nan"),
        (LAMB, {"beta_1": 1.0}, r"`beta_1` must be a number in \[0, 1\). Received: beta_1=1.0"),
        (LAMB, {"beta_2": -0.1}, "`beta_2`"),
        (LAMB, {"epsilon": -1e-6}, "`epsilon`"),
        (LAMB, {"weight_decay": -1}, "`weight_decay`"),
        (LAMB, {"norm_ord": 3}, r"`norm_ord` must be one of \[1, 2, 'inf'\]. Received"),
        (LAMB, {"bias_correction": 1}, "`bias_correction` must be True or False"),
        (LAMB, {"trust_ratio_clip": (2, 1)}, r"pair \(low, high\).*Received"),
        (LAMB, {"weight_norm_clip": 3.0}, "`weight_norm_clip`"),
        (LAMB, {"clipnorm": 0}, "`clipnorm`"),
        (LAMB, {"clipnorm": 1.0, "global_clipnorm": 1.0}, "Only one of `clipnorm`"),
        (LAMB, {"gradient_accumulation_steps": 1}, "integer >= 2"),
        (LAMB, {"gradient_accumulation_steps": 2.5}, "integer >= 2"),
        (LAMB, {"weight_rounding": "nearest"}, "`weight_rounding` must be one of"),
        (LAMB, {"weight_rounding": None}, "Received: weight_rounding=None"),
        (LAMB, {"momentum": 0.9}, "not recognized"),
        (NLAMB, {"momentum_decay": -1.0}, "`momentum_decay`"),
        (LARS, {"momentum": 1.0}, "`momentum`"),
        (LARS, {"trust_coefficient": 0.0}, r"\(0, infinity\)"),
        (LARS, {"momentum_mode": "outsider"}, "`momentum_mode` must be one of"),
        (LARS, {"momentum_mode": "adapted", "joint_norm": True}, "no meaning"),
    ],
)
def test_refused_arguments(cls, options, words):
    with pytest.raises(ValueError, match=words):
        cls(**options)


def test_a_model_saved_before_training_loads(tmp_path):
    model_with(LAMB(0.1)).save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="the file holds none"):
        keras.models.load_model(tmp_path / "m.keras")


def test_a_rate_that_became_a_schedule_is_no_misfit():
    source = built(LAMB, (2,), learning_rate=0.5)
    target = built(LAMB, (2,), learning_rate=schedules.LinearWarmup(0.1, 10))
    source._slots["velocity"][0].assign([3.0, 4.0])
    target.load_own_variables(saved(source))
    np.testing.assert_array_equal(target._slots["velocity"][0].numpy(), [3.0, 4.0])
    source.load_own_variables(saved(target))


def test_state_of_keras_own_is_not_loaded(tmp_path):
    """As between optimizers of Keras: the weights come, the state stays, a warning says so."""
    first = fit(model_with(keras.optimizers.Adam(0.1)))
    first.save_weights(tmp_path / "m.weights.h5")
    second = model_with(LAMB(0.1))
    second.optimizer.build(second.trainable_variables)
    with pytest.warns(UserWarning, match="another kind of optimizer"):
        second.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(weights(second), weights(first))
    assert not any(np.any(v.numpy()) for v in second.optimizer._slots["velocity"])


@pytest.mark.tensorflow  # on JAX Keras itself needs another `compile` here
def test_average_with_a_layer_frozen_later():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 4)).astype("float32"), random.normal(size=(16, 4))
    layers = [keras.layers.Dense(4, use_bias=False, name=n) for n in "pq"]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(LAMB(0.1, use_ema=True), loss="mse")
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = False
    model.fit(x, y, verbose=0)
    # `fit` ends by giving the variables that are still trainable their own averages.
    _, average = model.optimizer._model_variables_moving_average
    np.testing.assert_array_equal(layers[1].kernel.numpy(), average.numpy())
