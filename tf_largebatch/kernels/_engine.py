"""Runs a local solver over partitions: batched on one device, or a group of them a replica.

The solver is one TensorFlow function over stacks of padded partitions. It talks to no other, so
replicas may take different numbers of iterations; only the results are sent, once, at the end.
"""

import time
from typing import NamedTuple

import numpy as np

from tf_largebatch.kernels._functions import gram_bytes, refuse_what_does_not_fit
from tf_largebatch.kernels._threads import one_thread
from tf_largebatch.kernels._workers import gather_arrays, local_replicas, number_of_workers

# Small partitions are solved together, as many as fit in so many bytes.
BATCH_BYTES = 64 * 2**20


class Problem:
    """One partition's arrays, made when it is its turn.

    Args:
        make: A function without arguments that returns {name: array}. `"K"` has n_samples rows and
            columns, the others n_samples rows. `"K"` may also be a function of the array
            to write the matrix into, so that it is in memory once.
        n_samples: Rows of the arrays; 0 for an empty partition.
        dtype: float64 or float32, of the Gram matrix.
    """

    def __init__(self, make, n_samples, dtype=np.float64):
        self.make, self.n_samples, self.dtype = make, int(n_samples), np.dtype(dtype)

    def __call__(self):
        return self.make()


class Batch(NamedTuple):
    """Problems of like size that are solved together."""

    indices: tuple  # of the problems
    slots: int  # at least as many: a few shapes, so that little is compiled
    n_padded: int  # rows of each slot


class Solved(list):
    """The results in the order of the problems, and `seconds`, one number a problem.

    Problems of one batch share its time by their work, n_samples * n_iter where the solver counts
    iterations, else n_samples squared; with `batch_bytes=0` each has its own.
    """

    seconds: np.ndarray


def solve_parts(
    solve, problems, *, strategy=None, ledger=None, memory_limit_bytes=None, verbose=0,
    batch_bytes=BATCH_BYTES, groups=None, n_matrices=1,
):  # fmt: skip
    """Solves all problems and returns their results on every worker.

    Args:
        solve: A function of {name: tensor (slots, n_padded, ...)} with `"valid"`, bool (slots,
            n_padded), that returns {name: tensor (slots, ...)}. Padding is zeros.
            A result of three axes, (slots, n_padded, ...), is cut to n_samples. While any of a
            result `"_going"` is true it is called again, with its results among the stacks: so a
            long one can be interrupted. Results that start with "_" are for the next call only.
        problems: A sequence of `Problem`.
        strategy: None: one device, batched over partitions of like size. A
            `tf.distribute.Strategy`: each replica takes a group of partitions, and each worker
            makes its own ones only.
        ledger: A `Ledger`; the results that workers send each other are booked as "collect".
        memory_limit_bytes: Of the stacks that are in memory at a time on this worker; None: what
            is available.
        verbose: Above 0: a line for each batch, and for each further call of the solver.
        batch_bytes: Partitions are solved together, as many as fit in these bytes or in the bytes
            of the largest partition's matrix. 0: one at a time.
        n_matrices: How many matrices of K's size are in memory while it is solved, K among them.
        groups: For each replica the numbers of the problems that it takes, where the data lie with
            the workers already; None: `groups_of`. Of others' problems nothing is asked.

    Returns:
        A `Solved` list of {name: ndarray}.

    Raises:
        MemoryError: If the largest stack would not fit, before anything is allocated.
    """
    problems = list(problems)
    if groups is None:
        groups = groups_of(problems, 1 if strategy is None else strategy.num_replicas_in_sync)
    mine = local_replicas(strategy)
    n_mine = sum(len(groups[replica]) for replica in mine)
    plans = {replica: batches(problems, groups[replica], batch_bytes) for replica in mine}
    _refuse(problems, plans, n_matrices, memory_limit_bytes)
    found, step = {}, solve if strategy is None else on_replicas(solve, strategy)
    for turn in range(max(map(len, plans.values()), default=0)):
        at_turn = {r: plan[turn] for r, plan in plans.items() if turn < len(plan)}
        found |= _run(step, problems, at_turn, strategy, verbose)
        if verbose:
            steps = [int(np.max(r["n_iter"])) for r, _ in found.values() if "n_iter" in r]
            counted = f", at most {max(steps)} iterations" if steps else ""
            print(f"[kernels] {len(found)}/{n_mine} problems solved{counted}", flush=True)
    if number_of_workers(strategy) > 1:
        found = _collect(found, strategy, ledger)
    solved = Solved(found[i][0] for i in range(len(problems)))
    solved.seconds = np.array([found[i][1] for i in range(len(problems))])
    return solved


