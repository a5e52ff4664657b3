"""The scaling rules against the published tables, and against exact fractions."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from tf_largebatch.scaling import (
    Scaled,
    epochs_to_updates,
    legw,
    scale_learning_rate,
    updates_to_epochs,
)

# LAMB, BERT-Large (thesis Table 6.5): batch size, x of the rate 5/(2^x * 10^3), updates, and the n
# of the warmup ratio 1/n. One "epoch" is the whole run, whose length is 512 * 1000k sequences.
BERT_EXAMPLES = 512 * 1_000_000
BERT = [
    (512, 3.0, 1_000_000, 320),
    (1024, 2.5, 500_000, 160),
    (2048, 2.0, 250_000, 80),
    (4096, 1.5, 125_000, 40),
    (8192, 1.0, 62_500, 20),
    (16384, 0.5, 31_250, 10),
    (32768, 0.0, 15_625, 5),
]

# LAMB, ResNet-50, 90 epochs (Table 6.6): batch size, x of the rate 4/(2^x * 100), warmup epochs.
IMAGENET_EXAMPLES = 1_281_167
IMAGENET = [
    (512, 3.0, 0.3125),
    (1024, 2.5, 0.625),
    (2048, 2.0, 1.25),
    (4096, 1.5, 2.5),
    (8192, 1.0, 5),
    (16384, 0.5, 10),
    (32768, 0.0, 20),
]


@pytest.mark.parametrize("batch_size, x, updates, inverse_ratio", BERT)
def test_bert_rows_follow_from_the_first(batch_size, x, updates, inverse_ratio):
    row = legw(5 / (2**3.0 * 10**3), 1 / 320, base_batch_size=512, batch_size=batch_size)
    size = {"num_examples": BERT_EXAMPLES, "batch_size": batch_size}
    assert row.learning_rate == pytest.approx(5 / (2**x * 10**3), rel=1e-14)
    assert row.warmup_epochs == pytest.approx(1 / inverse_ratio, rel=1e-14)
    assert epochs_to_updates(1, **size) == updates
    assert epochs_to_updates(row.warmup_epochs, **size) == 3125 == updates // inverse_ratio


@pytest.mark.parametrize("batch_size, x, warmup_epochs", IMAGENET)
def test_imagenet_rows_follow_from_the_first(batch_size, x, warmup_epochs):
    row = legw(4 / (2**3.0 * 100), 0.3125, base_batch_size=512, batch_size=batch_size)
    assert row == Scaled(batch_size, pytest.approx(4 / (2**x * 100), rel=1e-14), warmup_epochs)
    size = {"num_examples": IMAGENET_EXAMPLES, "batch_size": batch_size}
    assert epochs_to_updates(row.warmup_epochs, **size) == 782  # 781.96
    assert epochs_to_updates(90, **size) == math.floor(90 * 1281167 / batch_size + 0.5)


@pytest.mark.parametrize("k, linear, sqrt", [(4, 0.4, 0.2), (64, 6.4, 0.8), (0.25, 0.025, 0.05)])
def test_rules(k, linear, sqrt):
    size = {"base_batch_size": 256, "batch_size": int(256 * k)}
    assert scale_learning_rate(0.1, **size, rule="linear") == pytest.approx(linear)
    assert scale_learning_rate(0.1, **size, rule="sqrt") == pytest.approx(sqrt)
    assert scale_learning_rate(0.1, **size) == pytest.approx(sqrt)
    assert scale_learning_rate(0.1, **size, rule="none") == 0.1
    assert legw(0.1, 2, **size, rule="linear") == (256 * k, pytest.approx(linear), 2 * k)


@pytest.mark.parametrize("batch_size", [1, 100, 512, 1000, 3000, 5119, 65536])
def test_legw_keeps_the_number_of_warmup_updates(batch_size):
    row = legw(0.1, 0.7, base_batch_size=512, batch_size=batch_size)
    at = {"num_examples": 50_000}
    before = epochs_to_updates(0.7, **at, batch_size=512)
    assert epochs_to_updates(row.warmup_epochs, **at, batch_size=batch_size) == before == 68


@pytest.mark.parametrize(
    "epochs, num_examples, batch_size, updates",
    [
        (0.3125, 1281167, 512, 782),
        (90, 1281167, 32768, 3519),
        (0, 1281167, 512, 0),
        (0.5, 1, 1, 1),  # a half goes up, where Python's `round` gives 0
        (2.5, 1, 1, 3),  # and here 2
        (0.49999999999999994, 1, 1, 0),  # `floor(x + 0.5)` in floats gives 1
        (1, 9007199254740993, 1, 9007199254740993),  # 2**53 + 1 isn't a float
        (1.5, 6004799503160661, 1, 9007199254740992),  # nor is the product, ...991.5
    ],
)
def test_updates_are_the_nearest(epochs, num_examples, batch_size, updates):
    size = {"num_examples": num_examples, "batch_size": batch_size}
    received = epochs_to_updates(epochs, **size)
    assert received == updates
    assert type(received) is int


def test_updates_against_exact_fractions():
    rng = random.Random(0)
    for _ in range(2000):
        epochs = rng.choice([rng.uniform(0, 100), rng.randrange(2**10) / 2**6])
        num_examples = rng.randrange(1, 10 ** rng.randrange(1, 12))
        batch_size = rng.choice([rng.randrange(1, 70000), 2 ** rng.randrange(17)])
        exact = Fraction(epochs) * num_examples / batch_size
        received = epochs_to_updates(epochs, num_examples=num_examples, batch_size=batch_size)
        assert received == math.floor(exact + Fraction(1, 2)), (epochs, num_examples, batch_size)


def test_epochs_and_updates_are_inverse():
    size = {"num_examples": 1281167, "batch_size": 512}
    for updates in (0, 1, 781, 782, 15625, 10**8, 2**24 + 1):
        epochs = updates_to_epochs(updates, **size)
        assert epochs == pytest.approx(updates * 512 / 1281167, rel=1e-15)
        assert epochs_to_updates(epochs, **size) == updates


def test_numpy_numbers_are_numbers():
    row = legw(
        np.float64(0.1), np.int64(2), base_batch_size=np.int32(256), batch_size=np.int64(1024)
    )
    assert row == (1024, 0.2, 8.0)
    assert [type(field) for field in row] == [int, float, float]


SIZES = {"base_batch_size": 256, "batch_size": 512}
COUNTS = {"num_examples": 100, "batch_size": 10}


@pytest.mark.parametrize(
    "call, words",
    [
        (
            lambda: scale_learning_rate(0, **SIZES),
            "learning_rate must be a finite number above 0. Received: learning_rate=0. Pass",
        ),
        (lambda: scale_learning_rate(-0.1, **SIZES), "Received: learning_rate=-0.1"),
        (lambda: scale_learning_rate(math.inf, **SIZES), "Received: learning_rate=inf"),
        (lambda: scale_learning_rate(math.nan, **SIZES), "Received: learning_rate=nan"),
        (lambda: scale_learning_rate("0.1", **SIZES), "Received: learning_rate='0.1'"),
        (lambda: scale_learning_rate(None, **SIZES), "Received: learning_rate=None"),
        (lambda: scale_learning_rate(True, **SIZES), "Received: learning_rate=True"),
        (
            lambda: scale_learning_rate(0.1, base_batch_size=256, batch_size=512.5),
            "batch_size must be a whole number of at least 1. Received: batch_size=512.5. Pass an",
        ),
        (lambda: scale_learning_rate(0.1, base_batch_size=0, batch_size=1), "base_batch_size=0"),
        (lambda: scale_learning_rate(0.1, base_batch_size=1, batch_size=-1), "batch_size=-1"),
        (lambda: scale_learning_rate(0.1, base_batch_size=True, batch_size=1), "size=True"),
        (
            lambda: scale_learning_rate(0.1, **SIZES, rule="square"),
            r"rule must be one of \('linear', 'sqrt', 'none'\). Received: rule='square'",
        ),
        (lambda: legw(0.1, 1, **SIZES, rule=None), "rule must be one of .* Received: rule=None"),
        (
            lambda: legw(0.1, -1, **SIZES),
            "warmup_epochs must be a finite number of at least 0. Received: warmup_epochs=-1",
        ),
        (lambda: epochs_to_updates(-1, **COUNTS), "epochs must be .* Received: epochs=-1"),
        (lambda: epochs_to_updates(1, num_examples=0, batch_size=1), "num_examples=0"),
        (lambda: updates_to_epochs(1.5, **COUNTS), "updates must be .* Received: updates=1.5"),
        (lambda: updates_to_epochs(-1, **COUNTS), "whole number of at least 0. Received: upd"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
