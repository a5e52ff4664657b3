"""What tables and figures both show: updates to the target, learning-rate sweeps, trials."""

import math
import statistics
from typing import NamedTuple

from tf_largebatch.study._reading import Run, count_diverged, done
from tf_largebatch.study._statistics import stable_interval, summary

TARGET_MARGIN = 0.01  # below the lowest mean at the base batch, where no target is given
WINS = {"trial": "tuned", "base": "untuned"}  # the group that runs what a search has found
STABLE_MARGIN = 0.01  # of the best learning rate's mean


class Updates(NamedTuple):
    """Updates until the held-out metric first reached the target at the end of an epoch.

    median: over all runs, infinite for those that never did; so it may be infinite itself.
    """

    median: float
    reached: int
    runs: int


class Sweep(NamedTuple):
    """An optimizer's learning-rate sweep at one batch; `rates` increase.

    means: over the seeds that were done; None where one of them diverged.
    stable: indices of the first and the last stable rate; None if every rate diverged.
    """

    optimizer: str
    batch: int
    rates: list[float]
    means: list[float | None]
    stable: tuple[int, int] | None

    @property
    def best(self):
        """The index of the rate with the highest mean."""
        reached = [-math.inf if mean is None else mean for mean in self.means]
        return reached.index(max(reached))


def target(study):
    """The target of the metric, a fraction, and the words that say where it is from.

    Returns:
        (target, words); (None, "") if none is given and nothing was done at the base batch.
    """
    if study.info.get("target") is not None:
        return study.info["target"], "as given"
    for group in ("untuned", "tuned"):
        means = {
            name: summary(values).mean
            for name in study.optimizers(group)
            if (values := done(study.of(group, optimizer=name, global_batch_size=study.base_batch)))
        }
        if means:
            lowest = min(means, key=means.get)
            words = (
                f"{100 * TARGET_MARGIN:g} point below the lowest mean at batch "
                f"{study.base_batch:,}, {group}: that of {lowest}"
            )
            return means[lowest] - TARGET_MARGIN, words
    return None, ""


def updates_to_target(study, group, optimizer, batch, wanted):
    """The updates to the target of an optimizer at a batch; None if no run has a curve.

    Args:
        wanted: the target of the metric, a fraction.
    """
    counts = []
    for run in study.of(group, optimizer=optimizer, global_batch_size=batch):
        if run.cell in study.curves and run.status != "failed":
            reached = (
                epoch.update
                for epoch in study.curves[run.cell]
                if epoch.val_metric is not None and epoch.val_metric >= wanted
            )
            counts.append(next(reached, math.inf))
    if not counts:
        return None
    median = float(statistics.median(counts))
    return Updates(median, sum(map(math.isfinite, counts)), len(counts))


def sweeps(study):
    """All learning-rate sweeps: by optimizer, then by batch."""
    found = []
    for optimizer in study.optimizers("sweep"):
        for batch in study.batches("sweep"):
            by_rate = {}
            for run in study.of("sweep", optimizer=optimizer, global_batch_size=batch):
                if run.status != "failed":
                    by_rate.setdefault(run.learning_rate, []).append(run)
            rates = sorted(by_rate)
            means = [
                None if count_diverged(by_rate[rate]) else summary(done(by_rate[rate])).mean
                for rate in rates
            ]
            if rates:
                stable = stable_interval(rates, means, STABLE_MARGIN)
                found.append(Sweep(optimizer, batch, rates, means, stable))
    return found


def winner(study, group, optimizer, batch) -> Run | None:
    """The trial whose settings the runs of the group in WINS have; None if there are none yet."""
    winners = study.of(WINS[group], optimizer=optimizer, global_batch_size=batch)
    if not winners:
        return None
    trials = study.of(group, optimizer=optimizer, global_batch_size=batch)
    return next((trial for trial in trials if _settings(trial) == _settings(winners[0])), None)


def _settings(run):
    return tuple(
        None if value is None else float(f"{value:.6g}")
        for value in (run.learning_rate, run.warmup_epochs, run.weight_decay)
    )
