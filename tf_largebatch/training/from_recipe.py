"""What a recipe says, made: its lengths in updates, its phases, its schedule, its optimizer."""

import ast
import dataclasses
import math
from typing import NamedTuple

import keras

from tf_largebatch import schedules
from tf_largebatch.optimizers import BIAS_AND_NORM, LAMB, LARS, NLAMB, NNLAMB, Exclusion
from tf_largebatch.optimizers.exclusions import format_table, resolve, variable_path
from tf_largebatch.scaling import epochs_to_updates

_OURS = {"lars": LARS, "lamb": LAMB, "nlamb": NLAMB, "nnlamb": NNLAMB}
_KERAS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "nadam": keras.optimizers.Nadam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
    "muon": keras.optimizers.Muon,
    "keras_lamb": keras.optimizers.Lamb,
}
_EXCLUSIONS = {"exclude_from_weight_decay", "exclude_from_layer_adaptation"}
_CLIPS = {"clipnorm", "clipvalue", "global_clipnorm"}
_MOMENTS = {"beta_1", "beta_2", "epsilon"}
_LAYERWISE = {"weight_norm_clip", "trust_ratio_clip", "weight_rounding"} | _EXCLUSIONS
# Which keys of a recipe each optimizer takes, beside weight_decay and the clips.
_TAKES = {
    "lars": {"momentum", "nesterov", "trust_coefficient", "epsilon", "joint_norm", "momentum_mode"}
    | _LAYERWISE,
    "lamb": _MOMENTS | {"bias_correction", "norm_ord"} | _LAYERWISE,
    "nlamb": _MOMENTS | {"momentum_decay", "norm_ord"} | _LAYERWISE,
    "nnlamb": _MOMENTS | {"momentum_decay", "norm_ord"} | _LAYERWISE,
    "sgd": {"momentum", "nesterov", "exclude_from_weight_decay"},
    "adam": _MOMENTS | {"exclude_from_weight_decay"},
    "nadam": _MOMENTS | {"exclude_from_weight_decay"},
    "adamw": _MOMENTS | {"exclude_from_weight_decay"},
    "adagrad": {"epsilon", "exclude_from_weight_decay"},
    "muon": {"momentum", "nesterov", "exclude_from_weight_decay"},
    "keras_lamb": _MOMENTS | {"exclude_from_weight_decay"},
}
HYPERPARAMETERS = frozenset(set().union(*_TAKES.values()) | _CLIPS | {"weight_decay"})


class Phase(NamedTuple):
    """A stretch of a run in which batch size and sequence length stay the same."""

    sequence_length: int | None
    global_batch_size: int
    start_update: int
    end_update: int


class Length(NamedTuple):
    """How long a run and its warmup are, in updates; `epochs` for what is said to the user."""

    total_updates: int
    warmup_updates: int
    epochs: float


def taken_by(optimizer):
    """The recipe keys that the optimizer of this name takes.

    >>> "trust_coefficient" in taken_by("lars"), "trust_coefficient" in taken_by("sgd")
    (True, False)
    """
    return _TAKES[optimizer] | _CLIPS | {"weight_decay"}


def length(recipe, num_examples):
    """The length of the run in updates, for so many training examples.

    Raises:
        ValueError: if the recipe leaves its length open, or its warmup is as long as the run.

    >>> from tf_largebatch.recipes import Recipe
    >>> length(Recipe(global_batch_size=256, epochs=60, warmup_epochs=3.2), 1437)
    Length(total_updates=337, warmup_updates=18, epochs=60.0)
    """
    sizes = {"num_examples": num_examples, "batch_size": recipe.global_batch_size}
    total, epochs = recipe.total_updates, recipe.epochs
    if len(recipe.sequence_lengths) > 1 and total is None:
        raise ValueError(
            "A run of several phases has no epochs of one length. Received: total_updates=None, "
            f"epochs={epochs}, sequence_lengths={list(recipe.sequence_lengths)}. Set total_updates."
        )
    if total is None and epochs is None:
        raise ValueError(
            "The length of training is not known. Received: epochs=None, total_updates=None. Set "
            "one of them."
        )
    if total is None:
        total = max(epochs_to_updates(epochs, **sizes), 1)
    else:
        epochs = total * recipe.global_batch_size / num_examples
    warmup = recipe.warmup_updates or 0
    if recipe.warmup_epochs is not None:
        warmup = epochs_to_updates(recipe.warmup_epochs, **sizes)
    if warmup and warmup >= total:
        raise ValueError(
            "The warmup must be shorter than the run. Received: a warmup of "
            f"{warmup} updates ({warmup * recipe.global_batch_size / num_examples:.4g} epochs) in "
            f"a run of {total} updates ({epochs:.4g} epochs). Warm up for less, train for longer, "
            "or take a smaller batch."
        )
    return Length(total, warmup, float(epochs))


