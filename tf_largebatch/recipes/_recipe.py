"""One row of a recipe, fully resolved: the keys of the TOML files and the flags of train.py."""

import dataclasses
import itertools
import typing

from tf_largebatch.recipes._keys import (
    ABOVE_0,
    AT_LEAST_0,
    BELOW_1,
    EXIT_CODE,
    UP_TO_1,
    checked,
    key,
    nearest,
)
from tf_largebatch.scaling import RULES

OPTIMIZERS = ("lamb", "lars", "nlamb", "nnlamb", "sgd", "adamw", "muon", "keras_lamb")
OPTIMIZERS += ("adagrad", "adam", "nadam")  # baselines of the published comparisons

# Two ways to say one thing: a row holds at most one of each pair, and setting one clears the other.
_SAME_THING = (("epochs", "total_updates"), ("warmup_epochs", "warmup_updates"))


def same_thing(name):
    """The other key that says the same thing in other units, or None."""
    pairs = dict(_SAME_THING)
    return (pairs | {other: one for one, other in pairs.items()}).get(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that one training run is set by. None leaves a key to the tool that reads it.

    `dataclasses.fields(Recipe)` is the one list of keys: type, default, and in the metadata `help`
    and, where there are any, `choices`. Values are checked and normalised on construction.

    Raises:
        ValueError: If a value has the wrong type or is out of range, or two values contradict.

    >>> row = Recipe(global_batch_size=512, learning_rate=0.005, epochs=90, warmup_epochs=0.3125)
    >>> row.replace(learning_rate=0.04).learning_rate
    0.04
    """

    # What is trained.
    recipe: str | None = key(None, "Name of the table that the row comes from.")
    model: str = key("lenet5", "Reference network to train.")
    model_options: tuple[str, ...] = key(
        (), 'Options of the network\'s function, each "name=value", such as "dropout=0.5".'
    )
    data: str = key("digits", "Data set to train on.")
    data_options: tuple[str, ...] = key(
        (), 'Options of the data set\'s function, each "name=value", such as "num_classes=10".'
    )
    optimizer: str = key("lamb", "Optimizer.", choices=OPTIMIZERS)

    # The learning rate, from the first update to the last.
    learning_rate: float | None = key(
        None, "Peak learning rate, reached where warmup ends; final, never scaled again.",
        within=ABOVE_0,
    )  # fmt: skip
    global_batch_size: int = key(256, "Examples per update, over all replicas.", within=ABOVE_0)
    epochs: float | None = key(None, "Length of training, in epochs.", within=ABOVE_0)
    total_updates: int | None = key(None, "Length of training, in updates.", within=ABOVE_0)
    schedule: str = key(
        "polynomial", "How the learning rate falls after warmup.",
        choices=("polynomial", "cosine", "piecewise", "constant"),
    )  # fmt: skip
    power: float = key(1.0, "Exponent of the polynomial schedule.", within=ABOVE_0)
    end_learning_rate: float = key(0.0, "Learning rate after the last update.", within=AT_LEAST_0)
    decay_from: str = key(
        "start",
        "Where the decay is counted from: update 0, so that the rate drops where warmup ends, "
        "or the end of the warmup.",
        choices=("start", "warmup_end"),
    )
    decay_epochs: tuple[float, ...] = key(
        (), "Epochs at which the piecewise schedule falls, increasing."
    )
    decay_factor: float = key(0.1, "Factor of each fall of the piecewise schedule.", within=UP_TO_1)
    warmup_epochs: float | None = key(None, "Length of the warmup, in epochs.", within=AT_LEAST_0)
    warmup_updates: int | None = key(None, "Length of the warmup, in updates.", within=AT_LEAST_0)
    scaling: str = key(
        "none",
        "How the learning rate follows the batch size where a row is derived from another one.",
        choices=RULES,
    )

    # The optimizer's hyper-parameters; None is its own default.
    weight_decay: float | None = key(None, "Weight decay coefficient.", within=AT_LEAST_0)
    momentum: float | None = key(None, "Momentum of LARS and SGD.", within=BELOW_1)
    nesterov: bool | None = key(None, "Nesterov's form of the momentum of LARS and SGD.")
    beta_1: float | None = key(None, "Decay rate of the first moment.", within=BELOW_1)
    beta_2: float | None = key(None, "Decay rate of the second moment.", within=BELOW_1)
    epsilon: float | None = key(None, "Added to the denominator.", within=AT_LEAST_0)
    trust_coefficient: float | None = key(None, "Factor of LARS' trust ratio.", within=ABOVE_0)
    joint_norm: bool | None = key(None, "LARS: take the norm of gradient plus decay, not two.")
    momentum_mode: str | None = key(
        None, "LARS: where the learning rate and the trust ratio enter the momentum.",
        choices=("classic", "outside", "adapted"),
    )  # fmt: skip
    momentum_decay: float | None = key(None, "Psi of N-LAMB's momentum.", within=AT_LEAST_0)
    bias_correction: bool | None = key(None, "LAMB: correct the moments for their start at 0.")
    norm_ord: str | None = key(None, "LAMB: order of the norms.", choices=("1", "2", "inf"))
    weight_norm_clip: tuple[float, float] | None = key(
        None, "Bounds of the weight norm in the trust ratio."
    )
    trust_ratio_clip: tuple[float, float] | None = key(None, "Bounds of the trust ratio.")
    weight_rounding: str | None = key(
        None, "What becomes of the digits that a bfloat16 or float16 weight has no room for: kept "
        "beside it (compensated), or rounded at random (stochastic).",
        choices=("compensated", "stochastic"),
    )  # fmt: skip
    clipnorm: float | None = key(None, "Largest norm of one variable's gradient.", within=ABOVE_0)
    clipvalue: float | None = key(None, "Largest size of a gradient's element.", within=ABOVE_0)
    global_clipnorm: float | None = key(None, "Largest norm of the whole gradient.", within=ABOVE_0)
    exclude_from_weight_decay: tuple[str, ...] | None = key(
        None,
        "Regexes, searched for in variable paths, of variables that are not decayed; the word "
        "bias_and_norm stands for biases and the parameters of normalisation layers.",
    )
    exclude_from_layer_adaptation: tuple[str, ...] | None = key(
        None,
        "Regexes, as in exclude_from_weight_decay, of variables whose trust ratio is 1; by "
        "default that very list, and an empty list excludes none.",
    )
    label_smoothing: float = key(0.0, "Share of the label spread evenly.", within=BELOW_1)
    l2: float | None = key(
        None,
        "L2 regularisation: this times half the squared norm of all variables but those in "
        "exclude_from_weight_decay, added to the training loss.",
        within=AT_LEAST_0,
    )

    # The images.
    image_size: int | None = key(
        None, "Height and width that images are brought to, where the data set leaves it open.",
        within=ABOVE_0,
    )  # fmt: skip
    augmentation: str | None = key(
        None,
        "How training images are varied; by default JPEG files heavily, crops weakly, others not.",
        choices=("none", "weak", "heavy", "cifar"),
    )
    shuffle: str = key(
        "global",
        "Order of the examples: one for all workers, however many they are, or each worker's own "
        "over its part of the data.",
        choices=("global", "per_worker"),
    )
    skip_bad_records: bool = key(
        False, "Go on without records that can't be read, and count them, instead of stopping."
    )

    # The text, and the phases of a run whose sequence length changes on the way.
    sequence_lengths: tuple[int, ...] = key(
        (), "Tokens of an example; several make a run of as many phases, one after the other."
    )
    phase_proportions: tuple[float, ...] = key(
        (), "How long the phases are in relation to each other, counted in updates."
    )
    phase_batch_sizes: tuple[int, ...] = key(
        (), "Examples per update of each phase, the first as global_batch_size; by default all so."
    )
    phase_learning_rates: tuple[float, ...] = key(
        (),
        "Peak of each phase, the first as learning_rate: each phase then warms up and decays by "
        "itself; by default one schedule runs through all of them.",
    )
    phase_warmup_updates: tuple[int, ...] = key(
        (), "Warmup of each phase that has its own learning rate, the first as warmup_updates."
    )

    # The run.
    precision: str = key(
        "float32", "Data types of variables and computation.",
        choices=("float32", "mixed_bfloat16", "bfloat16", "mixed_float16"),
    )  # fmt: skip
    seed: int = key(0, "Seed of weights, data order, augmentation and dropout.", within=AT_LEAST_0)
    data_dir: str | None = key(None, "Folder that holds the data.")
    model_dir: str | None = key(None, "Folder for checkpoints and logs.")
    resume: bool = key(False, "Go on from the last checkpoint in model_dir, if there is one.")
    checkpoint_every: int | None = key(None, "Updates between two checkpoints.", within=ABOVE_0)
    init_from: str | None = key(None, "File of weights to start from.")
    max_updates: int | None = key(
        None, "Stop after so many updates; the schedule keeps its length.", within=ABOVE_0
    )
    target_metric: float | None = key(None, "Stop once the validation metric reaches this.")
    profile_updates: str | None = key(None, 'Updates to profile, "a:b": from a to before b.')
    diagnostics: tuple[str, ...] = key(
        (), "What to record along the run: norms (and trust ratios, of every variable), "
        "noise_scale.",
    )  # fmt: skip
    diagnose_every: int = key(50, "Updates between two looks of the diagnostics.", within=ABOVE_0)
    eval_only: bool = key(False, "Evaluate, without training.")
    strategy: str = key(
        "auto",
        "Devices: one_device, mirrored (all GPUs, or logical CPU devices), multi_worker, tpu, or "
        "auto: tpu where one is named, multi_worker where workers are, by flag or by TF_CONFIG, "
        "mirrored where there are several GPUs or num_replicas is above 1.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    num_replicas: int | None = key(
        None, "Replicas; on a CPU so many logical devices are made.", within=ABOVE_0
    )
    workers: tuple[str, ...] | None = key(
        None, 'Addresses "host:port" of all workers, the chief first; by default TF_CONFIG\'s.'
    )
    worker_index: int | None = key(
        None, "Which of the workers this process is; 0 is the chief, which writes.",
        within=AT_LEAST_0,
    )  # fmt: skip
    tpu: str | None = key(None, "Name or grpc:// address of a Cloud TPU; local on its own host.")
    tpu_zone: str | None = key(None, "Zone of the Cloud TPU.")
    tpu_project: str | None = key(None, "Project of the Cloud TPU.")
    micro_batch_size: int | None = key(
        None, "Examples that a replica holds in memory at a time; by default all its share of the "
        "global batch.", within=ABOVE_0,
    )  # fmt: skip
    jit: bool = key(False, "Compile the step by XLA.")
    steps_per_loop: int | None = key(None, "Updates that one host call runs.", within=ABOVE_0)
    preemption_exit_code: int = key(
        143, "Exit code where SIGTERM or the loss of a worker ended the run: start it again.",
        within=EXIT_CODE,
    )  # fmt: skip

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))
        for one, other in _SAME_THING:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(
                    f"{one} and {other} say the same thing: give one of them. Received: "
                    f"{one}={getattr(self, one)}, {other}={getattr(self, other)}."
                )
        for warmup, length in ("warmup_epochs", "epochs"), ("warmup_updates", "total_updates"):
            w, n = getattr(self, warmup), getattr(self, length)
            if w is not None and n is not None and w > n:
                raise ValueError(
                    f"{warmup} must not be longer than {length}. Received: {warmup}={w:g}, "
                    f"{length}={n:g}. Train for longer, or warm up for less."
                )
        self._check_phases()
        falls = (0.0, *self.decay_epochs)
        if any(here >= there for here, there in itertools.pairwise(falls)):
            raise ValueError(
                "decay_epochs must increase, from above 0. Received: "
                f"decay_epochs={list(self.decay_epochs)}. Sort them: [30, 60, 80]."
            )
        if self.schedule == "piecewise" and not self.decay_epochs:
            raise ValueError(
                "schedule='piecewise' must be given the epochs at which the learning rate falls. "
                "Received: decay_epochs=[]. Set decay_epochs, for instance to [30, 60, 80]."
            )
        if self.profile_updates is not None:
            first, _, last = self.profile_updates.partition(":")
            numbers = first.isdecimal() and last.isdecimal()
            if not numbers or int(first) >= int(last):
                raise ValueError(
                    'profile_updates must be "a:b", two whole numbers with 0 <= a < b. Received: '
                    f'profile_updates={self.profile_updates!r}. Write "10:20" for ten updates.'
                )

    def _check_phases(self):
        count = len(self.sequence_lengths)
        if any(length < 1 for length in self.sequence_lengths):
            raise ValueError(
                "sequence_lengths must be whole numbers above 0. Received: sequence_lengths="
                f"{list(self.sequence_lengths)}. Correct them."
            )
        for name, first in (
            ("phase_proportions", None), ("phase_batch_sizes", "global_batch_size"),
            ("phase_learning_rates", "learning_rate"), ("phase_warmup_updates", "warmup_updates"),
        ):  # fmt: skip
            values = getattr(self, name)
            if values and (len(values) != count or count == 1):
                raise ValueError(
                    f"{name} must have one entry for each of several phases. Received: {name}="
                    f"{list(values)}, sequence_lengths={list(self.sequence_lengths)}."
                )
            least = 0 if name == "phase_warmup_updates" else 1e-300
            if any(value < least for value in values):
                raise ValueError(
                    f"{name} must be {'of at least' if least == 0 else 'above'} 0. Received: "
                    f"{name}={list(values)}. Correct them."
                )
            if values and first is not None and values[0] != getattr(self, first):
                raise ValueError(
                    f"{name} must begin with {first}. Received: {name}={list(values)}, {first}="
                    f"{getattr(self, first)}. Set both."
                )
        if count < 2:
            return
        if not self.phase_proportions:
            raise ValueError(
                "A run of several phases must be told how long they are. Received: "
                f"sequence_lengths={list(self.sequence_lengths)}, phase_proportions=[]. Set "
                "phase_proportions, for instance to [9, 1]."
            )
        if bool(self.phase_learning_rates) != bool(self.phase_warmup_updates):
            raise ValueError(
                "phase_learning_rates and phase_warmup_updates belong together. Received: "
                f"{list(self.phase_learning_rates)} and {list(self.phase_warmup_updates)}. Set "
                "both, or neither for one schedule through all phases."
            )

    def replace(self, **changes):
        """A copy with some keys changed, checked again; nothing is scaled.

        `epochs` and `total_updates` are two ways to say one thing, and so are the two lengths of
        the warmup: setting one clears the other.

        >>> row = Recipe(total_updates=15625, warmup_updates=3125)
        >>> row.replace(epochs=2).total_updates is None
        True
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"{name!r} is no recipe key. {nearest(name, known)}")
        for name in [k for k, v in changes.items() if v is not None]:
            other = same_thing(name)
            if other is not None:
                changes.setdefault(other, None)
        return dataclasses.replace(self, **changes)


class Resolved(typing.NamedTuple):
    """A row, and how it came about."""

    recipe: Recipe
    derived: bool  # True if a rule made it, False if the table has it
    how: str  # for the log: "printed row", or which row it was derived from and by what
    not_in_source: tuple[str, ...] = ()  # keys the source has no value for: ours, or left open

    @property
    def missing(self):
        """The keys of `not_in_source` that are left open: whoever trains must choose them."""
        return tuple(k for k in self.not_in_source if getattr(self.recipe, k) is None)
