"""Counts, time, memory and energy of a run on data-parallel devices (thesis, section 5.3 and 5.4).

The number of epochs fixed, so are the operations, whatever the batch size; messages and bytes are
proportional to the number of updates, and so fall as the batch grows.
"""

from typing import NamedTuple

from tf_largebatch.scaling import check_count, check_number

BYTES_PER_GRADIENT = 4  # gradients are summed over devices in float32


class RunCost(NamedTuple):
    """What a run costs wherever it runs. Of several phases, add field by field."""

    updates: int
    messages: int  # one all-reduce an update, as the thesis counts
    bytes_moved: float  # the gradients, once an update
    operations: float  # of all examples

    @property
    def operations_per_byte(self):
        """The ratio of computation to communication, "Comp/Comm" of the slides' Table 2."""
        return self.operations / self.bytes_moved

    def plus(self, other):
        """The cost of both."""
        return RunCost(*(mine + its for mine, its in zip(self, other, strict=True)))


def run_cost(*, updates, batch_size, parameters, operations_per_example):
    """Messages, bytes and operations of a run: |W| E n / B bytes for E n / B updates.

    From section 5.4 of the thesis, "Scaling Efficiency of Large Batches". For E epochs of n
    examples the updates are `tf_largebatch.scaling.epochs_to_updates`.

    Args:
        updates: Optimizer updates in the run.
        batch_size: Examples per update, over all devices.
        parameters: Trainable parameters, |W|.
        operations_per_example: As whoever compares counts them. The thesis takes two for each
            multiply-add on the way forward for AlexNet and ResNet-50.

    Returns:
        `RunCost`.

    Raises:
        ValueError: If a count isn't a whole number of at least 1, or another number isn't above 0.

    >>> cost = run_cost(
    ...     updates=3516, batch_size=32768, parameters=25.6e6, operations_per_example=7.7e9
    ... )
    >>> f"{cost.bytes_moved / 1e9:.0f} GB, {cost.operations:.1g} operations"
    '360 GB, 9e+17 operations'
    """
    updates = check_count("updates", updates)
    batch_size = check_count("batch_size", batch_size)
    parameters = check_number("parameters", parameters)
    operations = check_number("operations_per_example", operations_per_example)
    return RunCost(
        updates=updates,
        messages=updates,
        bytes_moved=updates * BYTES_PER_GRADIENT * parameters,
        operations=updates * batch_size * operations,
    )


def scaling_ratio(*, parameters, operations_per_example):
    """Operations an example for each parameter (thesis, Table 5.2; slides, Table 3).

    The larger it is, the easier the network scales; times the batch size it is the ratio of
    computation to communication of an update.

    >>> f"{scaling_ratio(parameters=61e6, operations_per_example=1.5e9):.1f}"  # AlexNet
    '24.6'
    """
    parameters = check_number("parameters", parameters)
    return check_number("operations_per_example", operations_per_example) / parameters


class UpdateTime(NamedTuple):
    """One update on all devices; communication starts when computation has ended."""

    compute_seconds: float
    communication_seconds: float
    one_device_seconds: float  # the whole batch on one device
    devices: int

    @property
    def seconds(self):
        """Both, one after the other: t_1 + t_2 log(p) of Table 5.1, with any all-reduce."""
        return self.compute_seconds + self.communication_seconds

    @property
    def communication_share(self):
        """Of the update's time, from 0 to 1."""
        return self.communication_seconds / self.seconds

    @property
    def weak_efficiency(self):
        """One device on its share alone, over all devices on theirs."""
        return self.compute_seconds / self.seconds

    @property
    def strong_efficiency(self):
        """One device on the whole batch, over the devices' time taken together."""
        return self.one_device_seconds / (self.devices * self.seconds)


def update_time(*, compute_seconds, communication_seconds, one_device_seconds, devices):
    """An `UpdateTime`, checked.

    Args:
        compute_seconds: What one device takes for its share of the batch.
        communication_seconds: What the all-reduce takes.
        one_device_seconds: What one device would take for the whole batch.
        devices: How many share it.

    Raises:
        ValueError: If a time is negative, a computation takes none, or there is no device.

    >>> update = update_time(
    ...     compute_seconds=0.9, communication_seconds=0.1, one_device_seconds=14.4, devices=16
    ... )
    >>> round(update.weak_efficiency, 3), round(update.strong_efficiency, 3)
    (0.9, 0.9)
    """
    return UpdateTime(
        check_number("compute_seconds", compute_seconds),
        check_number("communication_seconds", communication_seconds, allow_zero=True),
        check_number("one_device_seconds", one_device_seconds),
        check_count("devices", devices),
    )


