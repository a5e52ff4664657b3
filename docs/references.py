"""Pages that are made: the references of all recipes and flags of train.py, the list of results.

    python -m docs.references        writes reference/recipes.md and flags.md, results/index.md

They are kept in the repository, so that they can be read there; a test fails when they lag behind.
"""

import dataclasses
import re
import sys
from pathlib import Path

from absl import flags

from docs.markdown import escaped
from tf_largebatch import recipes

FOLDER = Path(__file__).parent
# The first key of each group of flags, and the group's heading.
GROUPS = {
    "recipe": "What is trained",
    "learning_rate": "Length and learning rate",
    "weight_decay": "The optimizer",
    "image_size": "Images",
    "sequence_lengths": "Text, and phases of a run",
    "precision": "The run",
    "strategy": "Devices and memory",
}
_RECIPES = """# Recipes

Made by `python -m docs.references` from `tf_largebatch/recipes/*.toml`; don't edit.

Each recipe is one published table: a row for each batch size, as printed. `python train.py
--recipe=NAME --global_batch_size=N` takes a row; between the rows it derives one where the recipe
has a rule, and says so. "Not in the source" are values that the source doesn't print: this project
chose them, or left them open. Accuracies are fractions; F1 and BLEU are of 100.

"Published" is what the source reports, at its size and on its machines; nothing of it was run again
here, unless the source is this project.
"""
_RESULTS = """# Measured results

Made by `python -m docs.references` from the first lines of the pages beside it; don't edit.

What was measured, each page with its command, machine, versions and number of runs. A figure
anywhere else in this documentation that isn't found here or in a recipe is a source's.

"""
_FLAGS = """# Flags of train.py

Made by `python -m docs.references` from the flags that `train.py` defines; don't edit.

A flag that is given wins over the recipe; the defaults below hold where neither says anything.
"None" leaves the value to the optimizer, the data set or the machine. Lists are separated by
commas. Truth values are `--name` and `--noname`. Every flag from "What is trained" on is a key of a
recipe as well.
`python -m tf_largebatch.plan --help`, and the same of `study` and `doctor`, print theirs.
"""


def recipes_page():
    """The recipes reference, Markdown."""
    tables = [recipes.load(name) for name in recipes.names()]
    overview = _table(
        ("recipe", "what", "batch sizes", "between the rows"),
        [
            (
                f"[{table.name}](#{table.name})", escaped(table.title),
                ", ".join(map(recipes.format_batch_size, table.batch_sizes)), _rule(table),
            )
            for table in tables
        ],
    )  # fmt: skip
    return "\n".join([_RECIPES, overview, *map(_recipe, tables)]).rstrip() + "\n"


def _rule(table):
    if table.rule is None:
        return "no rule: printed rows only"
    rate = {"sqrt": "rate by square root", "linear": "rate linear", "none": "rate unchanged"}
    warmup = {"legw": "warmup by LEGW", "same_epochs": "the same warmup epochs"}
    return f"{rate[table.rule.scaling]}, {warmup[table.rule.warmup]}"


def _recipe(table):
    keys = [field.name for field in dataclasses.fields(recipes.Recipe)]
    plain = recipes.Recipe()
    values = {key: [getattr(row.recipe, key) for row in table.rows] for key in keys}
    default = {key: getattr(plain, key) for key in keys}
    own = [key for key in keys if set(values[key]) != {default[key]} and key != "recipe"]
    common = [key for key in own if len(set(values[key])) == 1 and key != "global_batch_size"]
    varying = [key for key in own if key not in common and key != "global_batch_size"]
    results = list(dict.fromkeys(key for row in table.rows for key in row.published))
    parts = [f"\n## {table.name}\n", f"{table.title}. Source: {table.source}.\n"]
    if table.notes:
        parts.append(table.notes + "\n")
    parts.append(f"Between the rows: {_rule(table)}.\n")
    parts.append(_table(("all rows", ""), [(f"`{key}`", _value(values[key][0])) for key in common]))
    parts.append(
        _table(
            ("batch", *(f"`{key}`" for key in varying), *(f"published {key}" for key in results)),
            [
                (
                    row.recipe.global_batch_size,
                    *(_value(getattr(row.recipe, key)) for key in varying),
                    *(_value(row.published.get(key)) for key in results),
                )
                for row in table.rows
            ],
        )
    )
    missing = {key: None for row in table.rows for key in row.not_in_source}
    if missing:
        parts.append(f"Not in the source: {', '.join(f'`{key}`' for key in missing)}.\n")
    for row in table.rows:
        if row.note:
            parts.append(f"Batch {row.recipe.global_batch_size}: {row.note}\n")
    for observation in table.published:
        parts.append(f"{observation.reference}: {observation.title}.\n")
        rows = [tuple(map(_value, row)) for row in observation.rows]
        parts.append(_table(tuple(map(escaped, observation.columns)), rows))
        if observation.note:
            parts.append(observation.note + "\n")
    if table.smoke:
        smoke = ", ".join(f"`{key}` {_value(value)}" for key, value in table.smoke.items())
        parts.append(f"`--smoke`, chosen by this project: {smoke}.\n")
    return "\n".join(parts)


def flags_page():
    """The flags reference, Markdown; reads the flags that train.py has defined."""
    import train
    from tf_largebatch.training.flags import define_recipe_flags

    if "model" not in train.FLAGS:
        define_recipe_flags()
    defined = flags.FLAGS.flags_by_module_dict()
    fields = {field.name: field for field in dataclasses.fields(recipes.Recipe)}
    of_train = [flag for flag in defined["train"] if flag.name not in fields]
    of_train.append(flags.FLAGS["smoke"])
    parts = [_FLAGS, "## What train.py does\n", _table(_HEAD, [_flag(f) for f in of_train])]
    rows = []
    for name, field in fields.items():
        if name in GROUPS:
            parts += [_table(_HEAD, rows)] if rows else []
            parts.append(f"## {GROUPS[name]}\n")
            rows = []
        rows.append(_flag(flags.FLAGS[name], field.default))
    return "\n".join([*parts, _table(_HEAD, rows)]).rstrip() + "\n"


_HEAD = ("flag", "values", "default", "meaning")


def _flag(flag, default=None):
    values = getattr(flag.parser, "enum_values", None)
    kind = flag.flag_type()
    kind = {"comma separated list of strings": "list", "boolean": "bool"}.get(kind, kind)
    if default is None:
        default = flag.default
    # absl puts the values before the words, and our flags the form of a list behind them.
    meaning = re.sub(r"^<[^>]*>: ", "", flag.help).removesuffix(" Separated by commas.")
    return (
        f"`--{flag.name}`", ", ".join(f"`{value}`" for value in values) if values else kind,
        _value(default) or "None", escaped(meaning),
    )  # fmt: skip


def _value(value):
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return escaped(value)
    if isinstance(value, tuple | list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def results_page():
    """The list of the measured results, Markdown."""
    lines = []
    for path in sorted((FOLDER / "results").glob("*.md")):
        if path.name != "index.md":
            title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            lines.append(f"- [{title}]({path.name})\n")
    return _RESULTS + "".join(lines)


PAGES = {
    "reference/recipes.md": recipes_page,
    "reference/flags.md": flags_page,
    "results/index.md": results_page,
}


def main():
    """Writes them; returns the exit code."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