def phases(recipe, total_updates):
    """The phases of a run of so many updates, one after the other; most runs have one.

    Raises:
        ValueError: if a phase would be without an update, or shorter than its warmup.

    >>> from tf_largebatch.recipes import load
    >>> for phase in phases(load("bert_lamb").row(32768).recipe, 15625):
    ...     print(phase)
    Phase(sequence_length=128, global_batch_size=32768, start_update=0, end_update=14063)
    Phase(sequence_length=512, global_batch_size=32768, start_update=14063, end_update=15625)
    """
    lengths = recipe.sequence_lengths or (None,)
    proportions = recipe.phase_proportions or (1,) * len(lengths)
    sizes = recipe.phase_batch_sizes or (recipe.global_batch_size,) * len(lengths)
    warmups = recipe.phase_warmup_updates or (0,) * len(lengths)
    found, start, whole = [], 0, sum(proportions)
    for number, (length, size, warmup) in enumerate(zip(lengths, sizes, warmups, strict=True), 1):
        end = math.floor(total_updates * sum(proportions[:number]) / whole + 0.5)
        if end - start <= warmup:
            raise ValueError(
                f"Phase {number} must be longer than its warmup. Received: phase_proportions="
                f"{list(proportions)} of {total_updates} updates, which gives it {end - start}, "
                f"with {warmup} updates of warmup. Train for longer, or warm up for less."
            )
        found.append(Phase(length, size, start, end))
        start = end
    return found


