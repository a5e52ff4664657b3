"""Batches in an order that is a pure function of (seed, epoch, index).

The examples form one endless stream. Place p of the stream is in epoch p // n, where n is the
number of examples, and holds example shuffle(p % n), where `shuffle` is the permutation that the
seed and that epoch choose. Update u consumes the places from u * global_batch_size on.

Three things follow. The stream is the same at every batch size, so runs that differ in nothing
else see the same data in the same order. A run resumes anywhere by naming the update; there is no
iterator to save. And a batch may straddle the end of an epoch, so no epoch drops its remainder:
each shows each example exactly once.

The key from which an example is augmented is a function of the same three, and so as indifferent to
batch size, workers and threads.

Sources with length buckets are the exception to the first: the updates of a window share its places
by length (`tf_largebatch.data.buckets`).
"""

import numpy as np
import tensorflow as tf

from tf_largebatch.data.buckets import bucketed_updates, evaluation_lengths
from tf_largebatch.scaling import check_count

# RandomIndexShuffle is a Feistel cipher on the index. Its public form, index_shuffle, takes no seed
# for each element (it pads the wrong axis) and fixes 4 rounds: at 60,000 examples neighbouring
# epochs then come out alike, correlation 0.77. From 8 rounds on they pass for random. 16 cost 1.6
# microseconds an example at 1,437 examples, 0.1 at 60,000.
_ROUNDS = 16


SHUFFLES = ("global", "per_worker")


