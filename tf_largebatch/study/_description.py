"""study.json: what a study is, where it runs, and whether a command may go on with it."""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform

from tf_largebatch import __version__
from tf_largebatch.study import _processes


def check_same(before, now, folder):
    """Refuses a command that would change a run that the folder has, or plans.

    Args:
        before: settings of the command that began the study, a dict; {} for a new one.
        now: those of the command to go on with. Lists and dicts in it may have grown, and there
            may be more keys.
        folder: of the study.

    Raises:
        ValueError: if anything else has changed.
    """
    for key, old in before.items():
        new = now.get(key)
        if old == new:
            continue
        grows = isinstance(old, list) and isinstance(new, list) and set(old) <= set(new)
        if isinstance(old, dict) and isinstance(new, dict):
            grows = old.items() <= new.items()
        if not grows:
            raise ValueError(
                f"The folder {folder} holds a study with another {key}. Received: "
                f"{_said(new)}, where it was {_said(old)}. A study may be given more optimizers, "
                "batch sizes, seeds or parts, not others: repeat its command, or name another "
                "--out."
            )


def _said(value):
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value in (None, "", {}) else str(value)


def read(folder):
    """What study.json of a folder holds; {} if there is no such folder yet.

    Raises:
        ValueError: if it can't be read, or the folder holds something else.
    """
    path = os.path.join(folder, "study.json")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if not isinstance(found, dict):
            raise ValueError("it must be an object")
        return found
    except FileNotFoundError:
        if os.path.isdir(folder) and os.listdir(folder):
            raise ValueError(
                f"--out must be a study's folder, or a new one. Received: {folder}, which holds "
                f"{', '.join(sorted(os.listdir(folder))[:3])} and no study.json. Name another."
            ) from None
        return {}
    except ValueError as error:
        raise ValueError(f"{path} can't be read: {error}. Name another --out.") from None


@functools.cache
def versions():
    """Of Python and the packages that decide what a run computes."""
    named = importlib.metadata.packages_distributions().get("tensorflow", [])
    return {
        "python": platform.python_version(),
        "tensorflow": importlib.metadata.version(named[0]) if named else None,
        "keras": importlib.metadata.version("keras"),
        "tf_largebatch": __version__,
    }


def machine():
    """The processor and the number of cores that may be used."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {_processes.cores()} cores"
