"""What the worker processes of a strategy tell each other outside of training: results, centres."""

import io

import numpy as np


def local_replicas(strategy):
    """The numbers, among all replicas, of those that this process runs."""
    if strategy is None:
        return [0]
    mine = []
    strategy.experimental_distribute_values_from_function(
        lambda context: mine.append(context.replica_id_in_sync_group) or 0
    )
    return mine


def number_of_workers(strategy):
    """How many processes share the strategy; 1 without one."""
    if strategy is None:
        return 1
    return strategy.num_replicas_in_sync // len(local_replicas(strategy))


def gather_arrays(arrays, strategy, *, ledger=None, phase="collect", what="results"):
    """All workers' named arrays on each of them.

    Their bytes go side by side into one sum that has zeros elsewhere, so arrays may have any shape
    and type but object; names must differ between workers.

    Args:
        arrays: {name: ndarray} of this worker.
        strategy: The `tf.distribute.Strategy` that the workers share; None or one worker's: nothing
            is sent.
        ledger, phase, what: Where and as what the bytes are booked: each worker's arrays go to each
            other worker.

    Returns:
        {name: ndarray} of all workers, in their order.
    """
    if number_of_workers(strategy) == 1:
        return dict(arrays)
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    text = archive.getvalue()
    words = np.frombuffer(text + bytes(-len(text) % 8), np.int64)
    me = local_replicas(strategy)[0] // len(local_replicas(strategy))
    sizes = np.zeros(number_of_workers(strategy), np.int64)
    sizes[me] = len(words)
    sizes = sum_over_workers(sizes, strategy)
    ends = np.cumsum(sizes)
    everyone = np.zeros(ends[-1], np.int64)
    everyone[ends[me] - sizes[me] : ends[me]] = words
    everyone = sum_over_workers(everyone, strategy)
    if ledger is not None:
        others = len(sizes) - 1
        ledger.record(
            phase, f"{what} between workers", n_bytes=others * int(8 * ends[-1]),
            n_messages=others * len(sizes),
        )  # fmt: skip
    gathered = {}
    for size, end in zip(sizes, ends, strict=True):
        with np.load(io.BytesIO(everyone[end - size : end].tobytes())) as found:
            gathered |= {name: found[name] for name in found.files}
    return gathered


def sum_over_workers(array, strategy):
    """The sum of the workers' arrays, on each; every worker counts once, whatever its replicas."""
    import tensorflow as tf

    first = local_replicas(strategy)[0]

    @tf.function(autograph=False)
    def total(values):
        return strategy.reduce("SUM", strategy.run(tf.identity, args=(values,)), axis=None)

    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            array if context.replica_id_in_sync_group == first else np.zeros_like(array)
        )
    )
    # Concrete: TensorFlow would warn of functions made again and again.
    return total.get_concrete_function(values)(values).numpy()
