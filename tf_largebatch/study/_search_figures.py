"""The report's figures on searches: learning-rate sweeps, stable rates, trials of tuning."""

import contextlib
import math

from tf_largebatch import plots
from tf_largebatch.study import _measures as measures
from tf_largebatch.study._figures import FOOT, finished, legend, style

COLUMNS = 2


def sweeps(study, folder):
    """Accuracy against learning rate: a panel a batch, a line an optimizer."""
    found, metric = measures.sweeps(study), study.info["metric"]
    with _panels(study.batches("sweep"), metric) as (made, axes, axis_of):
        for sweep in found:
            axis, look = axis_of[sweep.batch], style(study, sweep.optimizer)
            points = list(zip(sweep.rates, sweep.means, strict=True))
            _plot(axis, points, look, label=sweep.optimizer)
        legend(made, axes)
        caption = (
            f"Held-out {metric} against learning rate, mean over the seeds, as the thesis's "
            "Tables 5.4 and 6.1. A cross at the foot: a run diverged."
        )
        alt = (
            f"Held-out {metric} in per cent against learning rate, one panel for each batch "
            f"size, one line for each of {', '.join(study.optimizers('sweep'))}."
        )
        return finished(made, folder, "learning_rates", caption, alt)


def stable_rates(study, folder):
    """The stable interval of each sweep as a bar, its best rate as a point."""
    found = [sweep for sweep in measures.sweeps(study) if sweep.stable]
    with plots.figure(height=0.9 + 0.22 * len(found)) as (made, axes):
        axis = axes[0, 0]
        axis.set_xscale("log")
        for place, sweep in enumerate(found):
            look = style(study, sweep.optimizer)
            first, last = (sweep.rates[end] for end in sweep.stable)
            line = {"color": look["color"], "solid_capstyle": "butt"}
            axis.plot([sweep.rates[0], sweep.rates[-1]], [place] * 2, linewidth=0.8, **line)
            axis.plot([first, last], [place] * 2, linewidth=6, alpha=0.5, **line)
            axis.plot(sweep.rates[sweep.best], place, color=look["color"], marker=look["marker"])
        labels = [f"{sweep.optimizer}, batch {sweep.batch:,}" for sweep in found]
        axis.set_yticks(range(len(found)), labels)
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set_xlabel("learning rate")
        caption = (
            "Stable learning rates. Thick: mean within "
            f"{100 * measures.STABLE_MARGIN:g} point of the best and no diverged run; thin: all "
            "rates tried; marker: the best. The wider the bar, the less tuning is needed."
        )
        alt = (
            "A bar of stable learning rates for each optimizer and batch size. The table of "
            "sweeps holds the numbers."
        )
        return finished(made, folder, "stable_rates", caption, alt)


def trials(study, folder):
    """All trials of tuning: accuracy against learning rate, the winners ringed."""
    return _trials(study, folder, "trial", "trials")


def base_rates(study, folder):
    """The same of the trials that found the base learning rates."""
    return _trials(study, folder, "base", "base_rates")


def _trials(study, folder, group, title):
    metric = study.info["metric"]
    with _panels(study.batches(group), metric) as (made, axes, axis_of):
        for name in study.optimizers(group):
            look = style(study, name) | {"linestyle": "none"}
            for batch, axis in axis_of.items():
                runs = study.of(group, optimizer=name, global_batch_size=batch)
                points = [
                    (run.learning_rate, None if run.status == "diverged" else run.value)
                    for run in runs
                    if run.status != "failed"
                ]
                _plot(axis, points, look, label=name, alpha=0.7)
                won = measures.winner(study, group, name, batch)
                if won and won.value is not None:
                    at = won.learning_rate, 100 * won.value
                    axis.plot(*at, "o", markersize=11, fillstyle="none", color=look["color"])
        legend(made, axes)
        caption = (
            f"All trials: held-out {metric} against learning rate, whatever else varied. "
            f"Ringed: the settings of the {measures.WINS[group]} runs. A cross at the foot: the "
            "trial diverged."
        )
        alt = (
            f"Held-out {metric} in per cent of every trial against its learning rate, one panel "
            f"for each batch size; optimizers: {', '.join(study.optimizers(group))}."
        )
        return finished(made, folder, title, caption, alt)


@contextlib.contextmanager
def _panels(batches, metric):
    """A figure with a panel a batch, learning rate across, the metric in per cent upwards.

    Yields:
        (figure, axes, dict of batch: axis).
    """
    columns = min(COLUMNS, len(batches))
    rows = math.ceil(len(batches) / columns)
    with plots.figure(rows=rows, columns=columns, height=3.0, sharex=True, sharey=True) as (
        made,
        axes,
    ):
        for number, axis in enumerate(axes.flat):
            axis.set_xscale("log")
            axis.set_visible(number < len(batches))
            if number + columns >= len(batches):
                axis.set_xlabel("learning rate")
                axis.tick_params(axis="x", labelbottom=True)
        for axis in axes[:, 0]:
            axis.set_ylabel(f"held-out {metric} (%)")
        axis_of = dict(zip(batches, axes.flat, strict=False))
        for batch, axis in axis_of.items():
            axis.set_title(f"batch {batch:,}")
        yield made, axes, axis_of


def _plot(axis, points, look, **more):
    """Points of (learning rate, fraction) in per cent; those without a value at the foot."""
    reached = [(rate, 100 * value) for rate, value in points if value is not None]
    axis.plot([rate for rate, _ in reached], [value for _, value in reached], **look, **more)
    lost = [rate for rate, value in points if value is None]
    foot = [FOOT] * len(lost)
    axis.plot(lost, foot, "x", color=look["color"], transform=axis.get_xaxis_transform())
