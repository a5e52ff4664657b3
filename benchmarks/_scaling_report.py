"""Tables, figure and page of benchmarks/scaling.py."""

import statistics
from typing import NamedTuple

from benchmarks import _report

ALL_CORES = "1 replica, all cores"


class Setup(NamedTuple):
    """What trains: so many replicas, in as many processes or (0 workers) in one, on cores."""

    replicas: int
    workers: int
    cores: int


def ratios(of, to):
    """of / to, round by round."""
    return [one / other for one, other in zip(of, to, strict=True)]


def walls(rounds):
    """The wall times of rounds of (wall, processor) times."""
    return [wall for wall, _ in rounds]


def speedups(found, kind, setups_of, name):
    """Images a second over the reference's, in each round. The first setup is the reference."""
    reference = next(iter(setups_of))
    times = ratios(walls(found[reference, kind]), walls(found[name, kind]))
    growth = setups_of[name].replicas if kind == "weak" else 1  # of the batch
    return [growth * time for time in times]


def scaling_rows(found, kind, setups_of, batch):
    """The table of strong or weak scaling, a row a setup; `batch`: the reference's."""
    rows, reference = [], next(iter(setups_of))
    for name, (replicas, _, used) in setups_of.items():
        whole = batch * (replicas if kind == "weak" else 1)
        seconds = walls(found[name, kind])
        rates = speedups(found, kind, setups_of, name)
        work = [
            one * batch / (other * whole)
            for (_, one), (_, other) in zip(found[name, kind], found[reference, kind], strict=True)
        ]
        rate = statistics.median(rates)
        rows.append(
            [name, used, whole // replicas, _report.spread([1e3 * s for s in seconds], 1),
             f"{whole / statistics.median(seconds):,.0f}", _report.spread(rates),
             "" if name == ALL_CORES else f"{rate / replicas:.0%}", f"{rate / used:.0%}",
             _report.spread(work)]
        )  # fmt: skip
    return rows


SCALING = ["", "cores", "batch a replica", "ms an update", "images/s", "rate over 1 replica's",
           "by replicas", "by cores", "processor time an image, over 1 replica's"]  # fmt: skip


def batch_times(found):
    """{batch size: seconds of the rounds}."""
    return {int(m.split()[1]): walls(s) for (p, m), s in found.items() if p == "batches"}


def batch_rows(found):
    """Update time and rate over batch size."""
    times = batch_times(found)
    smallest = min(times)
    return [
        [batch, _report.spread([1e3 * s for s in seconds], 2),
         f"{batch / statistics.median(seconds):,.0f}",
         _report.spread(ratios(seconds, times[smallest]))]
        for batch, seconds in times.items()
    ]  # fmt: skip


def parameters_of(width):
    """Of four dense layers."""
    return 4 * (width * width + width)


def parameter_times(found):
    """{optimizer: {parameters: seconds of the rounds}}."""
    times = {}
    for (process, measurement), seconds in found.items():
        if process == "parameters":
            name, _, width = measurement.rpartition(" ")
            times.setdefault(name, {})[parameters_of(int(width))] = walls(seconds)
    return times


def parameter_rows(found):
    """Nanoseconds a parameter, and ratios to Keras' Lamb."""
    times = parameter_times(found)
    theirs = times["keras Lamb"]
    return [
        [f"{parameters:,}",
         *(_report.spread([1e9 * s / parameters for s in by_size[parameters]])
           for by_size in times.values()),
         *(_report.spread(ratios(by_size[parameters], theirs[parameters]))
           for name, by_size in times.items() if name != "keras Lamb")]
        for parameters in theirs
    ]  # fmt: skip


TEXT = """# Scaling: replicas, workers, batch size, parameters

{provenance}
- rounds: {rounds}; median (quartiles); ratios within a round

Made by `benchmarks/scaling.py`. LeNet-5 (61,706 parameters) on scikit-learn's digits at 28x28 with
LAMB, in `Trainer`, {updates} updates a measurement. Replicas are logical CPU devices of one
process, workers are processes on the loopback interface.

**Read this first.** The machine has {cores} cores, so that {cores} replicas can compute at once:
what has more replicas than cores shows what distributing costs, not what it gains. "By replicas" is
the rate over that of one replica with one core, divided by the replicas; "by cores" is the same
divided by the cores used. Processor time is that of all threads: above 1 is work that one replica
needn't do, or waiting that spins; other load on the machine weighs less on it than on the rates. No
network is in it: gradients pass through memory or the loopback interface. The thesis's Figures 5.15
to 5.18 go up to 2,048 machines; this is the same kind of plot, not the same claim.

The row "{all_cores}" is what one device makes of them by TensorFlow's own threads: what to
use on one CPU.

![Scaling over replicas, workers, batch size and parameters](scaling.png)

## Strong scaling: global batch {strong_batch}

{strong}

## Weak scaling: {weak_batch} images a replica

{weak}

## Update time over batch size, one device, all cores

{batches}

## Optimizer's update over parameters: four dense layers, one device, all cores

In a graph, as `fit` runs it on CPUs. ns a parameter:

{parameters}

All rounds: `scaling.csv`.
"""


