"""The plan as text tables of at most 120 columns, as JSON or as CSV."""

import csv
import io
import json
import textwrap
from typing import NamedTuple

from tf_largebatch import costs
from tf_largebatch.plan._job import Job
from tf_largebatch.plan._prediction import OPERATIONS_FORWARD, Machine, Row

FORMATS = ("table", "json", "csv")
COLUMNS = 120
_SHORT = {
    "ring": "ring", "recursive_doubling": "rec. doubling", "halving_doubling": "halving-doubl.",
    "torus": "torus", "torus_in_halves": "torus, halves",
}  # fmt: skip


class Plan(NamedTuple):
    """All that is reported: the job, what an example costs, the machine, the rows."""

    job: Job
    counted: dict
    machine: Machine
    speed: str  # how the machine's speed is known, in words
    trials: tuple
    rows: tuple[Row, ...]

    def speedup(self, row):
        """How many times sooner than the first row the run has ended."""
        return self.rows[0].run_seconds / row.run_seconds


def report(plan, form):
    """Prints the plan in one of `FORMATS`."""
    if form == "json":
        print(json.dumps(_as_json(plan), indent=1, allow_nan=False))
    elif form == "csv":
        print(_as_csv(plan), end="")
    else:
        print(as_text(plan))


def _as_json(plan):
    job, network = plan.job, plan.machine.network
    model = [
        {
            "sequence_length": length,
            **counted._asdict(),
            "scaling_ratio": _scaling_ratio(counted),
        }
        for length, counted in plan.counted.items()
    ]
    trials = [trial._asdict() for trial in plan.trials]
    return {
        "job": job.title,
        "precision": job.precision,
        "num_examples": job.num_examples,
        "model": model,
        "network": network._asdict(),
        "speed": plan.speed,
        "seconds_per_operation": plan.machine.seconds_per_operation,
        "joules_per_operation": plan.machine.joules_per_operation,
        "joules_per_byte": plan.machine.joules_per_byte,
        "measured": trials,
        "knee_micro_batch_size": costs.knee(plan.machine.measured).micro_batch_size
        if trials
        else None,
        "rows": [row._asdict() | {"speedup_over_first": plan.speedup(row)} for row in plan.rows],
    }


def _as_csv(plan):
    lines = []
    for row in plan.rows:
        line = row._asdict() | {"speedup_over_first": plan.speedup(row)}
        for algorithm, seconds in line.pop("all_reduce_seconds").items():
            line[f"all_reduce_{algorithm}_seconds"] = seconds
        lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_text(plan):
    """The tables, one after the other."""
    parts = ["\n".join(_wrapped(line) for line in _heading(plan))]
    one_devices = [row for row in plan.rows if row.devices == plan.rows[0].devices]
    parts.append(
        _table(
            "The run, wherever it runs",
            "batch | learning rate | warmup, epochs | updates = messages | gradients moved | "
            "operations a byte",
            [
                (
                    f"{row.global_batch_size:,}", _or_unknown(row.learning_rate, "{:.5g}"),
                    _or_unknown(row.warmup_epochs, "{:.4g}"), f"{row.updates:,}",
                    bytes_text(row.bytes_moved), f"{row.operations_per_byte_moved:,.4g}",
                )
                for row in one_devices
            ],
        )
    )  # fmt: skip
    parts.append("\n".join(f"  {row.global_batch_size:,}: {row.how}" for row in one_devices))
    each_devices = {row.devices: row for row in plan.rows}.values()
    algorithms = list(plan.rows[0].all_reduce_seconds)
    size = plan.rows[0].bytes_moved / plan.rows[0].messages
    parts.append(
        _table(
            f"One all-reduce of {bytes_text(size)} of gradients",
            " | ".join(["devices", *(_SHORT[name] for name in algorithms), "fastest"]),
            [
                (
                    f"{row.devices:,}", *map(time_text, row.all_reduce_seconds.values()),
                    _SHORT[row.all_reduce_algorithm],
                )
                for row in each_devices
            ],
        )
    )  # fmt: skip
    parts.append(
        _table(
            "Time, predicted",
            "batch | devices | each | micro x accum. | compute | all-reduce | an update | the run "
            "| speed-up | comm. | weak | strong",
            [
                (
                    f"{row.global_batch_size:,}", f"{row.devices:,}", f"{row.batch_per_device:,}",
                    f"{row.micro_batch_size:,} x {row.accumulation:,}",
                    time_text(row.compute_seconds_per_update),
                    time_text(row.communication_seconds_per_update),
                    time_text(row.seconds_per_update), time_text(row.run_seconds),
                    f"{plan.speedup(row):.3g}", *map("{:.1%}".format, (
                        row.communication_share, row.weak_efficiency, row.strong_efficiency)),
                )
                for row in plan.rows
            ],
        )
    )  # fmt: skip
    parts.append(
        _table(
            "Memory of a replica, and energy",
            "batch | devices | weights | gradients | optimizer | activations* | in all* | "
            "computation | network | times runs | together",
            [
                (
                    f"{row.global_batch_size:,}", f"{row.devices:,}",
                    *map(bytes_text, (row.weight_bytes, row.gradient_bytes, row.optimizer_bytes,
                                      row.activation_bytes_estimate, row.memory_bytes_estimate)),
                    *(energy_text(_each(row, joules)) for joules in (
                        row.computation_joules, row.communication_joules)),
                    f"{row.tuning_runs:,}", energy_text(row.total_joules),
                )
                for row in plan.rows
            ],
        )
    )  # fmt: skip
    parts.append(
        "* An estimate: all that layers put out is kept, nothing else. Speed-up is over the first "
        "row; comm. is the\n  all-reduce's share of an update. Efficiency, weak: one device on its "
        "share alone over all on theirs; strong: one\n  device on the whole batch over the time of "
        "all. Energy: of one run each, then of all runs; nothing idles."
    )
    if plan.trials:
        parts.append(_trials(plan))
    return "\n\n".join(parts)


