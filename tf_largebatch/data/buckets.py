"""Batches of examples of like length, so that little of them is padding.

A source that wants this has `lengths`, (num_examples,) whole numbers, and `bucket_boundaries`, such
as (8, 16, 32): an example belongs to the first bucket whose boundary its length doesn't exceed. Its
`read(examples, keys, length)` then takes the length, a scalar tensor, to which the batch is padded.
Without boundaries, `()`, all batches have the one static length that TPUs ask for.

The updates of an epoch are cut into windows, all of about the same number, at most 64. Within a
window the examples are sorted by bucket, and otherwise left in the shuffled order; then they are
cut into batches, and the seed shuffles those. A window ends where an epoch does. So each example
still comes once an epoch, the order is a function of (seed, batch size, update) alone, and a run
resumes anywhere. Each worker works out all of the window, and so knows the length of every global
batch: replicas and workers all see the same.
"""

import itertools

import numpy as np
import tensorflow as tf

from tf_largebatch.scaling import check_count

WINDOW_UPDATES = 64  # at most; sorting a window that long leaves few batches of two buckets

_BOUNDARIES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def boundaries_up_to(longest):
    """Boundaries of which at most a third is padding, for lengths from 4 to 1,024.

    Args:
        longest: The static length, which becomes the last boundary.

    >>> boundaries_up_to(50)
    (4, 6, 8, 12, 16, 24, 32, 48, 50)
    """
    longest = check_count("longest", longest)
    return (*(boundary for boundary in _BOUNDARIES if boundary < longest), longest)


def bucket_of_each(source):
    """The number of each example's bucket.

    Args:
        source: Has `name`, `num_examples`, `lengths` and `bucket_boundaries`.

    Returns:
        (num_examples,) int32 array.

    Raises:
        ValueError: If the boundaries don't rise from 1 or more, or the lengths don't fit them.
    """
    boundaries = np.array([check_count("bucket_boundaries", b) for b in source.bucket_boundaries])
    if (np.diff(boundaries) <= 0).any():
        raise ValueError(
            f"bucket_boundaries of {source.name} must rise. Received: {source.bucket_boundaries}."
        )
    lengths = np.asarray(source.lengths)
    if lengths.shape != (source.num_examples,) or lengths.max() > boundaries[-1]:
        raise ValueError(
            f"{source.name} must have a length for each of its {source.num_examples} examples, at "
            f"most the last boundary, {boundaries[-1]}. Received: {lengths.size} lengths up to "
            f"{lengths.max()}."
        )
    return np.searchsorted(boundaries, lengths).astype(np.int32)


def window_starts(num_examples, global_batch_size, first_update, total_updates):
    """The first update of each window, and behind them the end of the last one.

    Args:
        num_examples: Examples in one epoch.
        global_batch_size: Examples per update, at most `num_examples`.
        first_update, total_updates: The windows hold all updates from the first on and below the
            second; they may begin before and end after.

    Returns:
        (windows + 1,) int64 array that rises.

    >>> window_starts(1000, 10, 60, 110)  # epochs of 100 updates, two windows each
    array([ 50, 100, 150])
    """
    first_epoch = first_update * global_batch_size // num_examples
    last_epoch = max(total_updates - 1, first_update) * global_batch_size // num_examples
    # Epoch e begins where no update takes examples of an earlier one any more.
    epochs = np.arange(first_epoch, last_epoch + 2, dtype=np.int64)
    begins = -(-epochs * num_examples // global_batch_size)
    starts = []
    for begin, end in itertools.pairwise(begins):
        windows = -(-(end - begin) // WINDOW_UPDATES)
        starts += (begin + (end - begin) * np.arange(windows) // windows).tolist()
    starts = np.array([*starts, begins[-1]], np.int64)
    first = np.searchsorted(starts, first_update, side="right") - 1
    last = np.searchsorted(starts, max(total_updates, first_update + 1))
    return starts[first : last + 1]


def bucketed_updates(
    source, example_at, shuffled, *, global_batch_size, seed, first_update, total_updates
):
    """For each update, which places of the stream it takes, and the length of its batch.

    Args:
        source: As above.
        example_at: Function from places, (n,) int64, to the examples there, in graph code.
        shuffled: Function from (numbers, key, count), (n,) int64, (3,) uint32 and () int64, to each
            number's place in the permutation of 0 ... count - 1 that the key chooses.
        global_batch_size, seed, first_update, total_updates: As for `training_batches`.

    Returns:
        A `tf.data.Dataset` of `total_updates` - `first_update` pairs: places (global_batch_size,)
        int64 and the length, () int64.

    Raises:
        ValueError: As `bucket_of_each`.
    """
    with tf.device("CPU"):
        buckets = tf.constant(bucket_of_each(source))
        boundaries = tf.constant(source.bucket_boundaries, tf.int64)
    starts = window_starts(source.num_examples, global_batch_size, first_update, total_updates)
    # A spawn_key of three words: those of epochs have one or two.
    keys = [
        np.random.SeedSequence(seed, spawn_key=(int(start), 0, 0)).generate_state(3)
        for start in starts[:-1]
    ]

    def window(start, end, key):
        updates = end - start
        places = tf.range(start * global_batch_size, end * global_batch_size)
        bucket = tf.gather(buckets, example_at(places))
        by_bucket = tf.argsort(bucket, stable=True)
        number = tf.range(updates)  # of the batch, in the order of the buckets
        order = shuffled(number, key, updates)
        by_bucket = tf.gather(tf.reshape(by_bucket, (updates, global_batch_size)), order)
        longest = tf.reduce_max(tf.gather(bucket, by_bucket), axis=1)
        return tf.gather(places, by_bucket), tf.gather(boundaries, longest)

    windows = tf.data.Dataset.from_tensor_slices(
        (starts[:-1], starts[1:], np.array(keys, np.uint32).reshape(-1, 3))
    )
    # The next window is worked out while this one is consumed.
    updates = windows.map(window).prefetch(1).unbatch()
    count = total_updates - first_update
    chosen = updates.skip(first_update - int(starts[0])).take(count)
    return chosen.apply(tf.data.experimental.assert_cardinality(count))


def evaluation_lengths(source, batch_size):
    """The length of each batch of `batch_size` examples, in the source's order.

    Args:
        source: As above.
        batch_size: Examples per batch; the last one may have fewer.

    Returns:
        (batches,) int64 array.

    Raises:
        ValueError: As `bucket_of_each`.
    """
    firsts = np.arange(0, source.num_examples, batch_size)
    longest = np.maximum.reduceat(bucket_of_each(source), firsts)
    return np.array(source.bucket_boundaries, np.int64)[longest]
