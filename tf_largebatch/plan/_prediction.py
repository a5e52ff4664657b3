"""One row of the plan: a batch size on so many devices, by the cost model."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from tf_largebatch import costs
from tf_largebatch.plan._model import optimizer_bytes_per_parameter
from tf_largebatch.training.geometry import plan_batch

OPERATIONS_FORWARD = 2  # a multiply-add is two
OPERATIONS_TRAINING = 6  # the way back, for activations and for weights, takes twice as many


class Machine(NamedTuple):
    """What the run is predicted on. None: not known."""

    network: costs.Network
    seconds_per_operation: float | None  # None where the speed is measured
    measured: tuple[costs.Measured, ...]
    watts: float | None  # of a device whose speed is measured
    joules_per_operation: float | None
    joules_per_byte: float | None


class Row(NamedTuple):
    """A prediction. Of a run in phases, times of an update are means, and memory is the largest."""

    global_batch_size: int
    devices: int
    how: str
    optimizer: str
    epochs: float | None
    learning_rate: float | None
    warmup_updates: int | None
    warmup_epochs: float | None
    updates: int
    messages: int
    bytes_moved: float
    operations_forward: float
    operations_per_byte_moved: float
    batch_per_device: int
    micro_batch_size: int
    accumulation: int
    all_reduce_seconds: dict
    all_reduce_algorithm: str
    compute_seconds_per_update: float
    communication_seconds_per_update: float
    seconds_per_update: float
    run_seconds: float
    communication_share: float
    weak_efficiency: float
    strong_efficiency: float
    weight_bytes: float
    gradient_bytes: float
    optimizer_bytes: float
    activation_bytes_estimate: float | None
    memory_bytes_estimate: float | None
    tuning_runs: int
    computation_joules: float | None
    communication_joules: float | None
    total_joules: float | None


class _PhaseRow(NamedTuple):
    cost: costs.RunCost
    layout: object
    time: costs.UpdateTime
    memory: costs.Memory


def predict(job, counted, machine, setting, devices, tuning_runs=1):
    """The `Row` of a `Setting` on so many devices.

    Args:
        job: the `Job`.
        counted: {sequence length: `Counted`}.
        machine: the `Machine`.
        setting: the `Setting`.
        devices: how many share the batch.
        tuning_runs: how often the run is made.

    Raises:
        ValueError: if the batch can't be cut so, or what it is cut into didn't fit when measured.
    """
    first = counted[setting.phases[0].sequence_length]
    gradient_bytes = costs.BYTES_PER_GRADIENT * first.parameters
    reduces = costs.all_reduces(
        gradient_bytes, devices, link_dimensions=machine.network.link_dimensions
    )
    seconds = {reduce.algorithm: reduce.seconds(machine.network) for reduce in reduces}
    fastest = min(seconds, key=seconds.get)
    optimizer_bytes = optimizer_bytes_per_parameter(
        setting.optimizer, job.precision, setting.momentum
    )
    parts = [
        _phase(job, counted[phase.sequence_length], machine, optimizer_bytes, phase, devices,
               seconds[fastest])
        for phase in setting.phases
    ]  # fmt: skip
    cost = functools.reduce(costs.RunCost.plus, (part.cost for part in parts))
    mean = costs.update_time(
        compute_seconds=_mean(parts, lambda time: time.compute_seconds),
        communication_seconds=seconds[fastest],
        one_device_seconds=_mean(parts, lambda time: time.one_device_seconds),
        devices=devices,
    )
    largest = max((part.memory for part in parts), key=lambda memory: memory.total_bytes)
    estimated = first.activations is not None
    operations = cost.operations * OPERATIONS_TRAINING / OPERATIONS_FORWARD
    price = machine.joules_per_operation
    if price is None and machine.watts is not None:
        busy_seconds = devices * cost.updates * mean.compute_seconds
        price = machine.watts * busy_seconds / operations
    joules = (None, None, None)
    if price is not None and machine.joules_per_byte is not None:
        joules = costs.energy(
            operations=operations,
            updates=cost.updates, parameters=first.parameters, devices=devices,
            joules_per_operation=price,
            joules_per_byte=machine.joules_per_byte, runs=tuning_runs,
        )  # fmt: skip
        joules = (*joules, joules.total_joules)
    layout = parts[0].layout
    return Row(
        global_batch_size=setting.global_batch_size,
        devices=devices,
        how=setting.how,
        optimizer=setting.optimizer,
        epochs=setting.epochs,
        learning_rate=setting.learning_rate,
        warmup_updates=setting.warmup_updates,
        warmup_epochs=setting.warmup_epochs,
        updates=cost.updates,
        messages=cost.messages,
        bytes_moved=cost.bytes_moved,
        operations_forward=cost.operations,
        operations_per_byte_moved=cost.operations_per_byte,
        batch_per_device=layout.batch_per_replica,
        micro_batch_size=layout.micro_batch_size,
        accumulation=layout.accumulation,
        all_reduce_seconds=seconds,
        all_reduce_algorithm=fastest,
        compute_seconds_per_update=mean.compute_seconds,
        communication_seconds_per_update=mean.communication_seconds,
        seconds_per_update=mean.seconds,
        run_seconds=cost.updates * mean.seconds,
        communication_share=mean.communication_share,
        weak_efficiency=mean.weak_efficiency,
        strong_efficiency=mean.strong_efficiency,
        weight_bytes=largest.weight_bytes,
        gradient_bytes=largest.gradient_bytes,
        optimizer_bytes=largest.optimizer_bytes,
        activation_bytes_estimate=largest.activation_bytes if estimated else None,
        memory_bytes_estimate=largest.total_bytes if estimated else None,
        tuning_runs=tuning_runs,
        computation_joules=joules[0],
        communication_joules=joules[1],
        total_joules=joules[2],
    )


def _phase(job, counted, machine, optimizer_bytes, phase, devices, communication_seconds):
    cost = costs.run_cost(
        updates=phase.updates,
        batch_size=phase.global_batch_size,
        parameters=counted.parameters,
        operations_per_example=OPERATIONS_FORWARD * counted.multiply_adds,
    )

    def fastest(share):
        if job.micro_batch_size is None and machine.measured:
            return costs.fastest_micro_batch(machine.measured, share)
        return job.micro_batch_size

    size = phase.global_batch_size
    share = plan_batch(size, replicas=devices).batch_per_replica
    layout = plan_batch(size, replicas=devices, micro_batch_size=fastest(share))
    micro_batch_seconds = _speed(machine, counted.multiply_adds)
    alone = fastest(size) or layout.micro_batch_size  # of one device that takes the whole batch
    time = costs.update_time(
        compute_seconds=layout.accumulation * micro_batch_seconds(layout.micro_batch_size),
        communication_seconds=communication_seconds,
        one_device_seconds=size / alone * micro_batch_seconds(alone),
        devices=devices,
    )
    memory = costs.memory(
        parameters=counted.parameters,
        optimizer_bytes_per_parameter=optimizer_bytes,
        activations_per_example=counted.activations or 0,
        micro_batch_size=layout.micro_batch_size,
        accumulation=layout.accumulation,
        bytes_per_weight=2 if job.precision == "bfloat16" else 4,
        bytes_per_activation=4 if job.precision == "float32" else 2,
    )
    return _PhaseRow(cost, layout, time, memory)


def _speed(machine, multiply_adds) -> Callable[[int], float]:
    """Seconds of a micro-batch of so many examples."""
    if machine.measured:
        return functools.partial(costs.micro_batch_seconds, machine.measured)
    return lambda size: size * OPERATIONS_TRAINING * multiply_adds * machine.seconds_per_operation


def _mean(parts, of_time):
    """The mean over all updates of the phases."""
    updates = sum(part.cost.updates for part in parts)
    return sum(of_time(part.time) * part.cost.updates for part in parts) / updates
