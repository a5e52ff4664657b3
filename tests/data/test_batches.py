"""The order of the examples: each once an epoch, the same wherever and however it is read."""

import numpy as np
import pytest

from tf_largebatch.data.source import ArraySource

pytestmark = pytest.mark.tensorflow


class Keys:
    """A source that returns the keys of its examples as images."""

    name, task, num_classes, bad_records, parallel_batches = "keys", "classification", 1, {}, 2

    def __init__(self, num_examples):
        self.num_examples = num_examples

    def read(self, examples, keys=None):
        import tensorflow as tf

        return keys, tf.cast(examples, tf.int32), tf.ones_like(examples, tf.float32)


def test_a_later_phase_goes_on_where_the_epochs_before_it_ended():
    from tf_largebatch.data.batches import training_batches

    source = numbered(7)
    sizes = {"global_batch_size": 7, "seed": 3}
    whole = training_batches(source, **sizes, total_updates=5)
    later = training_batches(source, **sizes, total_updates=3, start_epoch=2)
    labels = [labels.tolist() for _, labels in whole.as_numpy_iterator()]
    assert [labels.tolist() for _, labels in later.as_numpy_iterator()] == labels[2:]
    source = Keys(7)
    keys = [
        keys.tolist()
        for keys, _ in training_batches(source, **sizes, total_updates=5).as_numpy_iterator()
    ]
    found = training_batches(source, **sizes, total_updates=3, start_epoch=2)
    assert [keys.tolist() for keys, _ in found.as_numpy_iterator()] == keys[2:]


def numbered(n):
    """A source whose labels are the record numbers, and whose images carry them too."""
    images = np.arange(n, dtype="float32")[:, np.newaxis, np.newaxis] + [[0.25, 0.5]]
    return ArraySource("numbers", images, np.arange(n), num_classes=n)


def stream(n, *, batch_size, seed=0, updates, first_update=0):
    """The record numbers in the order in which training sees them."""
    from tf_largebatch.data.batches import training_batches

    batches = training_batches(
        numbered(n),
        global_batch_size=batch_size,
        seed=seed,
        first_update=first_update,
        total_updates=updates,
    )
    return [int(label) for _, labels in batches.as_numpy_iterator() for label in labels]