class Memory(NamedTuple):
    """What one replica holds, in bytes; the activations are an estimate."""

    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes: float

    @property
    def total_bytes(self):
        """All of it, without the workspace of libraries."""
        return sum(self)


def memory(
    *, parameters, optimizer_bytes_per_parameter, activations_per_example, micro_batch_size,
    accumulation=1, bytes_per_weight=4, bytes_per_activation=4,
):  # fmt: skip
    """An estimate of the memory of one replica.

    Args:
        parameters: Trainable parameters.
        optimizer_bytes_per_parameter: 4 for one float32 slot, as LARS's; 8 for LAMB's two.
        activations_per_example: Numbers that the layers put out on the way forward, all of which
            are taken to be kept for the way back.
        micro_batch_size: Examples held at a time.
        accumulation: Micro-batches in an update; above 1 their sum is held beside the gradient.
        bytes_per_weight: 2 where the variables are bfloat16.
        bytes_per_activation: 2 where the computation is in bfloat16 or float16.

    Returns:
        `Memory`.

    Raises:
        ValueError: If a count isn't a whole number of at least 1, or a number isn't as described.

    >>> memory(
    ...     parameters=1e6, optimizer_bytes_per_parameter=8, activations_per_example=2e5,
    ...     micro_batch_size=64,
    ... ).total_bytes / 1e6
    67.2
    """
    parameters = check_number("parameters", parameters)
    slots = check_number("optimizer_bytes_per_parameter", optimizer_bytes_per_parameter,
                         allow_zero=True)  # fmt: skip
    activations = check_number("activations_per_example", activations_per_example, allow_zero=True)
    size = check_count("micro_batch_size", micro_batch_size)
    added = bytes_per_weight if check_count("accumulation", accumulation) > 1 else 0
    return Memory(
        weight_bytes=bytes_per_weight * parameters,
        gradient_bytes=(BYTES_PER_GRADIENT + added) * parameters,
        optimizer_bytes=slots * parameters,
        activation_bytes=bytes_per_activation * activations * size,
    )


class Energy(NamedTuple):
    """Joules of computation and of communication over the network."""

    computation_joules: float
    communication_joules: float

    @property
    def total_joules(self):
        """Both."""
        return sum(self)


def energy(*, operations, updates, parameters, devices, joules_per_operation, joules_per_byte,
           runs=1):  # fmt: skip
    """The energy of a run, times the runs that tuning takes.

    As Demmel et al. 2013 ("Perfect strong scaling using no additional energy", IPDPS), a price for
    each operation and each byte moved; idle power and memory are left out. An all-reduce moves at
    least 2 (p-1) n bytes over all links (Patarasuk and Yuan 2009).

    Args:
        operations: Of the run, both ways.
        updates: Optimizer updates in the run.
        parameters: Trainable parameters.
        devices: p.
        joules_per_operation, joules_per_byte: The prices.
        runs: How often the run is made, with other hyper-parameters.

    Returns:
        `Energy`.

    Raises:
        ValueError: If a count isn't a whole number of at least 1, or a number isn't above 0.

    >>> energy(
    ...     operations=1e18, updates=1000, parameters=25e6, devices=16,
    ...     joules_per_operation=2e-11, joules_per_byte=3e-9, runs=2,
    ... )
    Energy(computation_joules=40000000.0, communication_joules=18000.0)
    """
    operations = check_number("operations", operations)
    updates = check_count("updates", updates)
    n = BYTES_PER_GRADIENT * check_number("parameters", parameters)
    sent = updates * 2 * (check_count("devices", devices) - 1) * n
    runs = check_count("runs", runs)
    return Energy(
        runs * operations * check_number("joules_per_operation", joules_per_operation),
        runs * sent * check_number("joules_per_byte", joules_per_byte),
    )