def training_batches(
    source,
    *,
    global_batch_size,
    seed,
    first_update=0,
    total_updates,
    pipeline=0,
    num_pipelines=1,
    shuffle="global",
    start_epoch=0,
    prefetch=tf.data.AUTOTUNE,
):
    """The batches of the updates from `first_update` to `total_updates` - 1.

    Args:
        source: What to train on (`tf_largebatch.data.source`).
        global_batch_size: Examples per update, over all replicas; at most `source.num_examples`.
        seed: Integer of at least 0 that chooses the order of every epoch.
        first_update: Where to start: 0, or the number of updates done when resuming.
        total_updates: The number of updates in the full run.
        pipeline, num_pipelines: Of several workers each reads its own part of every global batch:
            the rows from pipeline * size on, where size = global_batch_size / num_pipelines.
        shuffle: `"global"`: all examples are in one order, which doesn't depend on how many the
            pipelines are. `"per_worker"`: each pipeline has 1 / num_pipelines of the examples, one
            next to the other, and shuffles those, so that a cache or a local disk need hold no
            more; another number of pipelines is another order. Either way each pipeline sees each
            of its examples once an epoch. Length buckets need `"global"`.
        start_epoch: The number of update 0's epoch: above 0 for a later phase of a run, so that it
            doesn't repeat the order and the keys of the phase before.
        prefetch: Batches to hold ready; `tf.data.AUTOTUNE` finds out, and 0 makes each batch only
            when it is asked for.

    Returns:
        A `tf.data.Dataset` of `total_updates` - `first_update` tuples (inputs, labels, weights), as
        the source reads them, with `size` examples each; of images (inputs, labels) alone, since
        all weigh the same. Where the source has length buckets, the length of each batch is its
        bucket's, the same for all pipelines.

    Raises:
        ValueError: If an argument isn't such a whole number, the batch is larger than the data,
            it isn't divisible by the pipelines, `first_update` lies beyond `total_updates`, or
            `shuffle` is unknown or doesn't fit the source.

    >>> from tf_largebatch.data.source import ArraySource
    >>> source = ArraySource("five", np.zeros((5, 1)), np.arange(5), num_classes=5)
    >>> batches = training_batches(source, global_batch_size=2, seed=1, total_updates=5)
    >>> [labels.tolist() for _, labels in batches.as_numpy_iterator()]
    [[0, 2], [4, 1], [3, 0], [1, 2], [4, 3]]
    """
    n = source.num_examples
    global_batch_size = check_count("global_batch_size", global_batch_size)
    seed = check_count("seed", seed, at_least=0)
    total_updates = check_count("total_updates", total_updates, at_least=0)
    first_update = check_count("first_update", first_update, at_least=0)
    if global_batch_size > n:
        raise ValueError(
            "global_batch_size must not exceed the number of examples. Received: "
            f"{global_batch_size}. The training split of {source.name} has {n} examples: pass at "
            f"most {n}."
        )
    if first_update > total_updates:
        raise ValueError(
            f"first_update must not lie beyond total_updates={total_updates}. Received: "
            f"{first_update}. The checkpoint is of a longer run: raise total_updates."
        )

    start_epoch = check_count("start_epoch", start_epoch, at_least=0)
    prefetch = check_count("prefetch", prefetch, at_least=tf.data.AUTOTUNE)
    if shuffle not in SHUFFLES:
        raise ValueError(f"shuffle must be one of {', '.join(SHUFFLES)}. Received: {shuffle!r}.")
    has_buckets = bool(getattr(source, "bucket_boundaries", ()))
    if has_buckets and shuffle != "global":
        raise ValueError(
            "Length buckets need shuffle='global': each worker must know the length of the whole "
            f"batch. Received: shuffle={shuffle!r}. Or load {source.name} with buckets=False."
        )
    size = _size_of_part("global_batch_size", global_batch_size, pipeline, num_pipelines)
    if shuffle == "global":  # places of a stream of all the examples
        low, high, stride, offset, own = 0, n, global_batch_size, pipeline * size, ()
    else:  # of a stream of this pipeline's
        low, high = (i * n // num_pipelines for i in (pipeline, pipeline + 1))
        stride, offset, own = size, 0, (pipeline,)
    n = high - low
    first_epoch = first_update * stride // n
    # The last window of buckets may reach into one epoch more.
    epochs = range(first_epoch, -(-total_updates * stride // n) + has_buckets)
    numbers = [start_epoch + epoch for epoch in epochs]
    order_keys = tf.constant(_epoch_words(seed, numbers, own)[:, :3])  # (epochs, 3)
    augmentation_keys = tf.constant(_epoch_words(seed, numbers)[:, 3:])

    def example_at(places):
        keys = tf.gather(order_keys, places // n - first_epoch)
        return low + _permuted(places % n, keys, n)

    def read(places, *length):
        places = tf.ensure_shape(places, (size,))
        examples = example_at(places)
        keys = tf.gather(augmentation_keys, places // n - first_epoch)
        keys = tf.bitcast(_permuted(examples, keys, 2**62), tf.int32)
        inputs, labels, weights = source.read(examples, keys, *length)
        return (inputs, labels) if source.task == "classification" else (inputs, labels, weights)

    if has_buckets:
        updates = bucketed_updates(
            source, example_at, _permuted, global_batch_size=global_batch_size, seed=seed,
            first_update=first_update, total_updates=total_updates,
        )  # fmt: skip
        updates = updates.map(lambda places, length: (places[offset : offset + size], length))
        return _in_order(updates, read, source, prefetch)

    def batch(update):
        return read(update * stride + offset + tf.range(size, dtype=tf.int64))

    return _in_order(tf.data.Dataset.range(first_update, total_updates), batch, source, prefetch)


def evaluation_batches(source, *, batch_size, pipeline=0, num_pipelines=1):
    """Every example exactly once, in the source's order, in batches of one shape.

    The last batch is filled with copies of the last example, whose weights are 0: pass them as
    `sample_weight`.

    Args:
        source: What to evaluate on.
        batch_size: Examples per batch, over all replicas; may exceed `source.num_examples`.
        pipeline, num_pipelines: As in `training_batches`: this worker's part of every batch.

    Returns:
        A `tf.data.Dataset` of triples (inputs, labels, weights) as the source reads them, with
        size = batch_size / num_pipelines examples each; shapes static, but for the length where the
        source has length buckets: it is the bucket's of the longest in the batch.

    Raises:
        ValueError: If `batch_size` isn't a whole number of at least 1, or not divisible by the
            pipelines.

    >>> from tf_largebatch.data.source import ArraySource
    >>> source = ArraySource("five", np.zeros((5, 1)), np.arange(5), num_classes=5)
    >>> for _, labels, mask in evaluation_batches(source, batch_size=3).as_numpy_iterator():
    ...     print(labels, mask)
    [0 1 2] [1. 1. 1.]
    [3 4 4] [1. 1. 0.]
    """
    n = source.num_examples
    batch_size = check_count("batch_size", batch_size)
    size = _size_of_part("batch_size", batch_size, pipeline, num_pipelines)
    lengths = ()
    if getattr(source, "bucket_boundaries", ()):
        lengths = (tf.constant(evaluation_lengths(source, batch_size)),)

    def batch(number):
        places = number * batch_size + pipeline * size + tf.range(size, dtype=tf.int64)
        length = [tf.gather(each, number) for each in lengths]
        inputs, labels, weights = source.read(tf.minimum(places, n - 1), None, *length)
        real = tf.cast(places < n, tf.float32)
        return inputs, labels, tf.nest.map_structure(lambda w: _each(real, w) * w, weights)

    return _in_order(tf.data.Dataset.range(-(-n // batch_size)), batch, source)


def epoch_end_update(epoch, *, num_examples, global_batch_size):
    """The number of updates that complete epoch `epoch`: all its examples have then been seen.

    The last of them may have begun the next epoch.

    Args:
        epoch: Epochs count from 0.
        num_examples: Examples in one epoch.
        global_batch_size: Examples per update, over all replicas.

    Returns:
        ceil((epoch + 1) * num_examples / global_batch_size), an int.

    Raises:
        ValueError: If an argument isn't such a whole number.

    >>> [epoch_end_update(e, num_examples=1437, global_batch_size=256) for e in range(4)]
    [6, 12, 17, 23]
    """
    examples = (check_count("epoch", epoch, at_least=0) + 1) * check_count(
        "num_examples", num_examples
    )
    return -(-examples // check_count("global_batch_size", global_batch_size))


def _size_of_part(name, batch_size, pipeline, num_pipelines):
    num_pipelines = check_count("num_pipelines", num_pipelines)
    pipeline = check_count("pipeline", pipeline, at_least=0)
    if pipeline >= num_pipelines or batch_size % num_pipelines:
        raise ValueError(
            f"{name} must be divisible by num_pipelines, and pipeline below it. Received: "
            f"{name}={batch_size}, pipeline={pipeline}, num_pipelines={num_pipelines}."
        )
    return batch_size // num_pipelines


def _epoch_words(seed, epochs, own=()):
    """Six words for each epoch, (epochs, 6) uint32: the keys of its order and its augmentation.

    For up to 65,536 examples the cipher reads only the low 8 bits of each word, so with (seed,
    epoch) as the words, seeds 0 and 256 would order the data alike, and so would epochs 0 and 256.
    The hash of NumPy's SeedSequence, the same in every version, leaves 2^24 orders or more.
    """
    words = [
        np.random.SeedSequence(seed, spawn_key=(epoch, *own)).generate_state(6) for epoch in epochs
    ]
    return np.array(words, np.uint32).reshape(-1, 6)


def _each(factors, values):
    """One factor for each example, in as many dimensions as the values have."""
    return tf.reshape(factors, (-1, *[1] * (len(values.shape) - 1)))


def _permuted(numbers, keys, count):
    """Each number's place in the permutation of 0 ... count - 1 that its key chooses."""
    return tf.raw_ops.RandomIndexShuffle(
        index=numbers,
        seed=keys,
        max_index=tf.convert_to_tensor(count - 1, tf.int64),
        rounds=_ROUNDS,
    )


def _in_order(numbers, batch, source, prefetch=tf.data.AUTOTUNE):
    if prefetch == 0:
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return numbers.map(batch).with_options(options)
    batches = numbers.map(batch, num_parallel_calls=source.parallel_batches, deterministic=True)
    return batches.prefetch(prefetch)