def epochs(n, count, *, seed=0, batch_size=None):
    """(count, n) the record numbers of the first epochs."""
    batch_size = batch_size or n
    flat = stream(n, batch_size=batch_size, seed=seed, updates=-(-n * count // batch_size))
    return np.array(flat[: n * count]).reshape(count, n)


@pytest.mark.parametrize("n, batch_size", [(24, 8), (24, 24), (24, 7), (23, 10), (5, 3), (1, 1)])
def test_each_epoch_sees_each_example_exactly_once(n, batch_size):
    for epoch in epochs(n, 6, batch_size=batch_size):
        assert sorted(epoch) == list(range(n))


@pytest.mark.parametrize("pipelines", [2, 4])
def test_pipelines_hold_the_rows_of_every_batch_in_order(pipelines):
    """Side by side, the parts are the batches of one pipeline; also where an epoch ends within."""
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    training = {"global_batch_size": 8, "seed": 1, "first_update": 2, "total_updates": 9}
    for make, options in ((training_batches, training), (evaluation_batches, {"batch_size": 8})):
        whole = make(numbered(23), **options).as_numpy_iterator()
        parts = [
            make(numbered(23), pipeline=i, num_pipelines=pipelines, **options).as_numpy_iterator()
            for i in range(pipelines)
        ]
        count = 0
        for batch, *shares in zip(whole, *parts, strict=True):
            for expected, *arrays in zip(batch, *shares, strict=True):
                np.testing.assert_array_equal(np.concatenate(arrays), expected)
            count += 1
        assert count == {training_batches: 7, evaluation_batches: 3}[make]


@pytest.mark.parametrize("n, pipelines", [(24, 4), (23, 2), (9, 8)])
def test_per_worker_each_pipeline_shuffles_a_part_of_its_own(n, pipelines):
    from tf_largebatch.data.batches import training_batches

    def parts(seed=0, **options):
        options = {"global_batch_size": 8, "total_updates": 3 * n, **options}
        datasets = [
            training_batches(
                numbered(n), seed=seed, shuffle="per_worker", pipeline=i, num_pipelines=pipelines,
                **options,
            )
            for i in range(pipelines)
        ]  # fmt: skip
        return [
            np.concatenate([labels for _, labels in dataset.as_numpy_iterator()])
            for dataset in datasets
        ]

    shares, whole = [], parts()
    for part in whole:
        share = sorted(set(part))
        shares += share
        count = len(part) // len(share)
        epochs = part[: count * len(share)].reshape(count, len(share))
        assert all(sorted(epoch) == share for epoch in epochs)
        assert len(share) < 3 or len({tuple(epoch) for epoch in epochs}) > 1
    assert shares == list(range(n))  # neighbours, so that a worker needs few files
    assert {len(set(part)) for part in whole} <= {n // pipelines, -(-n // pipelines)}
    for part, tail, other in zip(whole, parts(first_update=5), parts(seed=1), strict=True):
        assert part[5 * 8 // pipelines :].tolist() == tail.tolist()
        assert len(set(part)) < 3 or part.tolist() != other.tolist()


def test_pipelines_of_equal_shards_have_orders_of_their_own():
    from tf_largebatch.data.batches import training_batches

    def order(pipeline):
        batches = training_batches(
            numbered(40), global_batch_size=20, seed=0, total_updates=2, shuffle="per_worker",
            pipeline=pipeline, num_pipelines=2,
        )  # fmt: skip
        return np.concatenate([labels for _, labels in batches.as_numpy_iterator()])

    assert (order(0) + 20).tolist() != order(1).tolist()


def keys_of(n, *, batch_size, updates, seed=0, **options):
    """{(epoch, example): key} and the number of keys seen."""
    from tf_largebatch.data.batches import training_batches

    batches = training_batches(
        Keys(n), global_batch_size=batch_size, seed=seed, total_updates=updates, **options
    )
    found, times = {}, [0] * n
    for keys, labels in batches.as_numpy_iterator():
        for key, example in zip(keys.tolist(), labels.tolist(), strict=True):
            found[times[example], example] = tuple(key)
            times[example] += 1
    return found


def test_each_example_has_a_key_of_its_own_in_each_epoch():
    found = keys_of(50, batch_size=10, updates=50, seed=3)
    assert len(found) == 500 and len(set(found.values())) == 500
    assert not set(found.values()) & set(keys_of(50, batch_size=10, updates=50).values())


def test_keys_do_not_depend_on_how_the_stream_is_cut():
    found = keys_of(24, batch_size=6, updates=16)
    assert keys_of(24, batch_size=8, updates=12) == found
    assert keys_of(24, batch_size=24, updates=4, prefetch=0) == found
    for shuffle in ("global", "per_worker"):
        parts = [
            keys_of(24, batch_size=8, updates=12, pipeline=i, num_pipelines=2, shuffle=shuffle)
            for i in range(2)
        ]
        if shuffle == "per_worker":
            assert parts[0] | parts[1] == found
        else:
            assert set(parts[0].values()) | set(parts[1].values()) == set(found.values())


def test_keys_are_random_bits_and_pinned():
    keys = np.array(list(keys_of(4000, batch_size=4000, updates=2).values()), np.int32)
    bits = np.unpackbits(keys.view(np.uint8), axis=1, bitorder="little")  # (8000, 64)
    assert (bits[:, 62:] == 0).all()
    bits = bits[:, :62].astype(float)
    assert abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / 8000**0.5
    between = np.corrcoef(np.hstack([bits[1:], bits[:-1]]).T)[np.triu_indices(124, 1)]
    assert abs(between).max() < 5 / 8000**0.5
    # A checkpoint of an older version resumes exactly only while these stay what they are.
    assert keys_of(10, batch_size=10, updates=1)[0, 3] == (-1030144769, 1026179918)


def test_images_travel_with_their_labels():
    from tf_largebatch.data.batches import training_batches

    batches = training_batches(numbered(23), global_batch_size=10, seed=3, total_updates=9)
    for images, labels in batches.as_numpy_iterator():
        np.testing.assert_array_equal(images, labels[:, np.newaxis, np.newaxis] + [[0.25, 0.5]])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(row) for seed in range(4) for row in epochs(50, 10, seed=seed)]
    assert len(set(orders)) == 40


def test_orders_do_not_come_back_after_256_seeds_or_epochs():
    # The cipher reads 8 bits of each word of its key: raw (seed, epoch) would repeat here.
    first, last = epochs(50, 257, seed=1)[[0, 256]]
    assert first.tolist() != last.tolist()
    assert epochs(50, 1, seed=257).tolist() != epochs(50, 1, seed=1).tolist()
    assert epochs(50, 1, seed=2**40).tolist() != epochs(50, 1, seed=0).tolist()


@pytest.mark.parametrize("n", [1437, 60_000])
def test_orders_look_random(n):
    # Correlations of n pairs are normal with deviation 1/sqrt(n). With the 4 rounds of the public
    # index_shuffle, neighbouring epochs of 60,000 examples stand at 100 deviations and more.
    orders = epochs(n, 8)
    rows = np.vstack([np.arange(n), orders])  # the stored order is one more
    between = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    neighbours = [np.corrcoef(order[1:], order[:-1])[0, 1] for order in orders]
    assert abs(np.sqrt(n) * np.array([*between, *neighbours])).max() < 4.5


def test_order_does_not_depend_on_the_batch_size():
    expected = stream(23, batch_size=1, updates=100)
    for batch_size in (2, 4, 10, 20):
        assert stream(23, batch_size=batch_size, updates=100 // batch_size) == expected


@pytest.mark.parametrize("first_update", [0, 1, 4, 7, 12])
def test_starting_late_gives_the_tail_of_the_full_run(first_update):
    full = stream(23, batch_size=10, updates=12)
    tail = stream(23, batch_size=10, updates=12, first_update=first_update)
    assert tail == full[10 * first_update :]


def test_order_is_pinned():
    # A checkpoint of an older version resumes exactly only while these stay what they are.
    first, second = [1, 3, 0, 5, 8, 6, 2, 9, 4, 7], [5, 9, 1, 6, 3, 0, 7, 8, 2, 4]
    assert stream(10, batch_size=10, seed=0, updates=2) == first + second
    assert stream(1_281_167, batch_size=4, seed=42, updates=1) == [167222, 1093662, 430787, 796092]


def test_another_process_sees_the_same_order(elsewhere):
    there = elsewhere("test_batches", "stream(23, batch_size=10, seed=7, updates=8)")
    assert there == stream(23, batch_size=10, seed=7, updates=8)


def test_reading_twice_gives_the_same():
    from tf_largebatch.data.batches import training_batches

    batches = training_batches(numbered(23), global_batch_size=10, seed=0, total_updates=9)
    once, twice = ([y.tolist() for _, y in batches.as_numpy_iterator()] for _ in range(2))
    assert once == twice


def test_shapes_are_static_and_the_length_is_known():
    from tf_largebatch.data.batches import evaluation_batches, training_batches

    source = numbered(23)
    train = training_batches(source, global_batch_size=10, seed=0, first_update=2, total_updates=9)
    evaluate = evaluation_batches(source, batch_size=10)
    assert [s.shape.as_list() for s in train.element_spec] == [[10, 1, 2], [10]]
    assert [s.shape.as_list() for s in evaluate.element_spec] == [[10, 1, 2], [10], [10]]
    assert [s.dtype.name for s in evaluate.element_spec] == ["float32", "int32", "float32"]
    assert (len(train), len(evaluate)) == (7, 3)


@pytest.mark.parametrize("n, batch_size, filling", [(24, 8, 0), (23, 10, 7), (3, 8, 5), (1, 1, 0)])
def test_evaluation_counts_each_example_once(n, batch_size, filling):
    from tf_largebatch.data.batches import evaluation_batches

    batches = list(evaluation_batches(numbered(n), batch_size=batch_size).as_numpy_iterator())
    images, labels, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert labels[mask == 1].tolist() == list(range(n))
    np.testing.assert_array_equal(images[:, 0, 0], labels + 0.25)
    assert (mask == 0).sum() == filling and set(mask) <= {0.0, 1.0}


def test_a_run_that_is_done_has_no_batches_left():
    assert stream(23, batch_size=10, updates=5, first_update=5) == []
    assert stream(23, batch_size=10, updates=0) == []


def test_epoch_end_update_is_the_first_that_completes_the_epoch():
    from tf_largebatch.data.batches import epoch_end_update

    for n, batch_size in [(24, 8), (23, 10), (5, 3)]:
        for epoch in range(5):
            end = epoch_end_update(epoch, num_examples=n, global_batch_size=batch_size)
            assert (end - 1) * batch_size < (epoch + 1) * n <= end * batch_size
            seen = stream(n, batch_size=batch_size, updates=end)
            assert set(seen[epoch * n : (epoch + 1) * n]) == set(range(n))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"global_batch_size": 24}, "Received: 24. The training split of numbers has 23 examples"),
        ({"global_batch_size": 0}, "global_batch_size must be a whole number of at least 1"),
        ({"global_batch_size": 8.0}, "Received: global_batch_size=8.0"),
        ({"seed": -1}, "seed must be a whole number of at least 0. Received: seed=-1"),
        ({"seed": None}, "Received: seed=None"),
        ({"first_update": 6}, "total_updates=5. Received: 6.*raise total_updates"),
        ({"first_update": -1}, "first_update must be a whole number of at least 0"),
        ({"total_updates": 2.5}, "Received: total_updates=2.5"),
        ({"num_pipelines": 3}, "divisible by num_pipelines.*global_batch_size=8, pipeline=0"),
        ({"pipeline": 2, "num_pipelines": 2}, "pipeline=2, num_pipelines=2"),
        ({"shuffle": "local"}, "one of global, per_worker. Received: 'local'"),
        ({"prefetch": -2}, "prefetch must be a whole number of at least -1"),
    ],
)
def test_training_batches_says_what_is_wrong(changes, words):
    from tf_largebatch.data.batches import training_batches

    arguments = {"global_batch_size": 8, "seed": 0, "total_updates": 5, **changes}
    with pytest.raises(ValueError, match=words):
        training_batches(numbered(23), **arguments)


def test_evaluation_batches_and_epoch_end_update_say_what_is_wrong():
    from tf_largebatch.data.batches import epoch_end_update, evaluation_batches

    with pytest.raises(ValueError, match="batch_size must be a whole number.*Received"):
        evaluation_batches(numbered(3), batch_size=0)
    with pytest.raises(ValueError, match="epoch must be a whole number of at least 0"):
        epoch_end_update(-1, num_examples=3, global_batch_size=1)
