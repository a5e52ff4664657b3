"""The memory that is measured is the memory that is taken."""

import math
import pathlib

import numpy as np
import pytest

from benchmarks import memory

MIB = 2**20


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_temporary_memory_is_seen_and_held_memory_is_not():
    held = np.ones(64 * MIB, "uint8")
    found = memory.temporary_bytes(lambda: np.ones(96 * MIB, "uint8").sum())
    assert 95 * MIB < found < 112 * MIB
    assert memory.temporary_bytes(lambda: held.sum(dtype="int64")) < 16 * MIB


def one(state, *temporary):
    return {"state": state, "temporary": list(temporary)}


def test_the_bars():
    largest = 100
    found = {"keras Lamb": one(1000, 900), "LAMB": one(1050, 120, 200), "LARS": one(500, 0)}
    assert memory.missed_bars(found, largest) == []
    found |= {"LAMB": one(1051, 120), "NLAMB": one(1000, 40, 201, 40), "optax.lamb": one(9999, 999)}
    assert memory.missed_bars(found, largest) == [
        "LAMB holds 1.051 times the state of Keras' Lamb",
        "NLAMB takes 2.01 copies of the largest variable",
    ]
    found = {"keras Lamb": one(1000, 900), "keras Lamb, XLA": one(1000, 300)}
    assert memory.missed_bars(found | {"LAMB, XLA": one(1000, 500)}, largest) == []
    assert memory.missed_bars(found | {"LAMB, XLA": one(1000, 501)}, largest) == [
        "LAMB, XLA takes 2.01 copies of the largest variable more than Keras' Lamb"
    ]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name, slots", [("LAMB", 2), ("LARS", 1), ("keras Lamb, XLA", 2)])
def test_the_state_of_tensorflow_is_counted(name, slots):
    shapes = [(30, 7), (7,)]
    update, state = memory.keras_update(name, shapes)
    weights = 4 * sum(map(math.prod, shapes))
    assert slots * weights < state <= slots * weights + 32  # counters
    update()


def test_the_state_of_optax_is_counted():
    pytest.importorskip("optax")
    update, state = memory.optax_update("optax.lamb", [(30, 7), (7,)])
    assert state == 2 * 4 * 217 + 4
    update()
