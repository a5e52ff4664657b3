"""Examples a second by micro-batch size on this machine, each size in a process of its own.

A size that is too large then ends its process and not the plan: it is a result.
"""

import json
import os
import re
import subprocess
import sys
from typing import NamedTuple

from tf_largebatch.costs import Measured

_OUT_OF_MEMORY = re.compile(
    r"ResourceExhausted|RESOURCE_EXHAUSTED|OOM when|[Oo]ut of memory|bad_alloc|MemoryError|"
    r"Cannot allocate memory|failed to allocate|DefaultCPUAllocator"
)
_KILLED = (-9, 137)  # by the system, which does so when memory runs out


class Trial(NamedTuple):
    """What became of one size: "measured", "out of memory", or "not tried" beyond that."""

    micro_batch_size: int
    state: str
    seconds: float | None = None  # of one update of that batch
    examples_per_second: float | None = None


class TrialFailed(RuntimeError):
    """A process ended otherwise than by its memory."""


def sizes_of(text):
    """The sizes that --measure names: "16:512" is 16, 32, ... 512.

    Raises:
        ValueError: if it isn't two whole numbers, the first at least 1 and not above the other.

    >>> sizes_of("16:100")
    (16, 32, 64)
    """
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    first, last = map(int, match.groups()) if match else (1, 0)
    if first > last:
        raise ValueError(
            "--measure must be the smallest and the largest micro-batch size, such as 16:512; "
            f"between them the size doubles. Received: {text}."
        )
    sizes = [first]
    while 2 * sizes[-1] <= last:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def measure(job, sizes, *, memory_limit_gib=None, environment=None):
    """A `Trial` for each size, the smallest first; after the first that doesn't fit none is tried.

    Args:
        job: the `Job`; it has a model, and one sequence length or none.
        sizes: micro-batch sizes, increasing.
        memory_limit_gib: what training may take, in GiB of address space beyond what the process
            holds when the model has been made; None: what the system gives.
        environment: of the processes; None: this one's.

    Raises:
        TrialFailed: if a process ends otherwise than by its memory; its message is the reason.
    """
    environment = dict(os.environ if environment is None else environment)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    found = []
    for size in sizes:
        if found and found[-1].state != "measured":
            found.append(Trial(size, "not tried"))
            continue
        order = {
            "model": job.model._asdict(), "optimizer": job.settings[0].optimizer,
            "jit": job.jit,
            "sequence_length": job.sequence_lengths[0], "micro_batch_size": size,
            "memory_limit_gib": memory_limit_gib,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "tf_largebatch.plan._trial"],
            input=json.dumps(order), env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found.append(_trial(size, done))
    return tuple(found)


def points(trials):
    """The trials that were measured, as the cost model takes them."""
    return tuple(Measured(t.micro_batch_size, t.seconds) for t in trials if t.state == "measured")


def _trial(size, done):
    if done.returncode == 0:
        seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
        return Trial(size, "measured", seconds, size / seconds)
    if done.returncode in _KILLED or _OUT_OF_MEMORY.search(done.stderr):
        return Trial(size, "out of memory")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise TrialFailed(f"The trial of micro-batch size {size} failed: {last}")