def draw(found, setups_of, flags, path):
    """The four figures."""
    from tf_largebatch import plots

    with plots.figure(rows=2, columns=2) as (figure, axes):
        for axis, kind, title in (
            (axes[0, 0], "strong", f"Strong scaling, global batch {flags.strong_batch}"),
            (axes[0, 1], "weak", f"Weak scaling, {flags.weak_batch} images a replica"),
        ):
            _draw_scaling(axis, found, kind, setups_of)
            axis.set(title=title, xlabel="replicas", ylabel="images/s over 1 replica's",
                     ylim=(0, None))  # fmt: skip
        batches, left, right = batch_times(found), *axes[1]
        _line(left, 0, {size: [size / s for s in times] for size, times in batches.items()})
        left.set(title="One device, all cores", xlabel="batch size", ylabel="images/s",
                 xscale="log", ylim=(0, None))  # fmt: skip
        left.set_xticks(list(batches), list(batches))
        left.minorticks_off()
        for number, (name, by_size) in enumerate(parameter_times(found).items()):
            _line(right, number, {n: [1e9 * s / n for s in v] for n, v in by_size.items()}, name)
        right.set(title="Optimizer's update", xlabel="parameters",
                  ylabel="ns a parameter", xscale="log", yscale="log")  # fmt: skip
        right.legend()
        plots.save(figure, path)


def _draw_scaling(axis, found, kind, setups_of):
    most = max(setup.replicas for setup in setups_of.values())
    used = max(setup.cores for setup in setups_of.values())
    axis.plot([1, most], [1, most], color="black", linestyle=":", label="ideal")
    compared = {name: setup for name, setup in setups_of.items() if name != ALL_CORES}
    for number, label in enumerate(("replicas in one process", "worker processes")):
        values = {
            setup.replicas: speedups(found, kind, setups_of, name)
            for name, setup in compared.items()
            if setup.replicas == 1 or bool(setup.workers) == bool(number)
        }
        _line(axis, number, values, label)
    if most > used:
        axis.axvspan(used, most, color="black", alpha=0.07, label="more replicas than cores")
    axis.set_xticks(sorted({setup.replicas for setup in compared.values()}))
    axis.legend()


def _line(axis, number, values, label=None):
    """Medians with quartiles of {x: values}."""
    from tf_largebatch import plots

    quartiles = [statistics.quantiles(v, n=4, method="inclusive") for v in values.values()]
    middles = [middle for _, middle, _ in quartiles]
    spans = [[middle - low for low, middle, _ in quartiles],
             [high - middle for _, middle, high in quartiles]]  # fmt: skip
    axis.errorbar(list(values), middles, yerr=spans, capsize=2, label=label,
                  **plots.line_style(number))  # fmt: skip


def page(found, setups_of, flags, cores):
    """The report, in Markdown."""
    names = list(parameter_times(found))
    columns = ["parameters", *names, *(f"{n} / keras Lamb" for n in names if n != "keras Lamb")]
    strong = scaling_rows(found, "strong", setups_of, flags.strong_batch)
    weak = scaling_rows(found, "weak", setups_of, flags.weak_batch)
    over_batch = ["batch", "ms an update", "images/s", "time over the smallest batch's"]
    return TEXT.format(
        provenance=_report.provenance(("tensorflow", "keras", "numpy")), rounds=flags.rounds,
        updates=flags.updates, cores=cores, all_cores=ALL_CORES, strong_batch=flags.strong_batch,
        weak_batch=flags.weak_batch, strong=_report.table(SCALING, strong),
        weak=_report.table(SCALING, weak), batches=_report.table(over_batch, batch_rows(found)),
        parameters=_report.table(columns, parameter_rows(found)),
    )  # fmt: skip
