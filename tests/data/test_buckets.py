"""Length buckets: each example once an epoch, one length for all in a step, little padding."""

import json
import math

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

LONGEST = 40


class Lengths:
    """A source that returns the examples' numbers and keys, padded to the batch's length."""

    name, task, model_arguments, bad_records, parallel_batches = "lengths", "translation", {}, {}, 2

    def __init__(self, num_examples, boundaries=(8, 12, 16, 24, 32, LONGEST), seed=0):
        self.num_examples = num_examples
        drawn = np.random.default_rng(seed).lognormal(2.5, 0.6, num_examples)
        self.lengths = np.clip(drawn, 1, LONGEST).astype(int)
        self.bucket_boundaries = boundaries

    def read(self, examples, keys=None, length=LONGEST):
        import tensorflow as tf

        numbers = tf.cast(examples, tf.int32)
        inputs = {"numbers": numbers, "keys": tf.zeros((1, 2), tf.int32) if keys is None else keys}
        wide = tf.tile(numbers[:, tf.newaxis], (1, length))
        return inputs, wide, tf.ones_like(wide, tf.float32)


def training(source, *, batch_size, updates, seed=0, first_update=0, **options):
    """A list of (numbers, length, keys), one for each update."""
    from tf_largebatch.data.batches import training_batches

    batches = training_batches(
        source, global_batch_size=batch_size, seed=seed, first_update=first_update,
        total_updates=updates, **options,
    )  # fmt: skip
    assert len(batches) == updates - first_update
    return [
        (inputs["numbers"].tolist(), wide.shape[1], inputs["keys"].tolist())
        for inputs, wide, _ in batches.as_numpy_iterator()
    ]


def flat(found):
    return [number for numbers, _, _ in found for number in numbers]


SIZES = [(400, 4), (403, 10), (97, 16), (50, 50), (5, 3), (1, 1)]


@pytest.mark.parametrize("n, batch_size", SIZES)
def test_each_example_comes_once_an_epoch(n, batch_size):
    """After the update that completes epoch e, each has come e + 1 times, or once more."""
    from tf_largebatch.data.batches import epoch_end_update

    ends = [epoch_end_update(e, num_examples=n, global_batch_size=batch_size) for e in range(4)]
    numbers = flat(training(Lengths(n), batch_size=batch_size, updates=ends[-1]))
    for epoch, end in enumerate(ends):
        times = np.bincount(numbers[: end * batch_size], minlength=n)
        assert times.min() == epoch + 1
        assert times.sum() - n * times.min() == end * batch_size - n * (epoch + 1) < batch_size


@pytest.mark.parametrize("n, batch_size", SIZES)
def test_an_epoch_without_remainder_holds_what_it_holds_without_buckets(n, batch_size):
    updates = n // math.gcd(n, batch_size)
    bucketed = training(Lengths(n), batch_size=batch_size, updates=updates)
    plain = training(Lengths(n, boundaries=()), batch_size=batch_size, updates=updates)
    assert sorted(flat(bucketed)) == sorted(flat(plain))
    # Keys are those of the example and its epoch, whatever batch it lies in.
    keys = ({tuple(k) for _, _, keys in found for k in keys} for found in (bucketed, plain))
    assert len(set(map(frozenset, keys))) == 1


@pytest.mark.parametrize("n, batch_size", SIZES)
def test_the_length_is_the_boundary_of_the_longest_example(n, batch_size):
    source = Lengths(n)
    for numbers, length, _ in training(source, batch_size=batch_size, updates=60):
        longest = max(source.lengths[number] for number in numbers)
        assert length == min(b for b in source.bucket_boundaries if b >= longest)


