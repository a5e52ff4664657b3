"""The report's figures on the accuracy runs: accuracy, updates to the target, training curves."""

import math
import os
from typing import NamedTuple

import numpy as np

from tf_largebatch import plots
from tf_largebatch.study import _measures as measures
from tf_largebatch.study._reading import count_diverged, done
from tf_largebatch.study._statistics import summary
from tf_largebatch.study._verdict import GROUPS, digits

GREY = "0.35"  # of what is no measurement: a target, perfect scaling
WIDE = 3.0  # points below the best: if most, not all, accuracies lie there, they get a panel
FOOT, HEAD = 0.03, 0.97  # heights in an axis for what has no value


class Figure(NamedTuple):
    """A drawn figure; `name` is also that of its file, without .png."""

    name: str
    caption: str
    alt: str
    uri: str


def finished(made, folder, name, caption, alt):
    """Writes a figure into the folder and keeps it for the page."""
    plots.save(made, os.path.join(folder, f"{name}.png"))
    return Figure(name, caption, alt, plots.data_uri(made))


def style(study, optimizer, group="untuned"):
    """Colour and marker of an optimizer, the same in all figures; tuned: dashed and hollow."""
    number = study.optimizers("untuned", "tuned", "trial", "base", "sweep").index(optimizer)
    found = plots.line_style(number)
    # The marker moves on once the colours repeat: here the dash says something else.
    found["marker"] = plots.MARKERS[(number + number // len(plots.COLOURS)) % len(plots.MARKERS)]
    if group == "tuned":
        return found | {"linestyle": "--", "markerfacecolor": "white"}
    return found | {"linestyle": "-"}


def legend(made, axes):
    """One legend below the figure, of all that is labelled in any of the axes."""
    found = {}
    for axis in np.ravel(axes):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    made.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(4, len(found)))


def log_ticks(axis, values, labels=None):
    """The x axis in powers of two, with a tick at each of the values alone."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, labels or [f"{value:,}" for value in values])
    axis.tick_params(axis="x", which="minor", bottom=False)


def accuracy(study, folder):
    """Accuracy against batch size, with its spread; a second panel if most crowd at the top."""
    metric = study.info["metric"]
    lines = [
        (name, group, _means(study, name, group))
        for name in study.optimizers(*GROUPS)
        for group in GROUPS
        if study.of(group, optimizer=name)
    ]
    means = [point.mean for *_, points in lines for point in points if point.n]
    at_the_top = [mean for mean in means if mean > max(means) - WIDE]
    wide = len(means) / 2 < len(at_the_top) < len(means)
    with plots.figure(rows=1 + wide, height=3.6) as (made, axes):
        for axis in axes[:, 0]:
            log_ticks(axis, study.batches(*GROUPS))
            axis.set_ylabel(f"held-out {metric} (%)")
            for number, (name, group, points) in enumerate(lines):
                _accuracy_line(axis, study, name, group, points, _aside(number, len(lines)))
            low, high = axis.get_ylim()  # deviations may reach beyond what a share can be
            axis.set_ylim(max(low, -3), min(high, 103))
        axes[-1, 0].set_xlabel("global batch size (examples)")
        if wide:
            axes[0, 0].set_title("all")
            axes[1, 0].set_title("the top, enlarged")
            axes[1, 0].set_ylim(max(means) - WIDE, max(means) + WIDE / 8)
        legend(made, axes)
        many = len(study.info["seeds"]) > 1
        caption = (
            f"Held-out {metric} at the end against batch size, at the same number of epochs. "
            + ("Bars: sample standard deviation over the seeds. " if many else "One seed. ")
            + "Solid: untuned; dashed and hollow: tuned. A cross at the foot: a run diverged. "
            "Points of one batch stand side by side."
        )
        alt = (
            f"Held-out {metric} in per cent against global batch size, a line for each of "
            f"{', '.join(study.optimizers(*GROUPS))}. The accuracy table holds the numbers."
        )
        return finished(made, folder, "accuracy", caption, alt)


def _means(study, name, group):
    return [
        summary([100 * value for value in done(runs)])
        for batch in study.batches(*GROUPS)
        for runs in [study.of(group, optimizer=name, global_batch_size=batch)]
    ]


def _accuracy_line(axis, study, name, group, points, aside):
    batches = study.batches(*GROUPS)
    kept = [(batch * aside, point) for batch, point in zip(batches, points, strict=True) if point.n]
    look = style(study, name, group)
    axis.errorbar(
        [batch for batch, _ in kept],
        [point.mean for _, point in kept],
        [point.deviation or 0 for _, point in kept],
        **look,
        capsize=2,
        elinewidth=0.8,
        label=name if group == "untuned" else f"{name}, tuned",
    )
    lost = [
        batch * aside
        for batch in batches
        if count_diverged(study.of(group, optimizer=name, global_batch_size=batch))
    ]
    foot = [FOOT] * len(lost)
    axis.plot(lost, foot, "x", color=look["color"], transform=axis.get_xaxis_transform())


def _aside(number, count):
    """A factor that sets the points of one batch side by side."""
    return 2 ** (0.4 * (number - (count - 1) / 2) / max(count, 4))


def updates_to_target(study, folder):
    """Updates to the target against batch size, both logarithmic, with perfect scaling."""
    wanted, words = measures.target(study)
    batches = study.batches(*GROUPS)
    with plots.figure(height=4.2) as (made, axes):
        axis = axes[0, 0]
        log_ticks(axis, batches)
        axis.set_yscale("log")
        lines = [
            (name, group)
            for name in study.optimizers(*GROUPS)
            for group in GROUPS
            if study.of(group, optimizer=name)
        ]
        starts = []
        for number, (name, group) in enumerate(lines):
            look = style(study, name, group)
            label = name if group == "untuned" else f"{name}, tuned"
            found = {
                batch: it
                for batch in batches
                if (it := measures.updates_to_target(study, group, name, batch, wanted))
            }
            reached = {b: it.median for b, it in found.items() if math.isfinite(it.median)}
            axis.plot(reached.keys(), reached.values(), **look, label=label)
            starts += list(reached.items())[:1]
            aside = _aside(number, len(lines)) ** 2
            missed = [b * aside for b, it in found.items() if it.reached < it.runs]
            axis.plot(
                missed,
                [HEAD] * len(missed),
                **look | {"linestyle": "none", "markersize": 4},
                transform=axis.get_xaxis_transform(),
            )
        if starts:
            batch, updates = min(starts)
            ideal = [updates * batch / other for other in batches]
            axis.plot(batches, ideal, "--", color=GREY, label="perfect scaling", zorder=1)
            low, high = axis.get_ylim()
            axis.set_ylim(low, high * 2)  # room for the marks at the head
            axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlabel("global batch size (examples)")
        axis.set_ylabel("updates to the target")
        legend(made, axes)
        caption = (
            f"Updates until {100 * wanted:.{digits(study)}f} % held-out {study.info['metric']} "
            f"({words}), median over the seeds. Dashed grey: twice the batch in half the "
            "updates; where a line bends away from it lies the critical batch size (Shallue et "
            "al. 2019, arXiv:1811.03600; McCandlish et al. 2018, arXiv:1812.06162). A mark at "
            "the head: a run of this optimizer never reached the target. All runs have the same "
            "epochs and a learning rate that falls over them, so this isn't the fewest updates "
            "possible."
        )
        alt = (
            "Updates to the target against global batch size, both on logarithmic scales, with "
            "a dashed line of perfect scaling. The table of updates holds the numbers."
        )
        return finished(made, folder, "updates_to_target", caption, alt)


def training_curves(study, folder):
    """Training loss against examples seen: a panel an optimizer, a line a batch (Figure 6.7)."""
    group = "untuned" if study.of("untuned") else "tuned"
    names, batches = study.optimizers(group), study.batches(group)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    first, last = [], []
    with plots.figure(rows=rows, columns=columns, height=2.3, sharex=True, sharey=True) as (
        made,
        axes,
    ):
        for axis, name in zip(axes.flat, names, strict=False):
            for number, batch in enumerate(batches):
                seen, losses = _mean_loss(study, group, name, batch)
                first += losses[:1]
                look = plots.line_style(number) | {"marker": "", "linewidth": 1.2}
                axis.plot(seen, losses, **look, label=f"batch {batch:,}")
                last += losses[-1:]
            axis.set_title(name)
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for number, axis in enumerate(axes.flat[: len(names)]):
            if number + columns >= len(names):
                axis.set_xlabel("examples seen (thousands)")
                axis.tick_params(axis="x", labelbottom=True)
        made.supylabel("training loss", fontsize="medium")
        if first:
            axes[0, 0].set_ylim(0.9 * min(last), 1.05 * max(first))
        legend(made, axes)
        caption = (
            f"Training loss against examples seen, {group}, mean over the runs done, as the "
            "thesis's Figure 6.7; above the highest loss of a first epoch it is cut off. Where "
            "the curves of all batches lie on one another, the batch size costs nothing."
        )
        alt = (
            f"Training loss against examples seen, one panel for each of {', '.join(names)}, "
            f"one line for each batch of {', '.join(f'{batch:,}' for batch in batches)}."
        )
        return finished(made, folder, "training_curves", caption, alt)


def _mean_loss(study, group, optimizer, batch):
    """Thousands of examples seen and mean loss, by epoch, over the runs that were done."""
    curves = [
        study.curves[run.cell]
        for run in study.of(group, optimizer=optimizer, global_batch_size=batch)
        if run.status == "done" and run.cell in study.curves
    ]
    epochs = [
        points for points in zip(*curves, strict=False) if all(p.loss is not None for p in points)
    ]
    seen = [points[0].examples_seen / 1000 for points in epochs]
    return seen, [float(np.mean([point.loss for point in points])) for points in epochs]
