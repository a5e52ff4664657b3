"""From a TOML file to a `Table`; every mistake in the file names the file, the place, the key."""

import contextlib
import dataclasses
import importlib.resources
import pathlib
import tomllib
import types

from tf_largebatch.recipes._keys import nearest
from tf_largebatch.recipes._recipe import Recipe, same_thing
from tf_largebatch.recipes._table import Observation, Row, Rule, Table

_TOP = ("title", "source", "notes", "default_global_batch_size")
_TABLES = ("settings", "rule", "rows", "published", "smoke")
_MEASURED = {"seed": int, "metric": str, "value": float, "command": str}
# The file's name is the recipe's, and a rule says how its rows scale: one place per fact.
_KEYS = [f.name for f in dataclasses.fields(Recipe) if f.name not in ("recipe", "scaling")]
_SETTINGS = [k for k in _KEYS if k != "global_batch_size"]


def names():
    """The names of the recipes that come with the package, sorted.

    >>> [name for name in names() if name.startswith("resnet50")]
    ['resnet50_lamb', 'resnet50_lars']
    """
    files = [file.name for file in _folder().iterdir()]
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def load(name_or_path):
    """Read one recipe table.

    Args:
        name_or_path: One of `names()`, or the path of a file of your own that ends in ".toml".

    Returns:
        A `Table`.

    Raises:
        ValueError: If there is no such recipe, or the file isn't right: broken TOML, a key that
            isn't known, a value of the wrong type or out of range, rows that contradict.

    >>> load("bert_lamb").row(32768).recipe.learning_rate
    0.005
    """
    if str(name_or_path).endswith(".toml"):
        file = pathlib.Path(name_or_path)
        if not file.is_file():
            raise ValueError(f"No such recipe file. Received: {str(file)!r}. Check the path.")
    elif name_or_path in names():
        file = _folder() / f"{name_or_path}.toml"
    else:
        raise ValueError(
            f"Unknown recipe. Received: {name_or_path!r}. {nearest(name_or_path, names())} "
            "tf_largebatch.recipes.names() lists them; a file of your own must end in .toml."
        )
    with _place(str(file)):
        try:
            text = file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8: {error}. Save it as UTF-8.") from None
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            last = f"the end, line {len(text.splitlines())}"
            message = str(error).replace("end of document", last)
            raise ValueError(f"not TOML: {message}. Mend that line.") from None
        return _table(file.name.removesuffix(".toml"), content)


def _folder():
    return importlib.resources.files("tf_largebatch.recipes")


def _table(name, content):
    _know(content, (*_TOP, *_TABLES))
    for key in ("title", "source", "default_global_batch_size"):
        if key not in content:
            raise ValueError(f"{key} is missing. Add it above the first [table].")
    for key in ("title", "source", "notes"):
        _typed(key, content.get(key, ""), str)
    default = _typed("default_global_batch_size", content["default_global_batch_size"], int)
    rule = _make(Rule, content["rule"], "[rule]") if "rule" in content else None
    rows = list(_rows(name, content, rule))
    published = [_observation(*pair) for pair in _numbered(content, "published")]
    with _place("[smoke]"):
        smoke = _typed("smoke", content.get("smoke", {}), dict)
        _know(smoke, _KEYS)
    table = Table(
        name=name,
        title=content["title"],
        source=content["source"],
        notes=content.get("notes", "").strip(),
        default_global_batch_size=default,
        rule=rule,
        rows=tuple(rows),
        published=tuple(published),
        smoke=types.MappingProxyType(smoke),
    )
    _agree(table)
    return table


def _rows(name, content, rule):
    settings = dict(_typed("settings", content.get("settings", {}), dict))
    with _place("[settings]"):
        shared = _marks(settings)
        _know(settings, (*_SETTINGS, "not_in_source"))
        common = Recipe(recipe=name, scaling=rule.scaling if rule else "none", **settings)
    numbered = _numbered(content, "rows")
    if not numbered:
        raise ValueError("it has no rows. Add a [[rows]] with a global_batch_size.")
    for number, row in numbered:
        with _place(f"[[rows]] number {number}"):
            own = {key: row.pop(key, {}) for key in ("printed", "published")}
            measured, note = row.pop("measured", []), _typed("note", row.pop("note", ""), str)
            marks = _marks(row)
            extras = ("printed", "published", "measured", "note", "not_in_source")
            _know(row, (*_KEYS, *extras))
            if "global_batch_size" not in row:
                raise ValueError("global_batch_size is missing. Every row needs one.")
            for key, value in own.items():
                for inner, entry in _typed(key, value, dict).items():
                    _typed(f"{key}.{inner}", entry, str if key == "printed" else (str, int, float))
            recipe = common.replace(**row)
            # What a row sets itself is no longer the settings' value, nor under the settings' mark.
            here = {key for key in _SETTINGS if {key, same_thing(key)} & row.keys()}
            marks += [key for key in shared if key not in marks and key not in here]
            yield Row(
                recipe,
                types.MappingProxyType(own["printed"]),
                types.MappingProxyType(own["published"]),
                tuple(_measured(entry) for entry in _typed("measured", measured, list)),
                tuple(marks),
                note,
            )


