"""How a global batch is laid out: global batch = micro batch x accumulation x replicas."""

from typing import NamedTuple

from tf_largebatch.scaling import check_count


class BatchPlan(NamedTuple):
    """Each of `replicas` runs `accumulation` micro-batches of `micro_batch_size` an update."""

    global_batch_size: int
    replicas: int
    accumulation: int
    micro_batch_size: int

    @property
    def batch_per_replica(self):
        """Examples that one replica sees in an update."""
        return self.accumulation * self.micro_batch_size


def plan_batch(global_batch_size, *, replicas, micro_batch_size=None):
    """The layout of a global batch, or a refusal that names the nearest ones.

    Args:
        global_batch_size: examples an update.
        replicas: how many devices share it.
        micro_batch_size: examples that a replica holds in memory at a time; None: its whole share.

    Raises:
        ValueError: if the global batch isn't a whole number of micro-batches on every replica.

    >>> plan_batch(32768, replicas=8, micro_batch_size=512).accumulation
    8
    """
    global_batch_size = check_count("global_batch_size", global_batch_size)
    replicas = check_count("replicas", replicas)
    if micro_batch_size is None:
        unit, of_what = replicas, f"the {replicas} replicas"
    else:
        micro_batch_size = check_count("micro_batch_size", micro_batch_size)
        unit = replicas * micro_batch_size
        of_what = f"{replicas} replicas x micro_batch_size {micro_batch_size} = {unit}"
    if global_batch_size % unit:
        below = global_batch_size - global_batch_size % unit
        nearest = [size for size in (below, below + unit) if size]
        share = global_batch_size // replicas
        divisors = [d for d in range(1, share + 1) if share % d == 0]
        other = ""
        if micro_batch_size is not None and global_batch_size % replicas == 0:
            closest = sorted(divisors, key=lambda d: abs(d - micro_batch_size))[:2]
            other = f" Or nearest micro_batch_size: {', '.join(map(str, sorted(closest)))}."
        raise ValueError(
            f"global_batch_size must be divisible by {of_what}. Received: {global_batch_size}. "
            f"Nearest: {', '.join(map(str, nearest))}.{other}"
        )
    share = global_batch_size // replicas
    micro_batch_size = micro_batch_size or share
    return BatchPlan(global_batch_size, replicas, share // micro_batch_size, micro_batch_size)
