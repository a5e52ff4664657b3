r"""How large a batch is worth it, and what it costs.

    python -m tf_largebatch.plan --recipe=resnet50_lars --batch_sizes=256,1024,8192,32768 \
        --devices=16 --network=fdr
    python -m tf_largebatch.plan --recipe=lenet_digits --batch_sizes=16,128,1024 --measure=1:256
    python -m tf_largebatch.plan --model=my_module:build --num_examples=50000 --epochs=90 \
        --batch_sizes=256,4096 --devices=8,64 --device=a100 --plot=plan.svg

Times are predictions by a model, alpha-beta for the all-reduce, with nothing overlapped; memory is
an estimate. Exit codes: 0 done, 1 a trial of --measure failed, 2 wrong flags.
"""

import argparse
import contextlib
import os
import sys

from tf_largebatch import costs
from tf_largebatch.plan._job import model_job, recipe_job
from tf_largebatch.plan._measurement import TrialFailed, measure, points, sizes_of
from tf_largebatch.plan._prediction import Machine, predict
from tf_largebatch.plan._report import FORMATS, Plan, report
from tf_largebatch.recipes import Recipe
from tf_largebatch.scaling import check_count, check_number

DEFAULT_DEVICE, DEFAULT_NETWORK = "p100", "fdr"  # those of the thesis
# Ours, an assumption: what training reaches of a device's peak. --measure finds it out.
DEFAULT_UTILIZATION = 0.4


