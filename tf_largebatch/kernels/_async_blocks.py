"""Which thread owns which coordinate: the blocks S_t of Asy-GCD (thesis, section 4.4)."""

import numpy as np

from tf_largebatch.kernels.partition import make_partition

SAMPLES_OF_K_MEANS = 20_000


def thread_blocks(blocks, *, X, n, n_threads, random):
    """(n,) integers below n_threads: whose coordinate each is.

    Args:
        blocks: None, `"contiguous"`, a partition's name, a partitioner or labels, as `solve_box_qp`
            takes them.
        X: (n, n_features) samples that can be clustered, or None.
        n, n_threads: Coordinates and threads.
        random: A RandomState.

    Raises:
        ValueError: If these are no such labels, or there are no samples to cluster.

    >>> thread_blocks("contiguous", X=None, n=5, n_threads=2, random=None)
    array([0, 0, 0, 1, 1])
    """
    if n_threads == 1:
        return np.zeros(n, np.intp)
    if blocks is None or (isinstance(blocks, str) and blocks == "contiguous"):
        return np.arange(n) * n_threads // n
    if isinstance(blocks, str) or hasattr(blocks, "fit"):
        if X is None:
            raise ValueError(
                'Samples can be clustered where Q is a KernelMatrix. Give blocks="contiguous" or '
                f"one label for each row of Q. Received: blocks={blocks!r}."
            )
        partition = make_partition(
            blocks, n_parts=n_threads, random_state=random.randint(2**31 - 1)
        )
        if isinstance(blocks, str) and blocks == "kmeans" and n > SAMPLES_OF_K_MEANS:
            chosen = random.choice(n, SAMPLES_OF_K_MEANS, replace=False)
            return partition.fit(X[np.sort(chosen)]).predict(X)
        return partition.fit(X).labels_
    labels = np.asarray(blocks)
    is_good = labels.shape == (n,) and labels.dtype.kind in "iu"
    if not is_good or not (labels.min() >= 0 and labels.max() < n_threads):
        raise ValueError(
            f"blocks must be {n} integers from 0 to n_threads - 1 = {n_threads - 1}. Received: "
            f"{labels.dtype} of shape {labels.shape}."
        )
    return labels