@pytest.mark.parametrize("pipelines", [2, 4])
def test_pipelines_hold_the_rows_of_one_batch_of_one_length(pipelines):
    options = {"batch_size": 8, "updates": 150, "first_update": 11}
    whole = training(Lengths(403), **options)
    parts = [
        training(Lengths(403), pipeline=i, num_pipelines=pipelines, **options)
        for i in range(pipelines)
    ]
    for (numbers, length, keys), *shares in zip(whole, *parts, strict=True):
        assert [number for share in shares for number in share[0]] == numbers
        assert {share[1] for share in shares} == {length}
        assert [key for share in shares for key in share[2]] == keys


@pytest.mark.parametrize("first_update", [1, 20, 33, 34, 41, 90, 120])
def test_starting_late_gives_the_tail_of_the_full_run(first_update):
    """In mid-window (of 34, 33 and 34 updates), where a window begins, and at the end."""
    full = training(Lengths(403), batch_size=4, updates=120)
    tail = training(Lengths(403), batch_size=4, updates=120, first_update=first_update)
    assert tail == full[first_update:]


def test_a_longer_run_begins_as_a_shorter_one():
    longer = training(Lengths(403), batch_size=4, updates=300)
    assert training(Lengths(403), batch_size=4, updates=75) == longer[:75]


def test_seeds_windows_and_epochs_have_orders_of_their_own():
    def lengths(**options):
        found = training(Lengths(640), batch_size=10, **options)
        return [length for _, length, _ in found]

    first = lengths(updates=192)
    assert first != lengths(updates=192, seed=1)
    windows = [tuple(first[low : low + 64]) for low in (0, 64, 128)]
    between = np.corrcoef(windows)[np.triu_indices(3, 1)]
    assert abs(between).max() < 4.5 / 64**0.5
    # The lengths come mixed: not rising, as they were sorted.
    rises = np.mean(np.diff(windows[0]) > 0)
    assert 0.2 < rises < 0.6


def test_the_batches_of_a_bucket_are_not_sorted_any_further():
    """Within a bucket the order is the shuffled one: neighbours in length aren't kept together."""
    source = Lengths(6400)
    found = training(source, batch_size=10, updates=640)
    spreads = []
    for numbers, length, _ in found:
        lengths = source.lengths[numbers]
        if length == 16 and lengths.min() > 12:
            spreads.append(lengths.std())
    in_bucket = source.lengths[(source.lengths > 12) & (source.lengths <= 16)]
    assert len(spreads) > 50
    np.testing.assert_allclose(np.mean(spreads), in_bucket.std(), rtol=0.15)


def test_little_is_padding():
    source = Lengths(6400)
    padded = real = 0
    for numbers, length, _ in training(source, batch_size=32, updates=400):
        padded += 32 * length
        real += source.lengths[numbers].sum()
    assert 1 - real / padded < 0.25
    assert 1 - source.lengths.mean() / LONGEST > 0.6  # without buckets


def test_evaluation_keeps_the_order_and_cuts_each_batch():
    from tf_largebatch.data.batches import evaluation_batches

    source = Lengths(23)
    source.lengths[:8] = 5
    parts = [
        list(
            evaluation_batches(
                source, batch_size=8, pipeline=i, num_pipelines=2
            ).as_numpy_iterator()
        )
        for i in range(2)
    ]
    numbers = []
    for batch, shares in enumerate(zip(*parts, strict=True)):
        longest = source.lengths[8 * batch : 8 * batch + 8].max()
        expected = min(b for b in source.bucket_boundaries if b >= longest)
        for inputs, wide, weights in shares:
            assert wide.shape == weights.shape == (4, expected)
            numbers += inputs["numbers"][weights[:, 0] == 1].tolist()
    assert numbers == list(range(23))


def test_evaluation_lengths_are_worked_by_hand():
    from tf_largebatch.data.buckets import evaluation_lengths

    source = Lengths(5, boundaries=(2, 4, 8))
    source.lengths = [1, 2, 3, 8, 4]
    assert evaluation_lengths(source, 2).tolist() == [2, 8, 4]
    assert evaluation_lengths(source, 7).tolist() == [8]


