"""What a study shows, in words that follow from its numbers by the rules in RULES."""

from typing import NamedTuple

from tf_largebatch.study import _rules
from tf_largebatch.study._reading import count_diverged, done
from tf_largebatch.study._statistics import Difference, decimals, difference, summary

THIS_PACKAGE = frozenset({"lamb", "lars", "nlamb", "nnlamb"})
MARGINS = (0.5, 1.0)  # points, increasing
GROUPS = ("untuned", "tuned")

RULES = (
    "A point is one per cent of the metric. Intervals are 95 % by Welch's t over the seeds; they "
    "cover the choice of the seed, not that of the held-out examples, and aren't corrected for "
    "the number of comparisons.",
    "The drop of an optimizer is its mean at the base batch less its mean at the batch. Tuned "
    "runs are measured from tuned runs of the base batch, from untuned ones if there are none.",
    f"An optimizer holds its accuracy within {MARGINS[0]} or {MARGINS[1]} points if the whole "
    f"interval of the drop does; it loses more if the whole interval is above {MARGINS[1]}; "
    "otherwise the seeds leave it open. Without an interval, as with one seed, it isn't known.",
    "Diverged runs are counted and in no mean. An optimizer with one at a batch doesn't hold "
    "there; with one at the base batch, what it holds isn't known.",
    "This package's optimizers are lamb, lars, nlamb and nnlamb, also with _l2 (L2 regularisation) "
    "and a + (warmup and steps down as Goyal et al. 2017); all others are baselines, Keras' own "
    "LAMB (keras_lamb) among them. The best of either is the one with the smallest share of "
    "diverged runs and, among these, the highest mean: chosen after the fact on both sides, so "
    "that the side with more candidates has the better chance.",
    "The best baseline is as good as the best of this package if the interval of their "
    "difference covers 0, and better or worse if it doesn't. If their shares of diverged runs "
    "differ, the smaller share is better, whatever the means.",
    "Untuned runs are compared with untuned, tuned with tuned. Settings were tuned on the very "
    "held-out examples that are reported here, with another seed, and so were the base learning "
    "rates that weren't given: this favours what was tuned, all optimizers alike. How base "
    "learning rates that were given had been found isn't known here. What the recipe sets for all "
    "(the fall of the rate, label smoothing and the like), and the rate around which its own "
    "optimizer and that one's kin are tried, was chosen for its own optimizer: this favours that.",
)


class Side(NamedTuple):
    """An optimizer's runs at one batch: values of those done, in points, and the diverged."""

    optimizer: str
    values: list[float]
    diverged: int

    @property
    def runs(self):
        return len(self.values) + self.diverged


class Match(NamedTuple):
    """The best of this package against the best baseline; `winner` a key of _OUTCOMES."""

    group: str
    batch: int
    package: Side
    baseline: Side
    difference: Difference | None  # the package's mean less the baseline's
    winner: str


_OUTCOMES = {
    "equal": "{baseline} is as good as {package}",
    "baseline": "{baseline} is better than {package}",
    "package": "{package} is better than {baseline}",
    "unknown": "whether {baseline} is as good as {package} isn't known",
}


def side(study, group, optimizer, batch):
    """The runs of an optimizer at a batch, in points; None if none was done or diverged."""
    runs = study.of(group, optimizer=optimizer, global_batch_size=batch)
    found = Side(optimizer, [100 * value for value in done(runs)], count_diverged(runs))
    return found if found.runs else None


def drop(study, group, optimizer, batch):
    """The drop from the base batch.

    Returns:
        (group that it is measured from, Difference): the second None where a mean is missing.
    """
    now = side(study, group, optimizer, batch)
    for reference in dict.fromkeys((group, "untuned")):
        base = side(study, reference, optimizer, study.base_batch)
        if base:
            known = now and now.values and base.values and not base.diverged
            return reference, difference(base.values, now.values) if known else None
    return group, None


def holds(study, group, optimizer, batch):
    """The word for a drop: a margin of MARGINS, "loses", "open", "diverges" or "unknown"."""
    now = side(study, group, optimizer, batch)
    if now is None:
        return "unknown"
    if now.diverged:
        return "diverges"
    found = drop(study, group, optimizer, batch)[1]
    if found is None or found.high is None:
        return "unknown"
    for margin in MARGINS:
        if found.high <= margin:
            return margin
    return "loses" if found.low > MARGINS[-1] else "open"


