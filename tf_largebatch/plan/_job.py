"""What is planned: a recipe's rows by its rule, or a model with data of so many examples."""

from typing import NamedTuple

from tf_largebatch import recipes
from tf_largebatch.plan._model import ModelSpec, models_folder
from tf_largebatch.scaling import check_count, epochs_to_updates


class Phase(NamedTuple):
    """A stretch of a run of one batch size and one sequence length."""

    sequence_length: int | None
    global_batch_size: int
    updates: int


class Setting(NamedTuple):
    """A run with one batch size, as the recipe would have it; None: not known."""

    global_batch_size: int
    phases: tuple[Phase, ...]
    epochs: float | None
    learning_rate: float | None
    warmup_updates: int | None
    warmup_epochs: float | None
    how: str
    optimizer: str
    momentum: float | None


class Job(NamedTuple):
    """What all runs share, and the runs. `model` is None where figures are given instead."""

    title: str
    model: ModelSpec | None
    precision: str
    micro_batch_size: int | None
    jit: bool
    num_examples: int | None
    settings: tuple[Setting, ...]

    @property
    def sequence_lengths(self):
        """Those of all phases, each once; (None,) where examples have no length."""
        phases = [phase for setting in self.settings for phase in setting.phases]
        return tuple(dict.fromkeys(phase.sequence_length for phase in phases))


# Of data that lie in files: examples to train on, and what a network must know of them. Text of
# BERT has its original vocabulary, the Penn Treebank 10,000 words; GNMT's is the model's own.
_IN_FILES = {
    "imagenet2012": (1_281_167, {"input_shape": (224, 224, 3), "num_classes": 1000}),
    "cifar10": (50_000, {"input_shape": (32, 32, 3), "num_classes": 10}),
    "mnist": (60_000, {"input_shape": (28, 28, 1), "num_classes": 10}),
    "wikipedia_books": (None, {"vocabulary_size": 30_522, "next_sentence": True}),
    "squad": (None, {"vocabulary_size": 30_522}),
    "wmt16": (None, {"vocabulary_size": 32_320}),
    "lm_folder": (None, {"vocabulary_size": 10_000}),
}


def recipe_job(flags):
    """The `Job` of --recipe.

    Args:
        flags: as parsed; of them recipe, batch_sizes and what changes the recipe's own.

    Raises:
        ValueError: if there is no such recipe, or it can't be carried to a batch size, or what it
            leaves open isn't given.
    """
    table = recipes.load(flags.recipe)
    changes = {"precision": flags.precision, "micro_batch_size": flags.micro_batch_size,
               "epochs": flags.epochs}  # fmt: skip
    changes = {key: value for key, value in changes.items() if value is not None}
    found = [_row(table, size) for size in flags.batch_sizes]
    also = "" if flags.epochs is None else "; the length as given"
    rows = [(recipe.replace(**changes), how + also) for recipe, how in found]
    base = rows[0][0]
    if base.sequence_lengths and flags.sequence_length:
        raise ValueError(
            f"The recipe {flags.recipe} has sequence lengths of its own, "
            f"{', '.join(map(str, base.sequence_lengths))}. Received: --sequence_length="
            f"{flags.sequence_length}. Leave it out."
        )
    examples, arguments = _data(base)
    examples = flags.num_examples or examples
    settings = tuple(_setting(recipe, how, examples, flags.sequence_length) for recipe, how in rows)
    spec = None
    if flags.parameters is None:
        from tf_largebatch.training import from_recipe

        arguments |= from_recipe.options(base, "model_options")
        spec = ModelSpec(base.model, arguments, models_folder(flags.train), base.precision)
    title = f"recipe {flags.recipe}: {base.model} on {base.data}"
    return Job(title, spec, base.precision, base.micro_batch_size, base.jit, examples, settings)


