"""The plan as a figure: time and efficiency by batch size, and what was measured."""

from tf_largebatch import costs, plots

_UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def draw(plan, path):
    """Writes the figure, .png or .svg.

    Args:
        plan: the `Plan`.
        path: where to; its suffix says the format.

    Raises:
        ImportError: if matplotlib isn't installed.
    """
    with plots.figure(rows=2 if plan.trials else 1, columns=2) as (made, axes):
        _time(plan, axes[0, 0])
        _efficiency(plan, axes[0, 1], "weak")
        if plan.trials:
            _measured(plan, axes[1, 0])
            # Without a measurement it is the weak one: each example then takes as long as another.
            _efficiency(plan, axes[1, 1], "strong")
        made.suptitle(plan.job.title[0].upper() + plan.job.title[1:], fontsize=10)
        plots.save(made, path)


def _by_devices(plan):
    """(style, label, rows in order of the batch) for each number of devices."""
    for number, devices in enumerate(dict.fromkeys(row.devices for row in plan.rows)):
        rows = [row for row in plan.rows if row.devices == devices]
        rows.sort(key=lambda row: row.global_batch_size)
        label = f"{devices:,} device{'s' if devices > 1 else ''}"
        yield plots.line_style(number), label, rows


def _batches(plan, axes):
    sizes = sorted({row.global_batch_size for row in plan.rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [_short(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("global batch size, examples")


def _time(plan, axes):
    shortest = min(row.run_seconds for row in plan.rows)
    unit = next((unit for unit in _UNITS if shortest >= _UNITS[unit]), "seconds")
    for style, label, rows in _by_devices(plan):
        axes.plot(
            [row.global_batch_size for row in rows],
            [row.run_seconds / _UNITS[unit] for row in rows],
            label=label, **style,
        )  # fmt: skip
    _batches(plan, axes)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_ylabel(f"time of the run, {unit}")
    axes.set_title("Predicted time")
    axes.legend()


def _efficiency(plan, axes, kind):
    for style, label, rows in _by_devices(plan):
        axes.plot(
            [row.global_batch_size for row in rows],
            [100 * getattr(row, f"{kind}_efficiency") for row in rows],
            label=label, **style,
        )  # fmt: skip
    _batches(plan, axes)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{kind} scaling efficiency, %")
    of_what = {"weak": "its share", "strong": "the whole batch"}[kind]
    axes.set_title(f"Against one device on {of_what}")
    axes.legend()


def _measured(plan, axes):
    found = plan.machine.measured
    knee = costs.knee(found)
    axes.plot(
        [point.micro_batch_size for point in found],
        [point.examples_per_second for point in found],
        label="measured", **plots.line_style(0),
    )  # fmt: skip
    axes.axvline(knee.micro_batch_size, color="black", linestyle=":", label="knee, 90 % of best")
    for trial in plan.trials:
        if trial.state == "out of memory":
            axes.axvline(trial.micro_batch_size, color=plots.COLOURS[1], label="out of memory")
    sizes = [trial.micro_batch_size for trial in plan.trials if trial.state != "not tried"]
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [_short(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("micro-batch size, examples")
    axes.set_ylabel("examples a second")
    axes.set_title("This machine, one device")
    axes.legend()


def _short(size):
    return f"{size // 1024}K" if size % 1024 == 0 else f"{size:,}"