def groups_of(problems, n_replicas):
    """Which problems each replica takes: the largest first, to the one with least work so far."""
    groups, work = [[] for _ in range(n_replicas)], np.zeros(n_replicas)
    for i in sorted(range(len(problems)), key=lambda i: (-problems[i].n_samples, i)):
        replica = int(np.argmin(work))
        groups[replica].append(i)
        work[replica] += float(problems[i].n_samples) ** 2 + 1
    return groups


def batches(problems, indices, batch_bytes=BATCH_BYTES):
    """`Batch`es of problems of like size, the largest first.

    Few shapes, since each may be compiled: the largest part's rows, half of them, a quarter, ...
    So a stack has at most the bytes of the largest part's matrix, or `batch_bytes`.
    """
    indices = sorted(indices, key=lambda i: (-problems[i].n_samples, i))
    planned, n_padded = [], 0
    while indices:
        largest = problems[indices[0]]
        while not n_padded or n_padded >= 2 * padded(largest.n_samples):
            n_padded = n_padded // 2 or padded(largest.n_samples)
        n_padded = max(n_padded, padded(1))
        most = max(1, batch_bytes // gram_bytes(n_padded, dtype=largest.dtype))
        taken = [i for i in indices[:most] if 2 * padded(problems[i].n_samples) > n_padded]
        slots = 1
        while slots < len(taken):
            slots *= 2
        planned.append(Batch(tuple(taken), min(slots, most), n_padded))
        indices = indices[len(taken) :]
    return planned


def padded(n_samples):
    """Rows after padding: at most 1/16 more from 512 on, in steps of 32 below.

    >>> [padded(n) for n in (1, 33, 1000, 8000)]
    [32, 64, 1024, 8192]
    """
    step = max(32, 2 ** max(0, int(n_samples).bit_length() - 5))
    return max(1, -(-int(n_samples) // step)) * step


def _refuse(problems, plans, n_matrices, memory_limit_bytes):
    """Each replica holds one stack at a time."""
    sizes = [
        [batch.slots * gram_bytes(batch.n_padded, dtype=_dtype(problems, batch)) for batch in plan]
        for plan in plans.values()
    ]
    largest = max((batch.n_padded for plan in plans.values() for batch in plan), default=0)
    factor = " with its factor" if n_matrices > 1 else ""
    replicas = f" on each of {len(plans)} replicas" if len(plans) > 1 else ""
    refuse_what_does_not_fit(
        n_matrices * sum(max(plan, default=0) for plan in sizes),
        f"The Gram matrix{factor} of the largest part, {largest} samples with padding,{replicas}",
        memory_limit_bytes,
    )


def _dtype(problems, batch):
    return problems[batch.indices[0]].dtype


def _run(step, problems, at_turn, strategy, verbose):
    """{problem: (result, seconds)} of one batch a replica."""
    began = time.perf_counter()
    stacks = {replica: _stack(problems, batch) for replica, batch in at_turn.items()}
    values = stacks[0] if strategy is None else replica_values(stacks, strategy)

    def of_replicas(value):
        """This process's replicas' arrays."""
        if strategy is None:
            return [value.numpy()]
        return [a.numpy() for a in strategy.experimental_local_results(value)]

    while True:
        # A concrete function: TensorFlow would warn of one that is traced for many shapes.
        call = step if strategy is None else step.get_concrete_function(values)
        with one_thread():  # of BLAS, which has no more to do here than blocks of a factor
            outputs = call(values)
        if "_going" not in outputs or not any(a.any() for a in of_replicas(outputs["_going"])):
            break
        values = values | outputs
        if verbose and "n_iter" in outputs:
            most = max(int(a.max()) for a in of_replicas(outputs["n_iter"]))
            print(f"[kernels] going on after {most} iterations", flush=True)
    arrays = {n: of_replicas(value) for n, value in outputs.items() if not n.startswith("_")}
    results = {}
    for replica, batch in at_turn.items():
        place = 0 if strategy is None else local_replicas(strategy).index(replica)
        mine = {name: of_each[place] for name, of_each in arrays.items()}
        # Replicas run at the same time, and the wall has the time of the slowest.
        results |= _cut(problems, batch, mine, time.perf_counter() - began)
    return results


def on_replicas(solve, strategy):
    """`solve` as a function of per-replica stacks: in one graph, so that replicas run at a time."""
    import tensorflow as tf

    return tf.function(lambda stacks: strategy.run(solve, args=(stacks,)), autograph=False)


def replica_values(stacks, strategy):
    """{replica: stacks} of this worker as per-replica values."""
    return {
        name: strategy.experimental_distribute_values_from_function(
            lambda context, name=name: _or_nothing(stacks, context, name)
        )
        for name in next(iter(stacks.values()))
    }


def _or_nothing(stacks, context, name):
    """This replica's stack; without one, an empty problem of the same rank."""
    import tensorflow as tf

    if context.replica_id_in_sync_group in stacks:
        return tf.identity(stacks[context.replica_id_in_sync_group][name])
    like = next(iter(stacks.values()))[name]
    n_padded = padded(1)
    shape = [1, n_padded, *like.shape[2:]]
    if name == "K":
        shape[2] = n_padded
    return tf.zeros(shape, like.dtype)


def _stack(problems, batch):
    """Aligned stacks of one batch, as tensors that share their memory."""
    import tensorflow as tf

    slots, n, stacks = batch.slots, batch.n_padded, {}
    stacks["valid"] = np.zeros((slots, n), bool)
    for slot, i in enumerate(batch.indices):
        m = problems[i].n_samples
        stacks["valid"][slot, :m] = True
        for name, array in problems[i]().items():
            if name not in stacks:
                is_square = name == "K"
                shape = (slots, n, n) if is_square else (slots, n, *array.shape[1:])
                dtype = problems[i].dtype if is_square else array.dtype
                stacks[name] = _aligned_zeros(shape, dtype)
            place = stacks[name][slot, :m, :m] if name == "K" else stacks[name][slot, :m]
            if callable(array):
                array(place)
            else:
                place[...] = array
    return {
        name: tf.constant(array)
        if array.dtype == bool
        else tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        for name, array in stacks.items()
    }


def _aligned_zeros(shape, dtype):
    """Zeros at an address that TensorFlow can use as it is: it would copy others."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(n_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def _cut(problems, batch, arrays, seconds):
    results = {}
    for slot, i in enumerate(batch.indices):
        m = problems[i].n_samples
        results[i] = {
            name: array[slot, :m] if array.ndim > 2 else array[slot]
            for name, array in arrays.items()
        }
    work = np.array(
        [
            problems[i].n_samples * (np.sum(results[i].get("n_iter", problems[i].n_samples)) + 1.0)
            for i in batch.indices
        ]
    )
    shares = work / work.sum() if work.sum() > 0 else np.full(len(work), 1 / len(work))
    return {
        i: (results[i], seconds * share) for i, share in zip(batch.indices, shares, strict=True)
    }


def _collect(found, strategy, ledger):
    """All workers' results on each."""
    flat = {f"{i}/{name}": a for i, (result, _) in found.items() for name, a in result.items()}
    flat |= {f"{i}//seconds": np.float64(seconds) for i, (_, seconds) in found.items()}
    gathered = {}
    for key, array in gather_arrays(flat, strategy, ledger=ledger).items():
        i, _, name = key.partition("/")
        result, seconds = gathered.get(int(i), ({}, 0.0))
        if name == "/seconds":
            seconds = float(array)
        else:
            result[name] = array
        gathered[int(i)] = result, seconds
    return gathered
