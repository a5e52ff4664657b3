"""What the compiler's texts say: collectives, memory limits, and what its answer means."""

import collections
import math
import re
import signal
from typing import NamedTuple

# Bits of an element, by HLO's name of its type.
_BITS = {"pred": 8, "token": 0}
_BITS |= {f"{kind}{bits}": bits for kind in "su" for bits in (1, 2, 4, 8, 16, 32, 64)}
_BITS |= {"bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all",
    "ragged-all-to-all", "collective-broadcast",
)  # fmt: skip
# "%name = type operation(operands)": where it is started; "-done" moves nothing more.
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%?[\w.-]+ = (.+?) ({'|'.join(_COLLECTIVES)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=\s]*)\]")
_LAYOUT = re.compile(r"\{[^{}]*\}|/\*.*?\*/")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{\s*$")
# Where the compiler lets each core make a part of the update, it cuts the sum in two: computations
# of these names, in which an all-reduce of the whole array stands for what is done.
_WRITTEN_AS_SUMS = (("all-reduce-scatter", "reduce-scatter"), ("all-gather", "all-gather"))
# The types of these begin with what is sent, then what is received.
_TWO_SIDED = ("all-gather", "collective-permute")

_OUT_OF_MEMORY = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

COMPILING = "COMPILING"  # what a process prints when it comes to the compiler
# What an answer may be; only the first is a success.
COMPILED, REJECTED, ABORTED, ERROR = "compiled", "rejected", "aborted", "error"


class Collective(NamedTuple):
    """Operations of one kind in a program: how many, and the bytes of their results."""

    operation: str
    count: int
    nbytes: int


def collectives(hlo):
    """The collectives of an optimised program.

    Args:
        hlo: its text, as XLA prints it. What lies in a loop's body counts once.

    Returns:
        A list of `Collective`, by name.

    Raises:
        ValueError: for a type of unknown size.

    >>> collectives("  %a.1 = (f32[2,3]{1,0:T(8,128)}, bf16[4]{0}) all-reduce(%b, %c), x=1")
    [Collective(operation='all-reduce', count=1, nbytes=32)]
    """
    counts, sizes, computation = collections.Counter(), collections.Counter(), ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            computation = header[1]
        found = _OPERATION.match(line)
        if found is None:
            continue
        kind, operation, start = found.groups()
        operation = next((o for name, o in _WRITTEN_AS_SUMS if name in computation), operation)
        kind = _without_layouts(kind)
        if start and operation in _TWO_SIDED:
            kind = _parts(kind)[1]
        counts[operation] += 1
        sizes[operation] += _nbytes(kind)
    return [Collective(name, counts[name], sizes[name]) for name in sorted(counts)]


def _without_layouts(kind):
    while (shorter := _LAYOUT.sub("", kind)) != kind:
        kind = shorter
    return kind


def _parts(kind):
    """The types in a tuple's type."""
    parts, depth = [""], 0
    for letter in kind.strip()[1:-1]:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _nbytes(kind):
    total = 0
    for dtype, sizes in _ARRAY.findall(kind):
        # Types of eight bits and fewer say so in their names: f8e4m3fn, f4e2m1fn.
        bits = _BITS.get(dtype) or next(iter(map(int, re.findall(r"^f([468])e", dtype))), None)
        if bits is None and dtype not in _BITS:
            raise ValueError(f"The size of {dtype} is not known. Received: {kind}.")
        dimensions = [int(n.removeprefix("<=")) for n in re.split(r"[,\s]+", sizes) if n]
        total += math.ceil(math.prod(dimensions) * (bits or 0) / 8)
    return total


def memory_limit(message):
    """(bytes wanted, bytes that a core has) in the message of a program that is too big, or None.

    >>> memory_limit("Ran out of memory on HBM, (3.00G) exceeds available HBM (1.5G). See")
    (3221225472, 1610612736)
    """
    found = _OUT_OF_MEMORY.search(message)
    if found is None:
        return None
    wanted, wanted_unit, limit, limit_unit = found.groups()
    return round(float(wanted) * _UNIT[wanted_unit]), round(float(limit) * _UNIT[limit_unit])


def answer_of(returncode, result, compiling):
    """What a process that compiled says about its program.

    Args:
        returncode: of the process, as `subprocess` has it: below 0, the signal that ended it.
        result: the status that it reported, or None.
        compiling: whether it had come to the compiler.

    Returns:
        `COMPILED`; `REJECTED`, by the compiler's own error; `ABORTED`, where the compiler ended the
        process; `ERROR` for all else, which says nothing about the program.

    >>> answer_of(0, "compiled", True), answer_of(1, None, True), answer_of(-6, None, True)
    ('compiled', 'error', 'aborted')
    """
    if returncode == 0 and result in (COMPILED, REJECTED):
        return result
    # As a shell writes it, too: 128 and the signal.
    crashes = (signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGBUS)
    crashed = returncode in [-s for s in crashes] + [128 + s for s in crashes]
    return ABORTED if compiling and crashed and result is None else ERROR


def exit_code(steps, controls):
    """0: all compiles; 1: a step does not; 2: the check itself failed, and says nothing.

    Args:
        steps: the answers about the steps.
        controls: pairs (answer, expected answer) about programs of which it is known.

    >>> exit_code(["compiled"], [("rejected", "rejected")])
    0
    >>> exit_code(["compiled", "aborted"], []), exit_code(["compiled"], [("error", "rejected")])
    (1, 2)
    """
    if ERROR in steps or any(found != expected for found, expected in controls):
        return 2
    return int(any(answer != COMPILED for answer in steps))
