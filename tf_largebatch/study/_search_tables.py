"""The report's tables on searches: learning-rate sweeps, ablations, trials of tuning."""

from tf_largebatch.study import _measures as measures
from tf_largebatch.study._reading import count_diverged, done
from tf_largebatch.study._statistics import difference
from tf_largebatch.study._tables import NONE, Table, settings_text, value_text
from tf_largebatch.study._verdict import digits, drop_text


def sweeps(study):
    """The best learning rate and the stable interval of every sweep."""
    places, rows = digits(study), []
    for found in measures.sweeps(study):
        grid = f"{found.rates[0]:.3g} to {found.rates[-1]:.3g} ({len(found.rates)})"
        diverged = str(found.means.count(None))
        if found.stable is None:
            rows.append([found.optimizer, f"{found.batch:,}", grid, diverged, *[NONE] * 4])
            continue
        first, last = (found.rates[end] for end in found.stable)
        ends = ("≤ " if found.stable[0] == 0 else "", "≥ " if last == found.rates[-1] else "")
        rows.append(
            [
                found.optimizer,
                f"{found.batch:,}",
                grid,
                diverged,
                f"{found.rates[found.best]:.3g}",
                f"{100 * found.means[found.best]:.{places}f}",
                f"{ends[0]}{first:.3g} to {ends[1]}{last:.3g}",
                f"{'≥ ' if any(ends) else ''}{last / first:.3g}",
            ]
        )
    caption = (
        "Learning-rate sweeps. Stable: the rates around the best one whose mean is within "
        f"{100 * measures.STABLE_MARGIN:g} point of it with no diverged run; "
        "≤ and ≥ where the interval meets the end of the grid"
    )
    head = ["Optimizer", "Batch", "Rates tried", "Diverged", "Best rate", "Its value, %"]
    return Table(caption, [*head, "Stable rates", "Last / first"], rows)


def ablations(study):
    """Each variant beside the same optimizer's untuned runs of the same batch."""
    places, rows = digits(study), []
    for name in study.optimizers("ablation"):
        for variant in dict.fromkeys(run.variant for run in study.of("ablation", optimizer=name)):
            for batch in study.batches("ablation"):
                runs = study.of(
                    "ablation", optimizer=name, variant=variant, global_batch_size=batch
                )
                if not runs:
                    continue
                plain = study.of("untuned", optimizer=name, global_batch_size=batch)
                values, usual = ([100 * it for it in done(some)] for some in (runs, plain))
                change = difference(values, usual) if values and usual else None
                rows.append(
                    [
                        f"{name}, {variant}" if variant else name,
                        f"{batch:,}",
                        value_text(runs, places),
                        value_text(plain, places),
                        drop_text(change, places) or NONE,
                    ]
                )
    caption = (
        "Ablations: the variant, the optimizer's untuned runs, and the change from these in "
        "points with its 95 % interval (Welch's t)"
    )
    return Table(caption, ["Variant", "Batch", "With it, %", "Untuned, %", "Change"], rows)


def space(study):
    """The space that tuning searched, by optimizer."""
    tuning = study.info["tuning"]
    rows = [
        [name, key.replace("_", " "), ", ".join(map(_plain, values))]
        for name, lists in tuning["space"].items()
        for key, values in lists.items()
    ]
    caption = (
        f"What tuning searched: {tuning['method']}, {tuning['trials']} trials for every "
        f"optimizer and batch, with seed {tuning.get('tuning_seed', 'unknown')}"
    )
    return Table(caption, ["Optimizer", "Setting", "Values"], rows)


def winners(study, group):
    """The winning trial of each optimizer and batch, among how many.

    Args:
        group: "trial", or "base" for the search of base learning rates.
    """
    places, rows = digits(study), []
    for name in study.optimizers(group):
        for batch in study.batches(group):
            trials = study.of(group, optimizer=name, global_batch_size=batch)
            if trials:
                won = measures.winner(study, group, name, batch)
                rows.append(
                    [
                        name,
                        f"{batch:,}",
                        str(len(trials)),
                        str(count_diverged(trials)),
                        settings_text(won) + _edge(won, trials) if won else "not run yet",
                        value_text([won], places) if won else NONE,
                    ]
                )
    caption = (
        "Trials, of one seed each, and the settings that won: those of the "
        f"{measures.WINS[group]} runs. A better rate may lie beyond one at the edge"
    )
    head = ["Optimizer", "Batch", "Trials", "Diverged", "Winner", "Its value, %"]
    return Table(caption, head, rows)


def _edge(won, trials):
    """Says where a better rate may lie beyond those that were tried."""
    rates = sorted({trial.learning_rate for trial in trials})
    if len(rates) < 2 or won.learning_rate not in (rates[0], rates[-1]):
        return ""
    return f"; the {'lowest' if won.learning_rate == rates[0] else 'highest'} rate tried"


def _plain(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)
