"""The command line of the study.

Every run is train.py in a process of its own. All optimizers get the same length of training, the
same data and the same seeds, and each its own rule, which is printed: the recipe's, or for sgd
(Nesterov momentum) that of Goyal et al. 2017. Base learning rates that aren't given are searched
for at the base batch, with as many trials for every optimizer, this package's included. Trials have
a seed of their own and are judged on the very held-out data that the study reports, which favours
what is tuned, every optimizer alike.

Exit codes: 0 done, 1 runs failed, 2 a mistake in the command, 130 and 143 stopped by SIGINT and
SIGTERM: the same command goes on.
"""

import argparse
import math
import os
import signal
import sys
from pathlib import Path

from tf_largebatch.study import _cells, _rules, _tuning
from tf_largebatch.study._job import make_job
from tf_largebatch.study._plan import Plan
from tf_largebatch.study._processes import Stopped
from tf_largebatch.study._study import Study

CHECKOUT = Path(__file__).resolve().parents[2]


def main(argv=None):
    """Runs the tool; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    flags = parser.parse_args(argv[:split])
    try:
        if flags.report is not None:
            _report(flags.report)
            return 0
        study = _study(flags, argv, argv[split + 1 :])
        if flags.dry_run:
            study.describe()
            return 0
        study.run()
        _report(flags.out)
    except (ValueError, OSError, ImportError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(f"study: {stop}. The same command goes on.", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    failed = study.failed()
    if failed:
        print(
            f"study: {len(failed)} runs failed, {failed[0]} among them. The same command tries "
            "them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _report(folder):
    from tf_largebatch.study._report import write_report  # it needs matplotlib, the runs don't

    print(write_report(folder))
    print(f"{os.path.join(folder, 'report.html')} shows the same as a page.")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tf_largebatch.study",
        description=__doc__,
        epilog="Flags of train.py that are the same for all runs come last, after --.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    words, numbers = _list_of(str), _list_of(int)
    add("--recipe", default="lenet_digits", help="the job; default: %(default)s")
    add("--smoke", action="store_true", help="the recipe's small run, on embedded data")
    add("--model", help="another model: a name, or module:function of your own")
    add("--data", help="another data set")
    add("--epochs", type=float, help="length of training; default: the recipe's")
    add("--total_updates", type=int, help="the same, in updates at the base batch")
    add("--scaling", choices=("linear", "sqrt", "none"), help="instead of the recipe's rule")
    add(
        "--optimizers",
        type=words,
        default=["lamb", "adamw", "sgd"],
        help=f"of {', '.join(_rules.OPTIMIZERS)}; a + behind it adds Goyal's "
        "warmup and steps down, _l2 (before a +) L2 regularisation",
    )
    add("--batch_sizes", type=numbers, help="default: the recipe's base batch")
    add("--seeds", type=numbers, default=[0], help="default: 0")
    add(
        "--base_learning_rates",
        type=_rates,
        default={},
        help="known rates at the base batch, such as adamw=0.001,sgd=0.02",
    )
    add("--base_trials", type=int, default=5, help="rates tried for the others; default: 5")
    add(
        "--tune",
        choices=("grid", "random"),
        help="tune every optimizer, too, at the same cost, on the held-out examples reported",
    )
    add("--trials", type=int, default=9, help="of each optimizer at each batch; default: 9")
    add("--tune_batch_sizes", type=numbers, help="default: all batch sizes")
    add(
        "--space",
        choices=_tuning.SPACES,
        default="ruled",
        help="around the ruled settings, or the lists of the thesis; default: ruled",
    )
    add("--tuning_seed", type=int, default=1000, help="not among --seeds; default: 1000")
    add("--ablate", type=words, default=[], help=f"of {', '.join(_cells.ABLATIONS)}")
    add("--sweep", choices=("learning_rate",), help="1/8 to 8 times the ruled rate, first seed")
    add("--target", type=float, help="metric, at most 1, of the report's updates to target")
    add("--out", default="runs/study", help="folder; a study in it goes on; default: %(default)s")
    add("--processes", type=int, default=1, help="runs side by side; default: 1")
    add("--train", help="path of the training script; default: the checkout's train.py")
    add("--keep_models", action="store_true", help="keep weights and checkpoints")
    add("--dry_run", action="store_true", help="print what would be run, and how long it takes")
    add("--report", metavar="FOLDER", help="write the report of a study's folder anew, no more")
    return parser


def _study(flags, argv, train_flags):
    """The study that the flags describe, checked; nothing is written."""
    for name in ("base_trials", "trials", "processes"):
        if getattr(flags, name) < 1:
            raise ValueError(f"--{name} must be at least 1. Received: {getattr(flags, name)}.")
    if not flags.out:
        raise ValueError("--out must name a folder. Received an empty name.")
    if not flags.tune and (flags.tune_batch_sizes or flags.space != "ruled"):
        raise ValueError(
            "--tune_batch_sizes and --space are of tuning. Received one of them without --tune. "
            "Add --tune=grid or --tune=random."
        )
    if flags.target is not None and not 0 < flags.target <= 1:
        raise ValueError(f"--target must be a fraction, at most 1. Received: {flags.target:g}.")
    for optimizer in flags.optimizers:
        _rules.plain(optimizer)
    for name in flags.ablate:
        if name not in _cells.ABLATIONS:
            raise ValueError(
                f"--ablate must be of {', '.join(_cells.ABLATIONS)}. Received: {name}."
            )
    train = Path(flags.train) if flags.train else CHECKOUT / "train.py"
    if not train.is_file():
        raise ValueError(
            f"The training script is missing. Received: {train}. Give --train path/to/train.py, "
            "from a checkout of this project: it isn't installed with the package."
        )
    job = make_job(
        flags.recipe, smoke=flags.smoke, scaling=flags.scaling, epochs=flags.epochs,
        total_updates=flags.total_updates, model=flags.model, data=flags.data, flags=train_flags,
    )  # fmt: skip
    batch_sizes = flags.batch_sizes or [job.base.global_batch_size]
    plan = Plan(
        job, flags.optimizers, batch_sizes, flags.seeds, flags.base_learning_rates,
        flags.base_trials, flags.tuning_seed, flags.ablate, bool(flags.sweep), flags.tune,
        flags.trials, flags.tune_batch_sizes or batch_sizes, flags.space,
    )  # fmt: skip
    plan.check()
    settings = {
        "recipe": flags.recipe, "smoke": flags.smoke, "model": flags.model,
        "data": flags.data, "epochs": flags.epochs, "total_updates": flags.total_updates,
        "scaling": flags.scaling, "train_flags": " ".join(train_flags),
        "optimizers": flags.optimizers, "batch_sizes": batch_sizes, "seeds": flags.seeds,
        "base_learning_rates": flags.base_learning_rates, "ablate": flags.ablate,
    }  # fmt: skip
    if flags.sweep:
        settings["sweep"] = flags.sweep
    if flags.tune:
        names = ("tune", "trials", "space")
        settings |= {name: getattr(flags, name) for name in names}
        settings["tune_batch_sizes"] = plan.tune_batch_sizes
    if plan.base_cells():
        settings["base_trials"] = flags.base_trials
    if plan.base_cells() or flags.tune:
        settings["tuning_seed"] = flags.tuning_seed
    return Study(
        plan, flags.out, ["python", "-m", "tf_largebatch.study", *argv], settings,
        train=os.fspath(train), processes=flags.processes, keep_models=flags.keep_models,
        target=flags.target,
    )  # fmt: skip


def _list_of(kind):
    """An argparse type: entries between commas, each once, in their order."""

    def parse(text):
        return list(dict.fromkeys(kind(entry.strip()) for entry in text.split(",")))

    parse.__name__ = "list of whole numbers" if kind is int else "list"
    return parse


def _rates(text):
    """An argparse type: "adamw=0.001,sgd=0.02" as a dict."""
    found = {}
    for entry in text.split(","):
        name, _, value = entry.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise argparse.ArgumentTypeError(
                f"entries must be optimizer=rate, rates finite and above 0. Received: {entry}"
            )
        found[name.strip()] = rate
    return found