def _heading(plan):
    job, network = plan.job, plan.machine.network
    examples = "" if job.num_examples is None else f", {job.num_examples:,} examples"
    used = ", ".join(dict.fromkeys(setting.optimizer for setting in job.settings))
    yield f"Plan of {job.title}{examples}; {used}, {job.precision}"
    for length, counted in plan.counted.items():
        at = "" if length is None else f" at {length} tokens"
        yield (
            f"  an example{at}: {counted.multiply_adds:,.4g} multiply-adds forward, "
            f"{counted.parameters:,.4g} parameters, scaling ratio {_scaling_ratio(counted):.4g}"
        )
    yield (
        f"  network {network.name}: {network.latency_seconds:g} s + {network.seconds_per_byte:.3g} "
        f"s a byte ({network.source})"
    )
    yield f"  speed: {plan.speed}"


def _wrapped(line):
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, COLUMNS, subsequent_indent=indent, break_long_words=False)


def _scaling_ratio(counted):
    return costs.scaling_ratio(
        parameters=counted.parameters,
        operations_per_example=OPERATIONS_FORWARD * counted.multiply_adds,
    )


def _trials(plan):
    knee = costs.knee(plan.machine.measured).micro_batch_size
    rows = [
        (
            f"{trial.micro_batch_size:,}", _or_unknown(trial.examples_per_second, "{:,.4g}", "-"),
            time_text(trial.seconds),
            "the knee" if trial.micro_batch_size == knee else
            "" if trial.state == "measured" else trial.state,
        )
        for trial in plan.trials
    ]  # fmt: skip
    title = "Measured here; the knee is the smallest that reaches 90 % of the best rate"
    return _table(title, "micro-batch | examples/s | an update | ", rows)


def _table(title, header, rows):
    """Right-aligned columns, two spaces between them."""
    lines = [[cell.strip() for cell in header.split("|")], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([title, *(f"  {line}" for line in text)])


def _each(row, joules):
    return None if joules is None else joules / row.tuning_runs


def _or_unknown(value, form, unknown="not known"):
    return unknown if value is None else form.format(value)


def bytes_text(size):
    """A size for people, in powers of 1,000.

    >>> bytes_text(374.4e12), bytes_text(246_824)
    ('374 TB', '247 kB')
    """
    return _scaled(size, 1000, ("B", "kB", "MB", "GB", "TB", "PB", "EB"))


def energy_text(joules):
    """An energy for people, in watt-hours.

    >>> energy_text(3.6e9)
    '1 MWh'
    """
    return _scaled(None if joules is None else joules / 3600, 1000, ("Wh", "kWh", "MWh", "GWh"))


def time_text(seconds):
    """A time for people.

    >>> time_text(0.0123), time_text(90.0), time_text(2e5)
    ('12.3 ms', '1.5 min', '2.31 d')
    """
    if seconds is None:
        return "-"
    for limit, unit, name in (
        (1e-3, 1e-6, "us"), (1, 1e-3, "ms"), (60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"),
    ):  # fmt: skip
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86400:,.3g} d"


def _scaled(value, base, names):
    if value is None:
        return "-"
    power = 0
    while value >= 999.5 and power + 1 < len(names):
        value, power = value / base, power + 1
    return f"{value:,.3g} {names[power]}"
