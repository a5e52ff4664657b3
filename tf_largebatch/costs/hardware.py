"""Networks and devices by name: latency, bandwidth, peak rate, power, each with its source."""

import difflib
from typing import NamedTuple

# Ours, an assumption: adapter and switch port of one device while it sends, in watts.
LINK_WATTS = 15.0


class Network(NamedTuple):
    """What one message costs: `latency_seconds` + bytes * `seconds_per_byte`, alpha and beta."""

    name: str
    latency_seconds: float
    seconds_per_byte: float
    source: str
    link_dimensions: int = 1  # 2: each device has links of its own for both dimensions of a torus

    @property
    def joules_per_byte(self):
        """Ours, an assumption: `LINK_WATTS` for as long as a byte takes."""
        return LINK_WATTS * self.seconds_per_byte


class Device(NamedTuple):
    """What a device can do at most; training reaches a part of it.

    float32: operations a second on float32 variables as TensorFlow multiplies them by default; on
    A100 and H100 that is TF32. half: the same in bfloat16 or float16 with float32 sums. A
    multiply-add is two operations. watts: of the whole device, or None if not printed.
    """

    name: str
    float32_operations_per_second: float
    half_operations_per_second: float
    watts: float | None
    source: str

    def seconds_per_operation(self, precision="float32"):
        """Time per operation at the peak, the thesis's gamma, for a recipe's `precision`.

        >>> f"{DEVICES['p100'].seconds_per_operation():.1g}"  # thesis, Table 5.8
        '9e-14'
        """
        full = precision == "float32"
        rate = self.float32_operations_per_second if full else self.half_operations_per_second
        return 1 / rate


_TABLE_5_8 = "Y. You, UCB/EECS-2020-136 (2020), Table 5.8"
_OUR_LATENCY = "latency ours, an assumption"

# The table doesn't say seconds a what. It is a byte: by section 3.4 of the thesis a message costs
# alpha + n_b * beta, n_b its bytes, with these figures of the NE020; and 0.9 ns is 8.9 Gbit/s of
# its 10 Gbit/s if it is a byte, but nine times as slow as its name if it were a bit.
NETWORKS = {
    network.name: network
    for network in (
        Network("fdr", 0.7e-6, 0.2e-9, f"Mellanox 56 Gbit/s FDR InfiniBand: {_TABLE_5_8}"),
        Network("qdr", 1.2e-6, 0.3e-9, f"Intel 40 Gbit/s QDR InfiniBand: {_TABLE_5_8}"),
        Network("10gbe", 7.2e-6, 0.9e-9, f"Intel 10GbE NetEffect NE020: {_TABLE_5_8}"),
        Network(
            "nvlink3",
            2e-6,
            1 / 300e9,
            "A100 by NVSwitch: 600 GB/s, half of it each way (NVIDIA A100 whitepaper, 2020); "
            + _OUR_LATENCY,
        ),
        Network(
            "tpu_v3_ici",
            1e-6,
            1 / 83e9,
            "TPU v3: 340 TB/s of all-reduce on 1,024 chips of 4 links, 83 GB/s each (Cloud TPU "
            f"documentation, TPU v3); {_OUR_LATENCY}",
            link_dimensions=2,
        ),
    )
}

DEVICES = {
    device.name: device
    for device in (
        Device("m40", 7e12, 7e12, 250, "Tesla M40 data sheet, NVIDIA"),
        Device("p100", 10.6e12, 21.2e12, 300, "Tesla P100 (NVLink) data sheet, NVIDIA"),
        Device("v100", 15.7e12, 125e12, 300, "Tesla V100 (NVLink) data sheet, NVIDIA"),
        Device("a100", 156e12, 312e12, 400, "A100 SXM data sheet, NVIDIA, without sparsity"),
        Device("h100", 494.7e12, 989.4e12, 700, "H100 SXM data sheet, NVIDIA, without sparsity"),
        Device("tpu_v2", 45e12, 45e12, None, "a chip: Y. You, UCB/EECS-2020-136, section 5.2"),
        Device("tpu_v3", 123e12, 123e12, 262, "a chip: Cloud TPU documentation, TPU v3"),
    )
}


def network_named(name):
    """A network of `NETWORKS`.

    Raises:
        ValueError: If there is none of this name.

    >>> network_named("fdr").seconds_per_byte
    2e-10
    """
    return _named("network", name, NETWORKS, "alpha and beta")


def device_named(name):
    """A device of `DEVICES`.

    Raises:
        ValueError: If there is none of this name.

    >>> device_named("v100").watts
    300
    """
    return _named("device", name, DEVICES, "time_per_flop")


def _named(kind, name, known, instead):
    if name not in known:
        nearest = difflib.get_close_matches(str(name).lower(), known, n=3)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f"There is no {kind} of this name. Received: {kind}={name!r}.{hint} Known: "
            f"{', '.join(known)}; or give {instead} yourself."
        )
    return known[name]