def model_job(flags):
    """The `Job` of --model, or of --parameters and --multiply_adds.

    Raises:
        ValueError: if the length of the run isn't given, or --model_options are not name=value.
    """
    for name in ("num_examples", "epochs"):
        if getattr(flags, name) is None:
            raise ValueError(f"Without --recipe the run's length isn't known. Give --{name}.")
    precision, spec = flags.precision or "float32", None
    if flags.model is not None:
        from tf_largebatch.training import from_recipe

        options = recipes.Recipe(model_options=flags.model_options or ())
        arguments = from_recipe.options(options, "model_options")
        if flags.input_shape is not None:
            arguments["input_shape"] = flags.input_shape
        spec = ModelSpec(flags.model, arguments, models_folder(flags.train), precision)
    settings = []
    for size in flags.batch_sizes:
        recipe = recipes.Recipe(
            global_batch_size=size, epochs=flags.epochs, optimizer=flags.optimizer or "lamb"
        )
        settings.append(_setting(recipe, "no recipe", flags.num_examples, flags.sequence_length))
    title = f"model {flags.model}" if flags.model else "a model of the figures given"
    return Job(
        title, spec, precision, flags.micro_batch_size, False, flags.num_examples, tuple(settings)
    )


def _row(table, batch_size):
    """(recipe, how): the table's row; without a rule its usual row, its learning rate unknown."""
    if table.rule is not None or batch_size in table.batch_sizes:
        resolved = table.row(batch_size)
        return resolved.recipe, resolved.how.partition(";")[0]
    base = table.row().recipe
    if base.phase_batch_sizes:
        table.row(batch_size)  # says which sizes there are
    changes = dict.fromkeys(("learning_rate", "warmup_epochs", "warmup_updates"))
    changes |= {"phase_learning_rates": (), "phase_warmup_updates": ()}
    if base.total_updates is not None:
        examples = base.total_updates * base.global_batch_size
        changes["total_updates"] = epochs_to_updates(
            1, num_examples=examples, batch_size=batch_size
        )
    how = f"no row and no rule: the length of the {base.global_batch_size} row, no learning rate"
    return base.replace(global_batch_size=batch_size, **changes), how


def _data(recipe):
    """(examples or None, arguments of the network) of a recipe's data."""
    if recipe.data in _IN_FILES:
        examples, arguments = _IN_FILES[recipe.data]
        arguments = dict(arguments)
        if recipe.image_size is not None:
            arguments["input_shape"] = (recipe.image_size, recipe.image_size, 3)
        return examples, arguments
    from tf_largebatch import data
    from tf_largebatch.training import from_recipe

    options = {
        "sequence_length": next(iter(recipe.sequence_lengths), None),
        "image_size": recipe.image_size,
        **from_recipe.options(recipe, "data_options"),
    }
    given = {key: value for key, value in options.items() if value is not None}
    train = data.load(recipe.data, data_dir=recipe.data_dir, **given).train
    return train.num_examples, dict(train.model_arguments)


def _setting(recipe, how, num_examples, sequence_length):
    from tf_largebatch.training import from_recipe

    size = check_count("global_batch_size", recipe.global_batch_size)
    if num_examples is None:
        if recipe.total_updates is None or recipe.warmup_epochs is not None:
            raise ValueError(
                f"How many examples there are to train on isn't known for {recipe.data}, which "
                "lies in files. Give --num_examples."
            )
        run = from_recipe.Length(recipe.total_updates, recipe.warmup_updates or 0, None)
    else:
        largest = max((size, *recipe.phase_batch_sizes))
        if largest > num_examples:
            raise ValueError(
                f"A batch must not be larger than the data, {num_examples} examples. Received: "
                f"{largest}. Take at most {num_examples}."
            )
        run = from_recipe.length(recipe, num_examples)
    phases = tuple(
        Phase(p.sequence_length or sequence_length, p.global_batch_size,
              p.end_update - p.start_update)
        for p in from_recipe.phases(recipe, run.total_updates)
    )  # fmt: skip
    known = recipe.learning_rate is not None
    warmup_epochs = None
    if known and num_examples is not None:
        warmup_epochs = run.warmup_updates * size / num_examples
    return Setting(
        size, phases, run.epochs, recipe.learning_rate, run.warmup_updates if known else None,
        warmup_epochs, how, recipe.optimizer, recipe.momentum,
    )  # fmt: skip
