"""The same trajectories from other implementations of LARS and LAMB."""

import json
import pathlib

import keras
import numpy as np
import pytest

from stepping import MODES, run
from tf_largebatch import LAMB, LARS

TFA = json.loads(pathlib.Path(__file__).with_name("tfa_vectors.json").read_text())
MODE = MODES[0]


@pytest.mark.parametrize("case", TFA["cases"])
def test_tensorflow_addons_lamb(case):
    options = {"weight_decay": 0.0, **TFA["cases"][case]["options"]}  # TFA's default is 0
    names = list(TFA["start"])
    # A bare Keras variable's name holds no slash.
    variables = [
        keras.Variable(np.float32(w), name=n.replace("/", "_")) for n, w in TFA["start"].items()
    ]
    gradients = [[np.float32(g[n]) for n in names] for g in TFA["gradients"]]
    history = run(LAMB(**options), variables, gradients, MODE)
    for ours, theirs in zip(history, TFA["cases"][case]["weights"], strict=True):
        for n, w in zip(names, ours, strict=True):
            np.testing.assert_allclose(w, theirs[n], rtol=0, atol=2e-6)


def test_tensorflow_addons_argument_order():
    """Positional arguments mean what they meant there."""
    optimizer = LAMB(0.1, 0.8, 0.9, 1e-5, 0.02, ["bias"], ["gamma"], name="LAMB")
    config = optimizer.get_config()
    assert config["learning_rate"] == pytest.approx(0.1)
    assert [config[k] for k in ("beta_1", "beta_2", "epsilon", "weight_decay")] == [
        0.8, 0.9, 1e-5, 0.02,
    ]  # fmt: skip
    assert config["exclude_from_weight_decay"] == ["bias"]
    assert config["exclude_from_layer_adaptation"] == ["gamma"]


def problem(updates=15):
    random = np.random.default_rng(3)
    weights = {"kernel": random.normal(size=(4, 3)), "bias": np.zeros(3)}
    weights = {n: w.astype("float32") for n, w in weights.items()}
    gradients = [
        {n: (0.1 * random.normal(size=w.shape)).astype("float32") for n, w in weights.items()}
        for _ in range(updates)
    ]
    return weights, gradients


def ours_after(optimizer):
    weights, gradients = problem()
    variables = [keras.Variable(w, name=n) for n, w in weights.items()]
    return run(optimizer, variables, [list(g.values()) for g in gradients], MODE)


def optax_after(transformation):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    weights, gradients = problem()
    state = transformation.init(weights)
    history = []
    for grads in gradients:
        updates, state = transformation.update(grads, state, weights)
        weights = optax.apply_updates(weights, updates)
        history.append([np.asarray(x) for x in jax.tree.leaves(weights)][::-1])
    return history


def assert_same(ours, theirs):
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-6, err_msg=f"at update {step}")


def test_optax_lamb_with_mask():
    """A decay mask there is a decay list here, with everything adapted."""
    optax = pytest.importorskip("optax")
    mask = {"kernel": True, "bias": False}
    theirs = optax_after(optax.lamb(0.01, weight_decay=0.05, mask=mask))
    ours = LAMB(
        0.01, weight_decay=0.05, exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=[],
    )  # fmt: skip
    assert_same(ours_after(ours), theirs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_optax_lars_with_masks(nesterov):
    """optax's ratio is of the joint norm; its masks are lists here."""
    optax = pytest.importorskip("optax")
    mask = {"kernel": True, "bias": False}
    theirs = optax_after(
        optax.lars(
            0.5, weight_decay=1e-3, weight_decay_mask=mask, trust_ratio_mask=mask,
            momentum=0.9, nesterov=nesterov,
        )
    )  # fmt: skip
    ours = LARS(
        0.5, momentum=0.9, weight_decay=1e-3, joint_norm=True, nesterov=nesterov,
        exclude_from_weight_decay=["bias"],
    )  # fmt: skip
    assert_same(ours_after(ours), theirs)


def test_keras_lamb_without_decay():
    theirs = ours_after(keras.optimizers.Lamb(0.01, weight_decay=None))
    assert_same(ours_after(LAMB(0.01, weight_decay=None, epsilon=1e-7)), theirs)


def test_equation_6_3():
    """LARS without momentum and decay is the thesis's general strategy over SGD."""
    weights, gradients = problem(1)
    history = ours_after_one(LARS(0.1, momentum=0.0, weight_decay=0.0, trust_coefficient=1.0))
    w, g = weights["kernel"], gradients[0]["kernel"]
    expected = w - 0.1 * np.linalg.norm(w) / np.linalg.norm(g) * g
    np.testing.assert_allclose(history, expected, rtol=1e-6)


def test_sign_sgd_limit():
    """LAMB without memory is sign-SGD whose rate is scaled by |w| over the root of the size."""
    weights, gradients = problem(1)
    history = ours_after_one(LAMB(0.1, beta_1=0.0, beta_2=0.0, epsilon=0.0, weight_decay=0.0))
    w, g = weights["kernel"], gradients[0]["kernel"]
    expected = w - 0.1 * np.linalg.norm(w) / np.sqrt(w.size) * np.sign(g)
    np.testing.assert_allclose(history, expected, rtol=1e-6)


def ours_after_one(optimizer):
    weights, gradients = problem(1)
    variable = keras.Variable(weights["kernel"], name="kernel")
    return run(optimizer, [variable], [[gradients[0]["kernel"]]], MODE)[-1][0]
