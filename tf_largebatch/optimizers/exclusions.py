"""Which variables are decayed and which adapted: patterns against variable paths."""

import difflib
import re
import warnings
from typing import NamedTuple

# Biases (also those with a prefix, such as mlm_head/output_bias), and the gamma, beta and scale of
# normalisation layers.
BIAS_AND_NORM = r"(^|[/_])bias$|(^|/)(gamma|beta)$|(?i:norm)[^/]*/scale$"


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
        entries: None, a regex, or a list of regexes and `keras.Variable`s.
        argument: name of the argument, for the errors.

    Returns:
        None, or a list of strings.

    Raises:
        ValueError: for an entry that is neither, or a regex that doesn't compile.
    """
    if entries is None:
        return None
    if isinstance(entries, str) or hasattr(entries, "path"):
        entries = [entries]
    patterns = []
    for entry in entries:
        if not isinstance(entry, str):
            if not hasattr(entry, "name") or not hasattr(entry, "shape"):
                raise ValueError(
                    f"`{argument}` must hold regular expressions (matched with re.search against "
                    f"variable paths) and Keras variables. Received: {entry!r} in {entries!r}. "
                    "For a layer, give its variables: [v for v in layer.variables]."
                )
            if not getattr(entry, "trainable", True):
                continue  # a layer's moving statistics: no optimizer meets them
            entry = _exact_pattern(variable_path(entry))
        try:
            re.compile(entry)
        except re.error as error:
            raise ValueError(
                f"`{argument}` must hold valid regular expressions. Received: {entry!r} "
                f"({error}). Escape special characters with re.escape."
            ) from None
        patterns.append(entry)
    return patterns


def _exact_pattern(path):
    # A loaded Sequential's paths lack the model's own name, so that the first part is optional.
    root, rest = path.split("/", 1) if path.count("/") > 1 else ("", path)
    return f"^(?:{re.escape(root)}/)?{re.escape(rest)}$" if root else f"^{re.escape(rest)}$"


def resolve(paths, patterns, argument):
    """For each path, the first pattern that matches it, or None.

    Warns of a pattern that matches nothing.

    Raises:
        ValueError: if such a pattern would match, but for case and underscores, a variable that no
            other pattern excludes: "layer_norm" never matched "LayerNorm".
    """
    matched = [next((p for p in patterns if re.search(p, path)), None) for path in paths]
    for pattern in patterns:
        if any(re.search(pattern, path) for path in paths):
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
        nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
        warnings.warn(
            f"The pattern {pattern!r} in `{argument}` matches no variable. Nearest paths: "
            f"{nearest}. `summary()` of a built optimizer lists them all.",
            stacklevel=3,
        )
    return matched


def _nearly_matches(pattern, path):
    try:
        loose = re.compile(pattern.replace("_", ""), re.IGNORECASE)
    except re.error:  # the underscore was part of the syntax
        return False
    return bool(pattern.replace("_", "")) and loose.search(path.replace("_", "")) is not None


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
