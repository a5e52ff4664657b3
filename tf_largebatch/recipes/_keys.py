"""What the value of a recipe key may be, and the one sentence that each mistake gets."""

import dataclasses
import difflib
import math
import numbers
import types
import typing


class Range(typing.NamedTuple):
    """A set of numbers, and the words that finish the sentence "must be a number ..."."""

    words: str
    holds: typing.Callable[[float], bool]


ABOVE_0 = Range("above 0", lambda x: x > 0)
AT_LEAST_0 = Range("of at least 0", lambda x: x >= 0)
BELOW_1 = Range("in [0, 1)", lambda x: 0 <= x < 1)
UP_TO_1 = Range("in (0, 1]", lambda x: 0 < x <= 1)
EXIT_CODE = Range("from 1 to 255", lambda x: 1 <= x <= 255)


def key(default, text, *, within=None, choices=None) -> typing.Any:
    """A dataclass field with its help sentence, and its range or choices, in the metadata."""
    metadata = {"help": text, "within": within, "choices": choices}
    return dataclasses.field(
        default=default, metadata={k: v for k, v in metadata.items() if v is not None}
    )


def checked(field, value):
    """`value` as the type of a dataclass field: ints become floats, lists become tuples.

    Args:
        field: A `dataclasses.Field` made by `key`; its type is one of the eight below, or one of
            them `| None`.
        value: What a TOML file, a flag or a caller gave.

    Raises:
        ValueError: Naming the key, what was expected, what was received and how to mend it.

    >>> import dataclasses
    >>> field = dataclasses.make_dataclass("Row", [("rate", float | None, key(None, "A rate."))])
    >>> checked(dataclasses.fields(field)[0], 3)
    3.0
    """
    kind = field.type
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(t for t in typing.get_args(kind) if t is not types.NoneType)
    expected, convert = _KINDS[kind]
    choices, within = field.metadata.get("choices"), field.metadata.get("within")
    if choices:
        expected = f"one of {', '.join(choices)}"
    elif within:
        expected = f"{expected} {within.words}"
    result = convert(value)
    fits = result is not None
    if fits and choices:
        fits = result in choices
    elif fits and within:
        fits = within.holds(result)
    if fits:
        return result
    raise ValueError(
        f"{field.name} must be {expected}. Received: {field.name}={value!r}. "
        f"{_mend(field, kind, value, choices)}"
    )


def nearest(word, known):
    """A sentence that helps whoever misspelt `word`, one of the strings `known`."""
    close = difflib.get_close_matches(str(word), list(known), n=3)
    return f"Nearest: {', '.join(close)}." if close else f"Known: {', '.join(known)}."


def _mend(field, kind, value, choices):
    number = _finite(value)
    if isinstance(value, str):
        if choices and difflib.get_close_matches(value, choices):
            return nearest(value, choices)
        if kind == tuple[str, ...]:
            return f"Write [{value!r}]."
        if kind is not str and (value in _BOOLS or _finite(_parsed(value)) is not None):
            return "Write it without quotes."
    elif kind is str and number is not None:
        return f'Write "{value}", with quotes.'
    elif kind is int and number is not None and number > 1:
        whole = sorted({math.floor(number), math.ceil(number)})
        return f"Nearest: {', '.join(map(str, whole))}."
    if field.default is dataclasses.MISSING:
        return "Correct it."
    if field.default is None:
        return "Correct it, or leave it out."
    return f"The default is {field.default!r}."


_BOOLS = ("true", "false", "True", "False")


def _parsed(text):
    try:
        return float(text)
    except ValueError:
        return None


# Each of these returns the converted value, or None where it doesn't fit.


def _whole(value):
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if is_whole else None


def _finite(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int past 1.8e308
        return None
    return number if math.isfinite(number) else None


def _text(value):
    return value if isinstance(value, str) and value else None


def _flag(value):
    return value if isinstance(value, bool) else None


def _sequence(value, convert) -> tuple | None:
    if not isinstance(value, (list, tuple)):
        return None
    entries = [convert(entry) for entry in value]
    return None if None in entries else tuple(entries)


def _pair(value):
    pair = _sequence(value, _finite)
    if pair is None or len(pair) != 2:
        return None
    low, high = pair
    return (low, high) if 0 <= low <= high else None


_KINDS = {
    int: ("a whole number", _whole),
    float: ("a finite number", _finite),
    str: ("a string", _text),
    bool: ("true or false", _flag),
    tuple[float, float]: ("a pair [low, high] of finite numbers with 0 <= low <= high", _pair),
    tuple[int, ...]: ("a list of whole numbers", lambda value: _sequence(value, _whole)),
    tuple[float, ...]: ("a list of finite numbers", lambda value: _sequence(value, _finite)),
    tuple[str, ...]: ("a list of non-empty strings", lambda value: _sequence(value, _text)),
}