def test_windows_are_even_and_end_where_epochs_do():
    from tf_largebatch.data.buckets import WINDOW_UPDATES, window_starts

    for n, batch_size in [(1000, 10), (403, 4), (97, 16), (9, 9), (10_007, 3)]:
        starts = window_starts(n, batch_size, 0, 8 * n // batch_size + 64).tolist()
        sizes = np.diff(starts)
        assert starts[0] == 0 and sizes.min() >= 1 and sizes.max() <= WINDOW_UPDATES
        assert {-(-epoch * n // batch_size) for epoch in range(5)} <= set(starts)
        for first in range(0, 3 * n // batch_size, 7):
            part = window_starts(n, batch_size, first, first + 30).tolist()
            assert part[0] <= first < part[1] and part[-2] < first + 30 <= part[-1]
            assert part == starts[starts.index(part[0]) :][: len(part)]


def test_no_example_comes_twice_in_a_batch_that_could_hold_it_once():
    """Windows that ran over epochs would sort an example next to itself."""
    for numbers, _, _ in training(Lengths(100), batch_size=10, updates=200):
        assert len(set(numbers)) == 10


def test_another_process_sees_the_same_order(elsewhere):
    here = training(Lengths(403), batch_size=4, updates=90, seed=7)
    there = elsewhere("test_buckets", "training(Lengths(403), batch_size=4, updates=90, seed=7)")
    assert there == json.loads(json.dumps(here))


def test_the_order_is_pinned():
    # A checkpoint of an older version resumes exactly only while this stays what it is.
    found = training(Lengths(24, boundaries=(8, 12, 16, LONGEST)), batch_size=3, updates=9)
    assert [(numbers, length) for numbers, length, _ in found] == [
        ([9, 15, 12], 8), ([16, 10, 22], 8), ([0, 6, 7], 40), ([19, 21, 2], 40), ([23, 5, 18], 16),
        ([14, 4, 8], 8), ([3, 17, 1], 12), ([13, 11, 20], 12), ([5, 0, 18], 16),
    ]  # fmt: skip


def test_only_the_length_is_unknown_before():
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    train = training_batches(Lengths(23), global_batch_size=8, seed=0, total_updates=5)
    evaluate = evaluation_batches(Lengths(23), batch_size=8)
    for inputs, labels, weights in (train.element_spec, evaluate.element_spec):
        assert inputs["numbers"].shape.as_list() == [8]
        assert labels.shape.as_list() == weights.shape.as_list() == [8, None]


@pytest.mark.parametrize(
    "boundaries, changes, words",
    [
        ((8, 8, LONGEST), {}, "bucket_boundaries of lengths must rise. Received: .8, 8, 40."),
        ((0, LONGEST), {}, "bucket_boundaries must be a whole number of at least 1"),
        ((8, 16), {}, "23 examples, at most the last boundary, 16. Received: 23 lengths up to"),
        ((8, LONGEST), {"shuffle": "per_worker"}, "need shuffle='global'.*buckets=False"),
    ],
)
def test_what_does_not_fit_is_refused(boundaries, changes, words):
    with pytest.raises(ValueError, match=words):
        training(Lengths(23, boundaries), batch_size=4, updates=3, **changes)


def test_boundaries_end_with_the_longest():
    from tf_largebatch.data.buckets import boundaries_up_to

    for longest in (1, 5, 8, 9, 150, 4096):
        boundaries = boundaries_up_to(longest)
        assert boundaries[-1] == longest and sorted(set(boundaries)) == list(boundaries)
    boundaries = boundaries_up_to(1024)
    for length in range(4, 1025):
        bucket = min(b for b in boundaries if b >= length)
        assert 3 * (bucket - length) <= bucket
    with pytest.raises(ValueError, match="longest must be a whole number of at least 1"):
        boundaries_up_to(0)