def main(argv=None):
    """Runs the tool; returns the exit code."""
    parser = _parser()
    flags = parser.parse_args(argv)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the report's alone
            plan = make_plan(flags)
        # Before the figure: what was measured must not be lost with it.
        report(plan, flags.format)
        sys.stdout.flush()
        if flags.plot is not None:
            from tf_largebatch.plan._figure import draw

            draw(plan, flags.plot)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        print(f"plan: {error}", file=sys.stderr)
        return 2
    except TrialFailed as error:
        print(f"plan: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_plan(flags):
    """The `Plan` for flags as parsed. ValueError for what doesn't go together."""
    _check(flags)
    network = _network(flags)
    job = recipe_job(flags) if flags.recipe is not None else model_job(flags)
    if flags.measure is not None and len(job.sequence_lengths) > 1:
        raise ValueError(
            "--measure handles runs of one sequence length. Received: a recipe of "
            f"{', '.join(map(str, job.sequence_lengths))} tokens. Leave it out, or plan each phase "
            "with --model and --sequence_length."
        )
    if flags.multiply_adds is not None and len(job.sequence_lengths) > 1:
        raise ValueError(
            "--multiply_adds is one number, and the run has examples of "
            f"{', '.join(map(str, job.sequence_lengths))} tokens. Leave it out, with --parameters."
        )
    # Before the model is made here: on a GPU this process would take its memory.
    trials = ()
    if flags.measure is not None:
        trials = measure(job, sizes_of(flags.measure), memory_limit_gib=flags.memory_limit_gib)
        if not points(trials):
            raise ValueError(
                f"Not even a micro-batch of {trials[0].micro_batch_size} fits in memory. Begin "
                "--measure with a smaller one."
            )
    machine = _machine(flags, network, job, points(trials))
    counted = _counted(flags, job)
    runs = flags.tuning_runs
    runs = runs * len(job.settings) if len(runs) == 1 else runs
    rows = tuple(
        predict(job, counted, machine, setting, devices, tuning_runs)
        for devices in flags.devices
        for setting, tuning_runs in zip(job.settings, runs, strict=True)
    )
    return Plan(job, counted, machine, _speed_in_words(flags, job), trials, rows)


def _counted(flags, job):
    from tf_largebatch.plan._model import Counted, count

    if flags.parameters is not None:
        given = Counted(flags.parameters, flags.multiply_adds, None)
        return dict.fromkeys(job.sequence_lengths, given)
    return count(job.model, job.sequence_lengths, flags.multiply_adds)


def _check(flags):
    """Refuses numbers that make no sense, and flags that say nothing together."""
    names = ("recipe", "model", "parameters")
    chosen = [name for name in names if getattr(flags, name) is not None]
    if not chosen or ("model" in chosen and len(chosen) > 1):
        raise ValueError(
            "Say what to plan: give --recipe, or --model, or --parameters with --multiply_adds "
            f"(also with --recipe). Received: {', '.join(chosen) or 'none of them'}."
        )
    if flags.parameters is not None and flags.multiply_adds is None:
        raise ValueError("--parameters needs --multiply_adds, those of an example. Give both.")
    if flags.measure is not None and (
        flags.parameters is not None or flags.time_per_flop or flags.utilization is not None
    ):
        raise ValueError(
            "--measure runs the model and finds its speed. Leave out --parameters, "
            "--time_per_flop and --utilization."
        )
    if flags.time_per_flop is not None and (flags.device or flags.utilization is not None):
        raise ValueError(
            "--time_per_flop is the speed that is reached, whatever the device. Leave out --device "
            "and --utilization, or --time_per_flop."
        )
    if flags.memory_limit_gib is not None and flags.measure is None:
        raise ValueError("--memory_limit_gib belongs to --measure. Give both.")
    if flags.recipe is not None and (flags.optimizer or flags.model_options or flags.input_shape):
        raise ValueError(
            "A recipe has its own optimizer and network. Leave out --optimizer, --model_options "
            "and --input_shape, or give --model instead of --recipe."
        )
    if flags.parameters is not None and (flags.model_options or flags.input_shape or flags.train):
        raise ValueError(
            "With --parameters no network is made. Leave out --model_options, --input_shape and "
            "--train, or --parameters."
        )
    for name in ("batch_sizes", "devices", "tuning_runs"):
        for value in getattr(flags, name):
            check_count(f"--{name}", value)
    for name in ("num_examples", "micro_batch_size", "sequence_length"):
        if getattr(flags, name) is not None:
            check_count(f"--{name}", getattr(flags, name))
    for name in ("epochs", "alpha", "beta", "time_per_flop", "parameters", "multiply_adds",
                 "joules_per_operation", "joules_per_byte", "memory_limit_gib"):  # fmt: skip
        if getattr(flags, name) is not None:
            mend = "Correct it, or leave it out."
            check_number(f"--{name}", getattr(flags, name), mend=mend)
    if flags.utilization is not None and not 0 < flags.utilization <= 1:
        raise ValueError(
            "--utilization must lie above 0 and not above 1. Received: "
            f"{flags.utilization:g}. For 40 %, pass 0.4."
        )
    if len(flags.tuning_runs) not in (1, len(flags.batch_sizes)):
        raise ValueError(
            "--tuning_runs must be one number, or one for each batch size. Received: "
            f"{len(flags.tuning_runs)} for {len(flags.batch_sizes)} batch sizes."
        )
    if flags.plot is not None and not flags.plot.endswith((".png", ".svg")):
        raise ValueError(f"--plot must end in .png or .svg. Received: {flags.plot}.")
    Recipe(optimizer=flags.optimizer or "lamb", precision=flags.precision or "float32")


def _network(flags):
    if (flags.alpha is None) != (flags.beta is None):
        raise ValueError("--alpha and --beta belong together. Give both, or --network.")
    if flags.alpha is None:
        return costs.network_named(flags.network or DEFAULT_NETWORK)
    if flags.network is not None:
        raise ValueError("A network has one alpha and one beta. Give --network, or those two.")
    return costs.Network("given", flags.alpha, flags.beta, "--alpha and --beta")


def _device(flags):
    return costs.device_named(flags.device or DEFAULT_DEVICE)


def _utilization(flags):
    return DEFAULT_UTILIZATION if flags.utilization is None else flags.utilization


def _machine(flags, network, job, measured):
    """The `Machine`; a device's power for the time of an operation is its price."""
    seconds, joules, watts = flags.time_per_flop, None, None
    if measured and flags.device is not None:
        watts = _device(flags).watts
    elif not measured and seconds is None:
        device = _device(flags)
        seconds = device.seconds_per_operation(job.precision) / _utilization(flags)
        joules = None if device.watts is None else device.watts * seconds
    return Machine(
        network=network,
        seconds_per_operation=seconds,
        measured=measured,
        watts=watts,
        joules_per_operation=flags.joules_per_operation or joules,
        joules_per_byte=flags.joules_per_byte or network.joules_per_byte,
    )


def _speed_in_words(flags, job):
    if flags.measure is not None:
        return "measured on this machine"
    if flags.time_per_flop is not None:
        return f"{flags.time_per_flop:.3g} s an operation, as given"
    device = _device(flags)
    peak = 1 / device.seconds_per_operation(job.precision) / 1e12
    return (
        f"{device.name}, peak {peak:g} Tflop/s ({device.source}), of which "
        f"{_utilization(flags):.0%} is reached (an assumption; --measure finds out)"
    )


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tf_largebatch.plan", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument_group("what is trained").add_argument
    add("--recipe", help="name of a recipe, or the path of one; rows follow from its rule")
    add("--model", help="a reference network, or module:function, which returns a Keras model")
    add("--model_options", nargs="+", metavar="NAME=VALUE", help="arguments of its function")
    add("--input_shape", type=_integers, help="such as 224,224,3: the argument input_shape")
    add("--sequence_length", type=int, help="of inputs whose shape leaves it open")
    add("--parameters", type=float, help="instead of a model: its trainable parameters")
    add("--multiply_adds", type=float, help="of an example forward, if they shall not be counted")
    add("--num_examples", type=int, help="to train on; known for some recipes' data")
    add("--epochs", type=float, help="length of the run; a recipe has one")
    add("--optimizer", help="of --model; default: lamb")
    add("--precision", help="as train.py takes it; default: the recipe's, or float32")
    add("--train", metavar="TRAIN.PY", help="where models/ lies beside; default: this checkout's")
    add = parser.add_argument_group("how it is run").add_argument
    add("--batch_sizes", type=_integers, required=True, help="examples an update, such as 256,4096")
    add("--devices", type=_integers, default=(1,), help="how many share it, such as 8,64")
    add("--micro_batch_size", type=int, help="examples a device holds; default: all its share")
    add("--network", help=f"{', '.join(costs.NETWORKS)}; default: {DEFAULT_NETWORK}")
    add("--alpha", type=float, help="instead: latency of a message, in seconds")
    add("--beta", type=float, help="instead: seconds a byte")
    add("--device", help=f"{', '.join(costs.DEVICES)}; default: {DEFAULT_DEVICE}; with --measure, "
        "whose watts count")  # fmt: skip
    reached = f"part of the device's peak that training reaches; default: {DEFAULT_UTILIZATION}"
    add("--utilization", type=float, help=reached)
    add("--time_per_flop", type=float, help="instead: seconds an operation, as reached")
    add("--tuning_runs", type=_integers, default=(1,),
        help="how often the run is made, or such a number for each batch size")  # fmt: skip
    add("--joules_per_operation", type=float, help="default: the device's watts x its time")
    add("--joules_per_byte", type=float,
        help=f"default: {costs.LINK_WATTS:g} W a link x its time, an assumption")  # fmt: skip
    add = parser.add_argument_group("measurement").add_argument
    add("--measure", metavar="FIRST:LAST",
        help="time training steps here at micro-batch sizes FIRST, 2 FIRST, ... LAST")  # fmt: skip
    add("--memory_limit_gib", type=float, help="what a step of --measure may take; Linux alone")
    add = parser.add_argument_group("output").add_argument
    add("--format", choices=FORMATS, default=FORMATS[0])
    add("--plot", metavar="FILE", help="a figure, .png or .svg")
    return parser


def _integers(text):
    try:
        return tuple(int(entry) for entry in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers with commas between them, such as 256,4096. Received: {text}."
        ) from None