def match(study, group, batch):
    """The best of this package against the best baseline; None if a side has no run."""

    def best(of_package):
        sides = [
            side(study, group, name, batch)
            for name in study.optimizers(group)
            if _is_of_package(name) == of_package
        ]
        return min(
            filter(None, sides),
            key=lambda it: (it.diverged / it.runs, -(summary(it.values).mean or 0)),
            default=None,
        )

    package, baseline = best(True), best(False)
    if package is None or baseline is None:
        return None
    both = bool(package.values and baseline.values)
    found = difference(package.values, baseline.values) if both else None
    return Match(group, batch, package, baseline, found, _winner(package, baseline, found))


def _is_of_package(optimizer):
    return _rules.without_suffixes(optimizer) in THIS_PACKAGE


def _winner(package, baseline, found):
    shares = package.diverged / package.runs, baseline.diverged / baseline.runs
    if shares[0] != shares[1]:
        return "package" if shares[0] < shares[1] else "baseline"
    if found is None or found.low is None:
        return "unknown"
    if found.low > 0:
        return "package"
    return "baseline" if found.high < 0 else "equal"


def sentences(study):
    """The verdict at each group's largest batch: pairs (what it is about, a sentence on it)."""
    found = []
    for group in GROUPS:
        for batch in study.batches(group)[-1:]:
            about = f"Batch {batch:,}, {group}"
            if batch != study.base_batch:
                against = f"{about}, drop from batch {study.base_batch:,} in points"
                found.append((against, holding(study, group, batch)))
            compared = match(study, group, batch)
            if compared:
                found.append((about, comparison(compared, digits(study))))
    names = study.optimizers(*GROUPS)
    if not names:
        return [("No verdict", "there is no untuned or tuned run yet.")]
    for of_package, whom in ((True, "optimizer of this package"), (False, "baseline")):
        if of_package not in map(_is_of_package, names):
            found.append(("No comparison", f"no {whom} is in the accuracy runs."))
    return found


def holding(study, group, batch):
    """The sentence on which optimizers hold their accuracy at a batch, with their drops."""
    words = {
        **{margin: f"hold within {margin} points" for margin in MARGINS},
        "open": "left open",
        "loses": f"lose more than {MARGINS[-1]} points",
        "diverges": "diverge",
        "unknown": "not known",
    }
    places = digits(study)
    lists = {word: [] for word in words}
    for name in study.optimizers(group):
        now = side(study, group, name, batch)
        if now:
            change = drop(study, group, name, batch)[1]
            said = f"{change.value:z.{places}f}" if change else ""
            if now.diverged:
                said = f"in {now.diverged} of {now.runs}"
            word = holds(study, group, name, batch)
            lists[word].append(f"{name} {said}".rstrip())
    parts = [f"{words[word]}: {', '.join(names)}" for word, names in lists.items() if names]
    return f"{'; '.join(parts)}."


def comparison(found, places):
    """The sentence on a match.

    Args:
        found: a Match.
        places: digits after the point.
    """
    package, baseline = found.package, found.baseline
    parts = [outcome(found)]
    parts.append(
        " against ".join(
            f"{it.optimizer} {_mean(it, places)} (n = {len(it.values)}"
            + (f", {it.diverged} of {it.runs} diverged)" if it.diverged else ")")
            for it in (package, baseline)
        )
    )
    if found.difference:
        text = f"difference {drop_text(found.difference, places)} points"
        if found.difference.low is None:
            text += ", without an interval"
        parts.append(text)
        beyond = max(abs(found.difference.low or 0), abs(found.difference.high or 0))
        if found.winner == "equal" and beyond > MARGINS[-1]:
            parts.append(f"a difference of up to {beyond:.{places}f} points isn't ruled out")
    return "; ".join(parts) + "."


def outcome(found):
    """The words for the winner of a Match; of an unknown one, whose mean is higher."""
    names = {"package": found.package.optimizer, "baseline": found.baseline.optimizer}
    words = _OUTCOMES[found.winner].format(**names)
    if found.winner == "unknown" and found.difference and found.difference.value:
        words += (
            f", {names['package' if found.difference.value > 0 else 'baseline']}'s mean is higher"
        )
    return words


def _mean(it, places):
    mean = summary(it.values).mean
    return "no value" if mean is None else f"{mean:.{places}f}"


def drop_text(found, places):
    """A difference in points with its interval, "0.11 [-0.35, 0.57]"; "" for None."""
    if found is None:
        return ""
    text = f"{found.value:z.{places}f}"
    if found.low is None:
        return text
    return f"{text} [{found.low:z.{places}f}, {found.high:z.{places}f}]"


def digits(study):
    """Digits after the point of a percentage: what the held-out examples and seeds warrant."""
    examples = study.info.get("num_held_out_examples")
    return 2 if examples is None else decimals(examples * max(1, len(study.info["seeds"])))
