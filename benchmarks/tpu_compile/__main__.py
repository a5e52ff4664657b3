"""Whether the training steps compile for TPUs, by the real compiler, with no TPU.

    make tpu-check                                         B and C, some 15 minutes on 2 cores
    make tpu-check ARGS="--routes A"                       with variables and accumulation
    make tpu-check ARGS="--models lenet5 --targets all"
    make tpu-check ARGS="--models my_module:my_network"    your own, for 28x28x1 images
    make tpu-check ARGS="--pods"                           whole slices, up to 2,048 cores

It says "compiles for", never "runs on": numbers, speed, and TPUStrategy at work are not shown.
Exit codes: 0 all steps compile, 1 one doesn't, 2 the check itself failed and says nothing.
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.tpu_compile import report
from benchmarks.tpu_compile.cases import CASES, Case
from benchmarks.tpu_compile.checks import ROUTES, Check, Machine, run_checks, run_controls
from benchmarks.tpu_compile.reading import exit_code

# Eight cores each, so that one program serves all.
TARGETS = ("v5e:2x4", "v2:2x2", "v3:2x2", "v4:2x2x1", "v5p:2x2x2", "v6e:2x4", "tpu7x:2x2x1")
DEFAULT_MODELS = ("lenet5", "resnet50", "bert_base")
ACCUMULATION = 2  # of route A, which alone can compile the loop over micro-batches
PODS = {
    "v5e:16x16": CASES["bert_base"]._replace(examples_per_core=128),  # 32,768 examples
    "v3:32x32": CASES["bert_large"]._replace(examples_per_core=16),
}


def checks_of(options):
    """All checks that the options ask for."""
    if options.pods:
        asked = list(PODS.items())
        routes = [("B", "trainer"), ("C", "fit")]
    else:
        own = Case(options.recipe, "", CASES["lenet5"].examples_per_core)
        cases = [CASES.get(name) or own._replace(model=name) for name in options.models]
        asked = [(target, case) for case in cases for target in options.targets]
        routes = [("A", "trainer"), ("B", "trainer"), ("B", "fit"), ("C", "fit")]
    found = []
    for target, case in asked:
        for route, step in routes:
            # fit's own step is shown with LAMB.
            shown = step == "trainer" or "lars" not in case.recipe
            if route in options.routes and step in options.steps and shown:
                many = ACCUMULATION if route == "A" else 1
                found.append(Check(route, step, case._replace(accumulation=many), target))
    return found


def parse(arguments):
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="make tpu-check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, metavar="NAME",
                        help=f"of {', '.join(CASES)}, or module:function")  # fmt: skip
    parser.add_argument("--recipe", default="lenet_digits", help="for a network of your own")
    parser.add_argument("--targets", nargs="+", default=TARGETS[:1], metavar="SLICE",
                        help=f"slices, or all: {', '.join(TARGETS)}")  # fmt: skip
    parser.add_argument("--routes", nargs="+", default=["B", "C"], choices=list(ROUTES),
                        help="\n".join(map(": ".join, ROUTES.items())))  # fmt: skip
    parser.add_argument("--steps", nargs="+", default=["trainer", "fit"],
                        choices=["trainer", "fit"], help="train.py's, model.fit's")  # fmt: skip
    parser.add_argument("--pods", action="store_true", help="BERT at 32K on whole slices instead")
    parser.add_argument("--controls_only", action="store_true", help="no steps")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, 3 GB each")
    parser.add_argument("--tpu_python", type=pathlib.Path, help="the one that has libtpu",
                        default=pathlib.Path(".venv-tpu-check/bin/python"))  # fmt: skip
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER",
                        help="for answers; what is there isn't done again")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, help="folder for tpu_compile.md and .json")
    found = parser.parse_args(arguments)
    if not found.tpu_python.exists():
        parser.error(f"{found.tpu_python} is missing. make tpu-check makes it.")
    if found.targets == ["all"]:
        found.targets = TARGETS
    return found


def command_of(options):
    """The command that asks for the same checks."""
    asked = {name: getattr(options, name) for name in ("models", "targets", "routes", "steps")}
    if options.pods:
        asked = {"pods": [], "routes": options.routes, "steps": options.steps}
    words = " ".join(" ".join([f"--{name}", *values]) for name, values in asked.items())
    return f'make tpu-check ARGS="{words}"'


def main(arguments=None):
    """Runs the checks and prints what came out; returns the exit code."""
    options = parse(arguments)
    checks = [] if options.controls_only else checks_of(options)
    targets = list(PODS) if options.pods else options.targets
    with Machine(options.tpu_python, options.jobs, options.keep) as machine:
        controls = run_controls(machine, targets, bridge="B" in options.routes)
        for control in controls:
            print(report.control_line(control), flush=True)
        answers = run_checks(machine, checks, controls)
    pairs = [(c["status"], c["expected"]) for c in controls]
    code = exit_code([a["status"] for a in answers], pairs)
    if answers:
        print("\n" + report.table(answers))
    print(report.verdict(code, answers, controls))
    if options.out:
        report.write(options.out, command_of(options), code, answers, controls)
    return code


if __name__ == "__main__":
    sys.exit(main())