def _marks(keys):
    marks = _typed("not_in_source", keys.pop("not_in_source", []), list)
    _know([_typed("not_in_source", mark, str) for mark in marks], _SETTINGS)
    return marks


def _measured(entry):
    _know(_typed("measured", entry, dict), _MEASURED)
    for key, kind in _MEASURED.items():
        if key not in entry:
            raise ValueError(f"measured.{key} is missing. Give {', '.join(_MEASURED)}.")
        _typed(f"measured.{key}", entry[key], (int, float) if kind is float else kind)
    return types.MappingProxyType(entry)


def _observation(number, entry):
    with _place(f"[[published]] number {number}"):
        _know(entry, Observation._fields)
        entry = {"note": "", **entry}
        for key in Observation._fields:
            if key not in entry:
                raise ValueError(f"{key} is missing. Give {', '.join(Observation._fields)}.")
            _typed(key, entry[key], list if key in ("columns", "rows") else str)
        columns = tuple(_typed("columns", column, str) for column in entry["columns"])
        rows = tuple(tuple(_typed("rows", row, list)) for row in entry["rows"])
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(
                    f"rows must have a value for each of the {len(columns)} columns. Received: "
                    f"{list(row)}. Add what is missing, or take out what is too much."
                )
        return Observation(**{**entry, "columns": columns, "rows": rows})


def _agree(table):
    """The checks that need the whole table."""
    sizes = [row.recipe.global_batch_size for row in table.rows]
    for size in sizes:
        if sizes.count(size) > 1:
            raise ValueError(f"two rows have global_batch_size = {size}. Keep one of them.")
    if table.rule:
        size = table.rule.base_global_batch_size
        with _place("[rule]"):
            if size not in sizes:
                raise ValueError(
                    "base_global_batch_size must be the batch size of a row. Received: "
                    f"base_global_batch_size={size}. Rows: {', '.join(map(str, sizes))}."
                )
            if table.rows[sizes.index(size)].recipe.learning_rate is None:
                raise ValueError(f"the {size} row must have a learning_rate to scale. Add it.")
    with _place("default_global_batch_size"):
        table.row()
    if table.smoke:
        with _place("[smoke]"):
            table.smoke_run()


@contextlib.contextmanager
def _place(where):
    """Puts the place before the message of any mistake found inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


_ELSEWHERE = {
    "name": "A recipe's name is its file's.",
    "recipe": "A recipe's name is its file's.",
    "scaling": "It belongs in [rule].",
    "global_batch_size": "It belongs in [[rows]].",
}


def _know(keys, known):
    for key in keys:
        if key not in known:
            hint = _ELSEWHERE.get(key) or nearest(key, known)
            raise ValueError(f"unknown key {key!r}. {hint}")


def _typed(key, value, kind):
    words = {str: "a string", int: "a whole number", dict: "a table", list: "a list"}
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        expected = words.get(kind, "a number" if kind == (int, float) else "a number or a string")
        raise ValueError(f"{key} must be {expected}. Received: {key}={value!r}. Correct it.")
    return value


def _numbered(content, key):
    entries = _typed(key, content.get(key, []), list)
    return [
        (number, dict(_typed(f"[[{key}]] number {number}", entry, dict)))
        for number, entry in enumerate(entries, 1)
    ]


def _make(kind, entry, where):
    with _place(where):
        known = {field.name: field for field in dataclasses.fields(kind)}
        _know(_typed(where, entry, dict), known)
        for key, field in known.items():
            if key not in entry and field.default is dataclasses.MISSING:
                raise ValueError(f"{key} is missing. {field.metadata['help']}")
        return kind(**entry)
