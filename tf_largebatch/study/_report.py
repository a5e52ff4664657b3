"""The report on a study: a page, a text with its tables, figures, all from the study's files."""

import os
import shlex
from typing import NamedTuple

from tf_largebatch.study import _figures as figures
from tf_largebatch.study import _page as page
from tf_largebatch.study import _search_figures as search_figures
from tf_largebatch.study import _search_tables as search_tables
from tf_largebatch.study import _tables as tables
from tf_largebatch.study._measures import target
from tf_largebatch.study._reading import read
from tf_largebatch.study._results import write_text
from tf_largebatch.study._verdict import GROUPS, RULES, sentences


class Section(NamedTuple):
    """What stands under one heading: Tables, and functions that draw a figure."""

    heading: str
    tables: list
    drawings: list


def write_report(folder):
    """Writes report.html, table.md and the figures of a study, from what has ended so far.

    The page begins with the verdict, which follows from the numbers by `_verdict.RULES`; the
    rules stand in it too. Where matplotlib is missing the page has no figures, and says so.

    Args:
        folder: the study's: study.json, results.csv and, where there are any, curves.csv.

    Returns:
        The text of table.md: the verdict and all tables, in Markdown that reads well as it is.

    Raises:
        ValueError: if the folder holds no study, no finished run, or a file that is broken.
    """
    study = read(folder)
    sections, verdict = _sections(study), _verdict(study)
    text = _markdown(study, sections, verdict)
    write_text(os.path.join(folder, "table.md"), text)
    parts = [("Verdict", [page.statements(verdict)])]
    try:
        for section in sections:
            drawn = [page.figure(draw(study, folder)) for draw in section.drawings]
            parts.append((section.heading, [*map(page.table, section.tables), *drawn]))
    except ImportError as error:
        parts[1:] = [(it.heading, [*map(page.table, it.tables)]) for it in sections]
        parts.append(("Figures", [page.paragraph(f"Not drawn. {error}")]))
    parts.append(("Rules of the verdict", [page.rules(RULES)]))
    parts.append(("How it was run", [page.facts(_how(study))]))
    write_text(os.path.join(folder, "report.html"), page.page(_title(study), parts))
    return text


def _title(study):
    return f"Batch sizes and optimizers: {study.info.get('recipe', 'a study')}"


def _verdict(study):
    """The verdict's statements; first what a reader must know about the study itself."""
    found = []
    missing = study.missing()
    if missing:
        counts = ", ".join(f"{count:,} {group}" for group, count in missing.items())
        found.append(("Not complete", f"planned runs without a result yet: {counts}."))
    if len(study.info["seeds"]) == 1:
        found.append(("One seed", "no spread and no interval can be known."))
    return found + sentences(study)


def _sections(study):
    found = []
    batches = study.batches(*GROUPS)
    if batches:
        compared = [tables.matches(study)]
        if len(batches) > 1:
            compared.insert(0, tables.drops(study))
        found.append(Section("What the verdict rests on", compared, []))
        found.insert(0, Section("Accuracy", [tables.accuracy(study)], [figures.accuracy]))
        found.append(Section("Settings", [tables.settings(study)], []))
        if study.curves and target(study)[0] is not None:
            drawings = [figures.updates_to_target] if len(batches) > 1 else []
            made = [tables.updates_to_target(study)]
            found.append(Section("Updates to the target", made, drawings))
        if study.curves:
            found.append(Section("Training curves", [], [figures.training_curves]))
    if study.of("sweep"):
        drawings = [search_figures.sweeps, search_figures.stable_rates]
        found.append(Section("Learning rates", [search_tables.sweeps(study)], drawings))
    if study.of("ablation"):
        found.append(Section("Ablations", [search_tables.ablations(study)], []))
    if study.of("base"):
        made = [search_tables.winners(study, "base")]
        found.append(Section("Base learning rates", made, [search_figures.base_rates]))
    if study.of("trial"):
        made = [search_tables.space(study)] if study.info.get("tuning") else []
        made.append(search_tables.winners(study, "trial"))
        found.append(Section("Tuning", made, [search_figures.trials]))
    return [
        section._replace(tables=[made for made in section.tables if made.rows]) for section in found
    ]


def _how(study):
    """Pairs of a name and what it is: all that study.json says, and where the figures are."""
    info = dict(study.info)
    tuning = info.pop("tuning", None)
    info.pop("settings", None)  # what the engine goes on from; the command says it
    pairs = [("command", shlex.join(info.pop("command", [])))]
    pairs += [(name.replace("_", " "), value) for name, value in info.items()]
    if tuning:
        rest = {name.replace("_", " "): it for name, it in tuning.items() if name != "space"}
        pairs.append(("tuning", rest))
    counts = {}
    for run in study.runs:
        counts[run.status] = counts.get(run.status, 0) + 1
    pairs.append(("runs", counts))
    files = "results.csv, a line a run; curves.csv, a line an epoch; each figure as a .png"
    return [*pairs, ("files beside this page", files)]


def _markdown(study, sections, verdict):
    lines = [f"# {_title(study)}", "", "## Verdict", ""]
    lines += [f"- **{about}:** {text}" for about, text in verdict]
    for section in sections:
        if section.tables:
            lines += ["", f"## {section.heading}"]
        for made in section.tables:
            lines += ["", f"{made.caption}.", "", *_padded(made)]
    lines += ["", "## Rules of the verdict", ""]
    lines += [f"{number}. {rule}" for number, rule in enumerate(RULES, start=1)]
    return "\n".join([*lines, "", "## How it was run", "", *_bullets(_how(study))]) + "\n"


def _bullets(pairs, indent=""):
    """Lines of a Markdown list of names and what they are; a dict becomes a list below its name."""
    for name, value in pairs:
        if isinstance(value, dict):
            yield f"{indent}- {name}:"
            yield from _bullets(value.items(), indent + "  ")
        else:
            yield f"{indent}- {name}: {page.plain(value)}"


def _padded(made):
    """The lines of a Markdown table whose columns are also aligned for the eye."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (made.head, *made.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
