"""What a program compiled by XLA sends over a grid of devices, counted in its text."""

import math
import re
from typing import NamedTuple

import numpy as np

_WIDTHS = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}  # bytes
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)")
_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)"
    r"(-start)?\("
)


class Traffic(NamedTuple):
    """What a compiled program sends.

    rounds and bytes_in_sequence: of the longest chain of exchanges that need each other's results,
    or of those that share the links of one dimension, whichever is more. hops: links that are
    crossed in those rounds. bytes_sent: by each device in all.
    """

    rounds: int
    hops: int
    bytes_in_sequence: int
    bytes_sent: int


def count(program, rows, columns):
    """The `Traffic` of a compiled program.

    Args:
        program: its HLO as text, for partitions that are the devices of a grid, row by row.
        rows, columns: of the grid.

    Raises:
        ValueError: If it sends by anything but exchanges in its main computation.
    """
    entry = program.partition("\nENTRY ")[2].partition("\n}")[0]
    # Of each value the longest chains that lead to it: exchanges, hops, bytes.
    longest, on_links, sent = {}, {"x": np.zeros(3, int), "y": np.zeros(3, int)}, 0
    exchanges = 0
    for line in entry.splitlines()[1:]:
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        operands = [longest[o] for o in re.findall(r"%([\w.-]+)", rest) if o in longest]
        chain = np.max([np.zeros(3, int), *operands], axis=0)
        if operation == "collective-permute":
            distance, dimensions = _distance(rest, rows, columns)
            size = _bytes(shape)
            step = np.array([1, distance, size])
            chain = chain + step
            for dimension in dimensions:
                on_links[dimension] += step
            exchanges, sent = exchanges + 1, sent + size
        longest[name] = chain
    if len(_COLLECTIVE.findall(program)) != exchanges:
        names = sorted({name for name, _ in _COLLECTIVE.findall(program)})
        raise ValueError(
            "Only collective-permutes outside of loops and of called computations can be counted. "
            f"Received: {exchanges} such ones in a program with {', '.join(names)}."
        )
    rounds, hops, size = np.max([*longest.values(), *on_links.values()], axis=0).tolist()
    return Traffic(rounds, hops, size, sent)


def _distance(text, rows, columns):
    """(links that the farthest message crosses, dimensions that are used) of an exchange."""
    (pairs,) = re.findall(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", text)
    pairs = np.array(re.findall(r"(\d+),(\d+)", pairs), int)  # (messages, 2)
    places = np.stack(np.unravel_index(pairs, (rows, columns)), axis=-1)  # (messages, 2, yx)
    apart = np.abs(places[:, 0] - places[:, 1])
    apart = np.minimum(apart, np.array([rows, columns]) - apart)  # around, where that is shorter
    used = [dimension for i, dimension in enumerate("yx") if apart[:, i].any()]
    return int(apart.sum(axis=1).max()), used


def _bytes(shape):
    """The bytes of an HLO shape, such as f32[2,3]{1,0}, or of a tuple of such."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(_WIDTHS[kind] * math.prod(map(int, re.findall(r"\d+", by))) for kind, by in arrays)
