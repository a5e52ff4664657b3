"""What a check finds, and how that is printed."""

import json
import textwrap
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One line of the report.

    state: "ok", "warning", "failed", "unknown" (the check itself broke), "skipped"; of packages
    "absent"; of strategies "works", "not offered"; of faults "present", "mended".
    """

    section: str
    name: str
    state: str
    value: Any = None  # what a program reads: a version, a count, a size; JSON-serialisable
    note: str = ""  # what a person reads


def guarded(section, name, check, *args, essential=False):
    """The findings of a check; what it raises becomes one, a failure if the check is essential."""
    found = []
    try:
        for finding in check(*args):
            found.append(finding)
    except Exception as error:  # noqa: BLE001 - whatever one check meets, the report goes on
        words = " ".join(str(error).split())[:300]
        state = "failed" if essential else "unknown"
        found.append(Finding(section, name, state, None, f"{type(error).__name__}: {words}"))
    return found


def report(findings, form):
    """Prints the findings as a table or as one JSON object."""
    ok = all(finding.state != "failed" for finding in findings)
    if form == "json":
        print(json.dumps({"ok": ok, "findings": [f._asdict() for f in findings]}, indent=1))
        return
    section = None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            print(f"\n{section.replace('_', ' ')}")
        value = finding.value
        if value is None or isinstance(value, bool | list):
            value = ""  # the state or the note says it
        elif isinstance(value, float) and value < 0.1:
            value = f"{value:.1e}"
        line = f"  {finding.name:32}{finding.state:12}{value!s:8} {finding.note}".rstrip()
        print(textwrap.fill(line, 100, subsequent_indent=" " * 55, break_long_words=False))
    print("\nAll that is essential works." if ok else "\nSomething essential failed: see above.")