def options(recipe, name):
    """The entries "name=value" of the recipe's key `name`, as a dict of Python values.

    A value that is no number, truth value or the like is a string.

    Raises:
        ValueError: for an entry of another form.

    >>> from tf_largebatch.recipes import Recipe
    >>> options(Recipe(model_options=["dropout=0.5", "arch=small"]), "model_options")
    {'dropout': 0.5, 'arch': 'small'}
    """
    found = {}
    for text in getattr(recipe, name):
        option, sign, value = text.partition("=")
        if not (option.isidentifier() and sign):
            raise ValueError(
                f'{name} must each be "name=value". Received: {name}={list(getattr(recipe, name))}.'
            )
        try:
            found[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[option] = value
    return found


def learning_rate_schedule(recipe, num_examples):
    """The schedule, clocked in updates: warmup from zero to `learning_rate`, then the decay.

    Phases with learning rates of their own each have such a schedule, counted from their start.

    Raises:
        ValueError: if the recipe leaves the learning rate open, or as `length`.

    >>> from tf_largebatch.recipes import Recipe
    >>> row = Recipe(learning_rate=0.1, global_batch_size=10, epochs=8, warmup_epochs=2)
    >>> schedule = learning_rate_schedule(row, 50)
    >>> [round(float(schedule(update)), 4) for update in (0, 5, 10, 20, 40)]
    [0.0, 0.05, 0.075, 0.05, 0.0]
    """
    if recipe.learning_rate is None:
        raise ValueError(
            f"The learning rate is not known: the source of {recipe.recipe} prints none. "
            "Received: learning_rate=None. Set it."
        )
    run = length(recipe, num_examples)
    found = phases(recipe, run.total_updates)
    if not recipe.phase_learning_rates:
        rate, updates, warmup = recipe.learning_rate, run.total_updates, run.warmup_updates
        return _warmup_and_decay(recipe, rate, updates, warmup, num_examples)
    each = zip(found, recipe.phase_learning_rates, recipe.phase_warmup_updates, strict=True)
    parts = []
    for phase, rate, warmup in each:
        updates = phase.end_update - phase.start_update
        parts.append((updates, _warmup_and_decay(recipe, rate, updates, warmup, num_examples)))
    return schedules.Phases(parts)


def _warmup_and_decay(recipe, rate, total_updates, warmup_updates, num_examples):
    start = warmup_updates if recipe.decay_from == "warmup_end" else 0
    end = {"end_learning_rate": recipe.end_learning_rate, "start_update": start}
    if recipe.schedule == "polynomial":
        after = schedules.Polynomial(rate, total_updates, power=recipe.power, **end)
    elif recipe.schedule == "cosine":
        after = schedules.Cosine(rate, total_updates, **end)
    elif recipe.schedule == "piecewise":
        boundaries = [
            epochs_to_updates(epoch, num_examples=num_examples, batch_size=recipe.global_batch_size)
            for epoch in recipe.decay_epochs
        ]
        after = schedules.Piecewise(rate, boundaries, factor=recipe.decay_factor)
    else:
        after = rate
    return schedules.LinearWarmup(after, warmup_updates)


def optimizer(recipe, learning_rate, variables):
    """The optimizer of a recipe, built for `variables`.

    Args:
        recipe: a `Recipe`.
        learning_rate: float or schedule.
        variables: the model's trainable variables.

    Raises:
        ValueError: if the recipe sets a key that this optimizer doesn't take, or a value or a
            pattern that it refuses.
    """
    name = recipe.optimizer
    given = {
        key: getattr(recipe, key) for key in HYPERPARAMETERS if getattr(recipe, key) is not None
    }
    stray = sorted(set(given) - taken_by(name))
    if stray:
        raise ValueError(
            f"The optimizer {name} takes no {', '.join(stray)}. It takes: "
            f"{', '.join(sorted(taken_by(name)))}."
        )
    for key in _EXCLUSIONS & set(given):
        given[key] = _patterns(given[key])
    if given.get("norm_ord") in ("1", "2"):
        given["norm_ord"] = int(given["norm_ord"])
    if name in _OURS:
        made = _OURS[name](learning_rate, **given)
    else:
        patterns = given.pop("exclude_from_weight_decay", [])
        made = _KERAS[name](learning_rate, **given)
        # Keras matches names, not paths: the patterns are resolved here, by our rule.
        matched = resolve(
            [variable_path(v) for v in variables], patterns, "exclude_from_weight_decay"
        )
        excluded = [v for v, pattern in zip(variables, matched, strict=True) if pattern]
        made.exclude_from_weight_decay(var_list=excluded)
    made.build(variables)
    return made


def regularise(recipe, variables):
    """Adds the recipe's L2 regularisation to the training loss of a model.

    The gradient of such a variable w gets l2 * w, before the optimizer sees it; weight decay acts
    apart from the gradient. Saved models don't keep it.

    Args:
        recipe: a `Recipe`; without `l2` nothing is done.
        variables: the model's trainable variables.

    Raises:
        ValueError: if a pattern of `exclude_from_weight_decay` is refused.
    """
    if not recipe.l2:
        return
    patterns = _patterns(recipe.exclude_from_weight_decay or ())
    paths = [variable_path(v) for v in variables]
    matched = resolve(paths, patterns, "exclude_from_weight_decay")
    for variable, pattern in zip(variables, matched, strict=True):
        if not pattern:
            variable.regularizer = keras.regularizers.L2(recipe.l2 / 2)


def _patterns(given):
    return [BIAS_AND_NORM if pattern == "bias_and_norm" else pattern for pattern in given]


def print_exclusions(recipe, optimizer, variables):
    """Prints which variables the built optimizer decays and adapts, Keras' own included."""
    if recipe.optimizer in _OURS:
        optimizer.summary()
        return
    decays = bool(optimizer.weight_decay)
    rows = []
    for v in variables:
        decayed = decays and optimizer._use_weight_decay(v)
        pattern = "exclude_from_weight_decay" if decays and not decayed else None
        adapted = recipe.optimizer == "keras_lamb"
        rows.append(Exclusion(variable_path(v), tuple(v.shape), decayed, adapted, pattern, None))
    print(format_table(rows))


def switch_optimizer(recipe, name):
    """The recipe with another optimizer, less the hyper-parameters that were the old one's.

    Exclusion lists, clips and weight decay stay, where the new optimizer takes them.

    Returns:
        (recipe, names of the keys that were dropped)

    >>> from tf_largebatch.recipes import Recipe
    >>> switched, dropped = switch_optimizer(Recipe(optimizer="lamb", beta_1=0.8), "sgd")
    >>> switched.optimizer, dropped
    ('sgd', ['beta_1'])
    """
    keep = (_EXCLUSIONS | _CLIPS | {"weight_decay"}) & taken_by(name)
    drop = [
        field.name
        for field in dataclasses.fields(recipe)
        if field.name in HYPERPARAMETERS - keep and getattr(recipe, field.name) is not None
    ]
    if name == recipe.optimizer:
        return recipe, []
    return recipe.replace(optimizer=name, **dict.fromkeys(drop)), drop
