"""Random options, shapes and gradients against the float64 oracle, 20 updates each."""

import itertools

import keras
import numpy as np
import pytest

import oracles
from stepping import MODES, run
from tf_largebatch import LAMB, LARS, NLAMB, NNLAMB

UPDATES = 20
NESTEROV = {LAMB: "", NLAMB: "m", NNLAMB: "mv"}
MODE = MODES[0]
# Ranks 0 to 4; b is excluded from decay, c from both, d from adaptation; z starts at zero. Some are
# of one shape, and some so large that TensorFlow compiles their update.
SHAPES = {
    "a": (3, 4), "b": (5,), "c": (), "d": (2, 3, 2), "e": (2, 2, 3, 2), "z": (4,),
    "f": (3, 4), "g": (4,), "h": (), "i": (), "l": (128, 130), "m": (128, 130),
}  # fmt: skip


def lars_options():
    grid = itertools.product(("classic", "outside", "adapted"), (False, True), (False, True))
    for i, (mode, nesterov, joint) in enumerate(grid):
        if mode == "adapted" and joint:
            continue
        yield {
            "momentum_mode": mode,
            "nesterov": nesterov,
            "joint_norm": joint,
            "momentum": (0.9, 0.0, 0.5)[i % 3],
            "weight_decay": (1e-4, 0.1, 0.0, 0.01)[i % 4],
            "epsilon": (0.0, 1e-3)[i % 2],
            "trust_coefficient": (0.001, 0.1, 1.0)[(i // 2) % 3],
            "weight_norm_clip": (None, (0.1, 1.5))[(i // 3) % 2],
            "trust_ratio_clip": (None, None, (0.01, 0.4))[i % 3],
        }


def lamb_options(nesterov):
    for i, norm_ord in enumerate((2, 1, "inf", 2, 2, 2)):
        options = {
            "beta_1": (0.9, 0.0, 0.975)[i % 3],
            "beta_2": (0.999, 0.9, 0.0, 0.99)[i % 4],
            "epsilon": (1e-6, 1e-8, 1e-2)[(i // 2) % 3],
            "weight_decay": (0.01, 0.0, 0.3)[(i + 1) % 3],
            "norm_ord": norm_ord,
            "weight_norm_clip": (None, (0.1, 1.5))[(i // 3) % 2],
            "trust_ratio_clip": (None, None, (0.2, 3.0))[i % 3],
        }
        if nesterov:
            options["momentum_decay"] = (None, 0.004, 1.0)[i % 3]
        else:
            options["bias_correction"] = i % 4 != 1
        yield options


GRID = [(LARS, o) for o in lars_options()]
GRID += [(cls, o) for cls in NESTEROV for o in lamb_options(NESTEROV[cls])]


def problem(seed):
    random = np.random.default_rng(seed)
    weights = {n: random.normal(size=s).astype("float32") for n, s in SHAPES.items()}
    weights["z"][:] = 0
    gradients = [
        {n: (random.normal(size=s) * 10.0 ** random.integers(-3, 2)).astype("float32")
         for n, s in SHAPES.items()}
        for _ in range(UPDATES)
    ]  # fmt: skip
    gradients[4]["a"] = np.zeros_like(gradients[4]["a"])
    return weights, gradients


def worst_parting(optimizer, oracle, seed):
    """Greatest distance from the oracle, as a share of that update's step, and where it is."""
    weights, gradients = problem(seed)
    rates = np.linspace(0.02, 0.002, UPDATES)
    variables = [keras.Variable(w, name=n) for n, w in weights.items()]
    history = run(optimizer, variables, [list(g.values()) for g in gradients], MODE, rates)
    worst, where = 0.0, None
    for i, (ours, grads) in enumerate(zip(history, gradients, strict=True)):
        for n, w in zip(weights, ours, strict=True):
            before = weights[n]
            weights[n], _ = oracle.step(
                n, before, grads[n], np.float32(rates[i]), n not in "bc", n not in "cd"
            )
            step = np.abs(weights[n] - before).max()
            # float32 stores a weight to 6e-8 of itself, update after update.
            slack = 1e-7 * (i + 1) * np.abs(before).max()
            parting = max(np.abs(w - weights[n]).max() - slack, 0.0) / (step + 1e-12)
            if parting > worst:
                worst, where = parting, f"update {i}, variable {n}"
    return worst, where


@pytest.mark.parametrize("index", range(len(GRID)))
def test_follows_the_oracle(index):
    cls, options = GRID[index]
    optimizer = cls(
        0.02,
        exclude_from_weight_decay=["^b$", "^c$"],
        exclude_from_layer_adaptation=["^c$", "^d$"],
        **options,
    )
    oracle = oracles.Lars(**options)if cls is LARS else oracles.Lamb(
        nesterov=NESTEROV[cls], **options)  # fmt: skip
    worst, where = worst_parting(optimizer, oracle, seed=index)
    assert worst < 0.01, f"parted by {worst:.1%} of a step at {where}"


def test_plain_adam_fails():
    """The tolerance is tight enough to tell Adam from LAMB, and each optimizer from another."""
    adam = keras.optimizers.Adam(0.02, epsilon=1e-6)
    worst, _ = worst_parting(adam, oracles.Lamb(weight_decay=0.0), seed=0)
    assert worst > 0.5
    worst, _ = worst_parting(LAMB(0.02, weight_decay=0.0), oracles.Lamb(nesterov="m"), seed=0)
    assert worst > 0.1
