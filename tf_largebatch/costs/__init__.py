"""What a run costs: operations, messages, bytes, seconds, memory, joules, in plain floats.

>>> from tf_largebatch import costs
>>> run = costs.run_cost(
...     updates=3_600_000, batch_size=32, parameters=26e6, operations_per_example=7.7e9
... )
>>> f"{run.messages:,} messages, {run.bytes_moved / 1e12:.0f} TB"  # slides, Table 2
'3,600,000 messages, 374 TB'
"""

from tf_largebatch.costs.all_reduce import (
    AllReduce,
    all_reduces,
    fastest,
    halving_doubling,
    recursive_doubling,
    ring,
    torus,
    torus_in_halves,
    torus_shape,
)
from tf_largebatch.costs.hardware import (
    DEVICES,
    LINK_WATTS,
    NETWORKS,
    Device,
    Network,
    device_named,
    network_named,
)
from tf_largebatch.costs.run import (
    BYTES_PER_GRADIENT,
    Energy,
    Memory,
    RunCost,
    UpdateTime,
    energy,
    memory,
    run_cost,
    scaling_ratio,
    update_time,
)
from tf_largebatch.costs.speed import Measured, fastest_micro_batch, knee, micro_batch_seconds

__all__ = [
    "BYTES_PER_GRADIENT",
    "DEVICES",
    "LINK_WATTS",
    "NETWORKS",
    "AllReduce",
    "Device",
    "Energy",
    "Measured",
    "Memory",
    "Network",
    "RunCost",
    "UpdateTime",
    "all_reduces",
    "device_named",
    "energy",
    "fastest",
    "fastest_micro_batch",
    "halving_doubling",
    "knee",
    "memory",
    "micro_batch_seconds",
    "network_named",
    "recursive_doubling",
    "ring",
    "run_cost",
    "scaling_ratio",
    "torus",
    "torus_in_halves",
    "torus_shape",
    "update_time",
]
