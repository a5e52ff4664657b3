"""What every result tells: machine, versions, date and command; and how figures are printed."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys

# Packages whose versions can explain a figure; those that aren't installed are left out.
PACKAGES = ("tensorflow", "keras", "jax", "optax", "numpy")


def processor():
    """The processor's name, as far as the system tells."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(x.partition(":")[2].strip() for x in text.splitlines() if "model name" in x)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def provenance(packages=PACKAGES, command=None):
    """Date, command, machine and versions, as a list in Markdown.

    Args:
        packages: names of distributions whose versions are told.
        command: the script and its arguments; None: those of this process.
    """
    versions = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    script, *arguments = command or sys.argv
    command = shlex.join([f"benchmarks/{pathlib.Path(script).name}", *map(str, arguments)])
    return "\n".join(
        [
            f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC{_code()}",
            f"- command: `PYTHONPATH=. python {command}`",
            f"- machine: {processor()}, {platform.machine()}, {cores()} cores, "
            f"{platform.system()}; load {_load()} at the end",
            f"- versions: {', '.join(versions)}",
        ]
    )


def spread(values, digits=2):
    """Median and quartiles, as they are printed.

    >>> spread([3.0, 1.0, 2.0])
    '2.00 (1.50 - 2.50)'
    >>> spread([3.0])
    '3.00'
    """
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:,.{digits}f} ({low:,.{digits}f} - {high:,.{digits}f})"


def table(columns, rows):
    """Rows of cells as a table in Markdown.

    >>> print(table(["a", "b"], [[1, "x"]]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = [columns, *rows]
    body = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join([body[0], "|" + "---|" * len(columns), *body[1:]])


def write(path, text):
    """Writes a text whole or not at all; makes its folder."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _code():
    """The commit, where there is one, and whether the files differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, timeout=20,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", commit {found.stdout.strip()}"


def _load():
    """Runnable processes in the last minute, which says whether others used the machine too."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
