"""Which variables are decayed and which adapted: patterns against variable paths."""

import collections.abc
import difflib
import re
import warnings
from typing import NamedTuple

BIAS_AND_NORM = r"(^|[/_])bias$|(^|/)(gamma|beta)$|(?i:norm)[^/]*/(scale|weight)$"
"""A regex for exclusion lists: biases (also those with a prefix, such as mlm_head/output_bias), and
the gamma, beta, scale and weight of normalisation layers."""


class Exclusion(NamedTuple):
    """One row of `exclusion_table()`: how a variable is treated, and by which pattern."""

    variable: str
    shape: tuple
    decayed: bool
    adapted: bool
    decay_pattern: str | None
    adaptation_pattern: str | None


def variable_path(variable):
    """The path of a Keras variable; for a bare `tf.Variable`, its name without ":0"."""
    path = getattr(variable, "path", None)
    return path if path is not None else variable.name.split(":")[0]


def as_patterns(entries, argument):
    """Checks an exclusion list and turns its variables into exact patterns.

    Args:
        entries: None, a regex, or a list of regexes and variables.
        argument: name of the argument, for the errors.

    Returns:
        (None or the list of patterns, those of them that may well match nothing: variables that
        weren't trainable, such as a layer's moving statistics)

    Raises:
        ValueError: for an entry that is neither, an empty one, or a regex that doesn't compile.
    """
    if entries is None:
        return None, frozenset()
    if isinstance(entries, str) or not isinstance(entries, collections.abc.Iterable):
        entries = [entries]
    patterns, silent = [], set()
    for entry in entries:
        pattern = entry
        if not isinstance(entry, str):
            if not hasattr(entry, "name") or not hasattr(entry, "shape"):
                raise ValueError(
                    f"`{argument}` must hold regular expressions (matched with re.search against "
                    f"variable paths) and Keras variables. Received: {entry!r} in {entries!r}. "
                    "For a layer, give its variables: [v for v in layer.variables]."
                )
            pattern = f"^{re.escape(variable_path(entry))}$"
            if not getattr(entry, "trainable", True):
                silent.add(pattern)
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`{argument}` must hold valid regular expressions. Received: {pattern!r} "
                f"({error}). Escape special characters with re.escape."
            ) from None
        if not pattern:
            raise ValueError(
                f"`{argument}` must not hold an empty pattern, which would exclude everything. "
                f"Received: {list(entries)!r}. Remove it; for everything, write '.'."
            )
        patterns.append(pattern)
    return patterns, frozenset(silent)


def resolve(paths, patterns, argument, silent=frozenset()):
    """For each path, the first pattern that matches it, or None.

    A pattern of a whole path, "^model/dense/kernel$", that matches nothing is tried without its
    first part: Keras drops a Sequential's own name from the paths of a loaded model.

    Warns of a pattern that matches nothing, but for the `silent` ones, and of a whole path that
    several variables share.

    Raises:
        ValueError: if such a pattern would match, but for case and underscores, a variable that no
            other pattern excludes: "layer_norm" never matched "LayerNorm".
    """
    search_for = {pattern: pattern for pattern in patterns}
    for pattern in patterns:
        whole = pattern.startswith("^") and pattern.endswith("$")
        if whole and pattern.count("/") > 1 and not _any_match(pattern, paths):
            search_for[pattern] = "^" + pattern.split("/", 1)[1]
    matched = [next((p for p in patterns if re.search(search_for[p], x)), None) for x in paths]
    for path, pattern in zip(paths, matched, strict=True):
        if pattern == f"^{re.escape(path)}$" and paths.count(path) > 1:
            warnings.warn(
                f"{paths.count(path)} variables share the path {path!r}, and `{argument}` excludes "
                "them all. Give their layers names of their own to tell them apart.",
                stacklevel=3,
            )
    for pattern in patterns:
        if _any_match(search_for[pattern], paths):
            continue
        missed = [
            path
            for path, match in zip(paths, matched, strict=True)
            if match is None and _nearly_matches(pattern, path)
        ]
        if missed:
            raise ValueError(
                f"The pattern {pattern!r} in `{argument}` matches no variable, but would match "
                f"{missed[:3]} if case and underscores were ignored, and no other pattern excludes "
                f"{'it' if len(missed) == 1 else 'them'}. Correct the pattern, or remove it."
            )
        if pattern not in silent:
            nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            warnings.warn(
                f"The pattern {pattern!r} in `{argument}` matches no variable. Nearest paths: "
                f"{nearest}. `summary()` of a built optimizer lists them all.",
                stacklevel=3,
            )
    return matched


def _any_match(pattern, paths):
    return any(re.search(pattern, path) for path in paths)


def _nearly_matches(pattern, path):
    """Whether the pattern, less case and underscores, matches from the start of a word of path."""
    try:
        loose = re.compile(pattern.replace("_", ""), re.IGNORECASE)
    except re.error:  # the underscore was part of the syntax
        return False
    places = [i for i, letter in enumerate(path) if letter != "_"]
    hits = loose.finditer("".join(path[i] for i in places)) if pattern.strip("_") else []
    for hit in hits:
        if hit.start() < len(places):
            i = places[hit.start()]
            if i == 0 or path[i - 1] in "/_" or path[i].isupper():
                return True
    return False


def format_table(rows):
    """The exclusion table as text, one line a variable."""
    header = ("variable", "shape", "decayed", "adapted", "excluded by")
    cells = [header] + [
        (
            row.variable,
            "x".join(map(str, row.shape)) or "scalar",
            "yes" if row.decayed else "no",
            "yes" if row.adapted else "no",
            " ".join(sorted({p for p in (row.decay_pattern, row.adaptation_pattern) if p})),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header) - 1)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)
        ).rstrip()
        for line in cells
    )
