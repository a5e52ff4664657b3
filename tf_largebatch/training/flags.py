"""The keys of a recipe as absl flags, and the recipe that the flags of a command ask for."""

import dataclasses
import re
import types
import typing

from absl import flags

from tf_largebatch import recipes
from tf_largebatch.recipes import Recipe
from tf_largebatch.training import from_recipe, run_folder

FLAGS = flags.FLAGS


def define_recipe_flags():
    """One flag for each key of a recipe, None where it isn't given; and --smoke."""
    flags.DEFINE_bool(
        "smoke", False, "The recipe's small run: about a minute on two CPU cores, embedded data."
    )
    for field in dataclasses.fields(Recipe):
        text = field.metadata["help"]
        kind = field.type
        if isinstance(kind, types.UnionType):  # "float | None"
            kind = next(k for k in typing.get_args(kind) if k is not type(None))
        if "choices" in field.metadata:
            flags.DEFINE_enum(field.name, None, list(field.metadata["choices"]), text)
        elif typing.get_origin(kind) is tuple:
            flags.DEFINE_list(field.name, None, f"{text} Separated by commas.")
        else:
            define = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
            define.get(kind, flags.DEFINE_string)(field.name, None, text)


def recipe_from_flags(default):
    """The recipe's row for the batch size, changed by the flags that were given; prints both.

    Args:
        default: name of the recipe where no flag names one.

    Raises:
        ValueError: as the loader of recipes, and for a flag that its key refuses.
    """
    given = {
        field.name: FLAGS[field.name].value
        for field in dataclasses.fields(Recipe)
        if FLAGS[field.name].present
    }
    for field in dataclasses.fields(Recipe):
        if field.name in given and isinstance(given[field.name], list):
            given[field.name] = _tuple(field, given[field.name])
    table = recipes.load(given.pop("recipe", default))
    if FLAGS.smoke:
        resolved = table.smoke_run()
    else:
        resolved = table.row(given.get("global_batch_size"), scaling=given.pop("scaling", None))
    print(f"Recipe {resolved.recipe.recipe}: {table.title}. Source: {table.source}.")
    print(f"Batch {resolved.recipe.global_batch_size}: {resolved.how}.")
    recipe, dropped = from_recipe.switch_optimizer(
        resolved.recipe, given.pop("optimizer", resolved.recipe.optimizer)
    )
    if recipe.optimizer != resolved.recipe.optimizer:
        print(
            f"Optimizer {recipe.optimizer} instead of {resolved.recipe.optimizer}"
            + (f", without its {', '.join(dropped)}" if dropped else "")
            + ("" if "learning_rate" in given else "; the learning rate is still the recipe's")
            + "."
        )
    ours = [k for k in resolved.not_in_source if k not in given and k not in resolved.missing]
    if ours:
        print(f"Not in the source, chosen by this project: {', '.join(ours)}.")
    return recipe.replace(**given)


def recipe_of_run():
    """With --eval_only --model_dir: the configuration of that very run. None otherwise."""
    if not (FLAGS.eval_only and FLAGS.model_dir):
        return None
    config = run_folder.read_config(FLAGS.model_dir)
    if config is None:
        raise ValueError(
            f"There is no run to evaluate in model_dir. Received: {FLAGS.model_dir}, which has no "
            f"{run_folder.CONFIG} that can be read."
        )
    # What the run is, is in its folder; where and how it is looked at now, in the command.
    config = {k: v for k, v in config.items() if k not in run_folder.MAY_CHANGE}
    given = {k: FLAGS[k].value for k in run_folder.MAY_CHANGE if FLAGS[k].present}
    return Recipe(**config | given | {"init_from": FLAGS.init_from, "resume": False})


def _tuple(field, texts):
    """The entries of a list flag, as the field has them."""
    kind = re.search(r"tuple\[(\w+)", str(field.type)).group(1)
    convert = {"int": int, "float": float, "str": str}[kind]
    found = []
    for text in texts:
        try:
            found.append(convert(text))
        except ValueError:
            what = "whole numbers" if kind == "int" else "numbers"
            raise ValueError(
                f"--{field.name} must be {what} separated by commas. Received: {text!r}."
            ) from None
    return tuple(found)
