"""The kernel methods of the thesis's chapters 2 and 3 against each other and against peers.

Accuracy, iterations, times and bytes of the SVM methods (Tables 2.3, 2.6, 2.7, 2.9 to 2.14), block
approximations (2.19), errors, times and weak scaling of the KRR methods (3.3, Figure 3.11), on data
that scikit-learn makes or ships; others' SVCs where they are installed. Checks its bars and ends
with 1 if one is missed. One process on one machine: what P machines would take is the partition and
the slowest part, each part timed alone; that sending is left out favours nobody but the exact.

    PYTHONPATH=. .venv/bin/python benchmarks/kernel_methods.py --out docs/results

`--svmlight ijcnn1=PATH` adds a classification set in svmlight's format, `--regression MSD=PATH` one
for ridge regression, `--covtype` what scikit-learn fetches where there is a network.
"""

import argparse
import csv
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import _kernel_data, _kernel_ridge, _kernel_svm, _report

PACKAGES = (
    "scikit-learn", "scikit-learn-intelex", "thundersvm-cpu", "tensorflow", "numpy", "scipy",
)  # fmt: skip
SECTIONS = ("svm", "iterations", "communication", "blocks", "peers", "ridge", "weak_scaling")

# What the columns are, above their tables.
SVM_TEXT = """\
Mean and deviation over seeds, of data and partition. `loss` is against `smo`, the whole problem,
with the same seed; `iterations` are SMO's along the critical path, a machine a part; `s, 8
machines` is the partition on one machine and then the slowest of what runs at once, each part
timed alone, without what is sent (seed 0, median of 3); `s, this machine` is the whole fit with
its defaults. C and gamma are found by three-fold cross-validation of the exact SVC. The moons'
noise and the Gaussians' spread were set so that the exact SVM is right in about 93 of 100 samples:
where it is nearly always right, all methods are. The bars of time leave digits out: 1,200 samples
are solved as fast whole."""
BYTES_TEXT = """\
What 8 machines send to train, by the ledger, from samples in CSR on one of them; in the last row
the samples lie in parts from the beginning. Beside it Table 2.6's formulas with this run's s, k
and I. They differ: K-means runs where the samples are, so that nothing of it is sent and no
samples are sent twice; the first part stays where it is; and each layer's support vectors are
counted, with their multipliers. Dis-SMO's two rows of a step go to all machines as doubles, with
label, multiplier and bound, and every machine's extremes to every other; the formula has 26 words
a step and machine for all that."""
BLOCKS_TEXT = """\
`error` is Equation 2.14, of the norms; `distance` the norm of what the blocks leave out, over the
whole's. Blocks are some of the matrix's entries: their norm can't be above the whole's, as the
thesis's Table 2.19 has it in all six rows. 1,200 digits, 8 parts."""
PEERS_TEXT = """\
Each in a process of its own, with its defaults and this C and gamma. Our first fit loads TensorFlow
and compiles; the first of each other size compiles again, .2 to .5 s."""
RIDGE_TEXT = """\
Mean squared errors, median (quartiles) over seeds. Each method takes its own best lambda and
gamma of one grid, down to lambda = 1e-8, on a fifth of the training samples of seed 0, the exact
one with 2,000 of the others. `kkrr3` and `bkrr3` choose each sample's
part by its true y: bounds, no predictors."""
SMALLEST_TEXT = """\
Without noise small lambdas are the best ones, and how small the grid's are decides who wins. One
seed; the table above, and its bar, have 1e-8."""
WAVES_TEXT = """\
`wiggle` is sin(12 x1) cos(10 x2). With longer waves all methods have enough samples everywhere and
noise is all that is left; with shorter ones the parts' nearness pays. One seed."""
WEAK_TEXT = """\
As many samples a part throughout. Seconds of the slowest part, each timed alone, the median of
three fits, without the partition; for `dkrr` those of one machine over P, which no P machines
reach."""


def named_paths(values):
    """{name: path} of "name=path" arguments."""
    return dict(value.split("=", 1) for value in values)


def svm_page(arguments, sets):
    """The sections of chapter 2, and (what, measured, bar, met) of its bars."""
    page, bars, wanted = [], [], arguments.sections
    found = {}
    if "svm" in wanted:
        runs, found = _kernel_svm.accuracy(sets, arguments.samples, arguments.seeds)
        taken = _kernel_svm.times(sets, arguments.samples, found)
        sizes = {
            name: "{} to train on, {} features, {} to test".format(
                *make(arguments.samples, 0).X.shape, len(make(arguments.samples, 0).y_test)
            )
            for name, make in sets.items()
        }
        page += ["## SVM: accuracy, iterations and times (Tables 2.9 to 2.14)", SVM_TEXT]
        for title, text in _kernel_svm.accuracy_tables(runs, taken, found, sizes):
            page += [title, text]
        bars += _kernel_svm.bars(runs, taken, tuple(_kernel_data.CLASSIFICATION)[:3])
        if arguments.out:
            with open(arguments.out / "kernel_methods.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(_kernel_svm.Run._fields)
                writer.writerows(runs)
            with open(arguments.out / "kernel_methods_seconds.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("data", "method", *_kernel_svm.Times._fields))
                writer.writerows((*key, *seconds) for key, seconds in taken.items())
    found |= {
        name: _kernel_svm.parameters(make(arguments.samples, 0))
        for name, make in sets.items()
        if name not in found and {"iterations", "communication", "peers"} & {*wanted}
    }
    if "iterations" in wanted:
        sizes = [arguments.samples // k for k in (16, 8, 4, 2, 1)]
        grown = {name: sets[name] for name in ("moons", "32 Gaussians", "make_classification")}
        page += [
            "## SMO's iterations against the samples (Table 2.3)",
            _kernel_svm.iterations(grown, sizes, found),
        ]
    if "communication" in wanted:
        data = sets["32 Gaussians"](arguments.samples // 2, 0)
        page += [
            "## Cascade's layers (Table 2.5)",
            _kernel_svm.tree_profile(data, found["32 Gaussians"]),
            f"## Bytes of training on {_kernel_svm.PARTS} machines (Tables 2.6 and 2.7)",
            BYTES_TEXT,
            _kernel_svm.communication(data, found["32 Gaussians"]),
        ]
    if "blocks" in wanted:
        data = sets["digits, even or odd"](1200, 0)
        page += [
            "## Blocks for the whole kernel matrix (Table 2.19)",
            BLOCKS_TEXT,
            _kernel_svm.approximation_table(data, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)),
        ]
    if "peers" in wanted:
        data = sets["make_classification"](arguments.samples, 0)
        page += [
            f"## Peers: make_classification, {data.X.shape[0]:,} by {data.X.shape[1]}",
            PEERS_TEXT,
            _kernel_svm.peers(
                "make_classification", arguments.samples, found["make_classification"]
            ),
        ]
    return page, bars


def ridge_page(arguments, sets):
    """The sections of chapter 3, and its bars."""
    page, bars = [], []
    friedman = sets["friedman1"]
    if "ridge" in arguments.sections:
        found = _kernel_ridge.errors(sets, arguments.samples, arguments.seeds)
        sizes = [arguments.samples // k for k in (8, 4, 2, 1)]
        times = _kernel_ridge.exact_times(friedman, sizes)
        page += [
            "## Ridge regression: test errors", RIDGE_TEXT, _kernel_ridge.errors_table(found),
            "### Without noise: friedman1 against the grid's smallest lambda", SMALLEST_TEXT,
            _kernel_ridge.smallest_lambdas(friedman(arguments.samples, 0)),
            "### Longer and shorter waves", WAVES_TEXT,
            _kernel_ridge.waves(arguments.samples),
            "## Ridge regression: times", _kernel_ridge.times_table(times, sizes),
        ]  # fmt: skip
        bars += _kernel_ridge.bars(found, times)
    if "weak_scaling" in arguments.sections:
        per_part = arguments.samples // _kernel_ridge.PARTS
        parts = [P for P in (1, 2, 4, 8, 16) if P <= 2 * _kernel_ridge.PARTS]
        found = _kernel_ridge.weak_scaling(friedman, per_part, parts)
        page += [
            "## Weak scaling (Table 3.3, Figure 3.11)",
            WEAK_TEXT,
            _kernel_ridge.weak_scaling_table(found, per_part, parts),
        ]
        if arguments.out:
            name = "kernel_methods.png"
            _kernel_ridge.plot(found, per_part, parts, arguments.out / name)
            page.append(f"![Efficiency and error as parts and samples grow]({name})")
    return page, bars


def main():
    """Runs the sections, prints or writes the page; 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8000, help="to train on")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--svmlight", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--regression", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--covtype", action="store_true", help="fetch it")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the page, CSV and PNG")
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    files = {n: _kernel_data.from_file(p) for n, p in named_paths(arguments.svmlight).items()}
    targets = {n: _kernel_data.from_file(p) for n, p in named_paths(arguments.regression).items()}
    if arguments.covtype:
        files["covtype"] = _kernel_data.fetched_covtype()
    page, bars = svm_page(arguments, _kernel_data.CLASSIFICATION | files)
    more, ridge_bars = ridge_page(arguments, _kernel_data.REGRESSION | targets)
    bars += ridge_bars
    if bars:
        rows = [[what, f"{x:.2f}", bar, "yes" if met else "NO"] for what, x, bar, met in bars]
        page.insert(0, _report.table(["bar", "measured", "wanted", "met"], rows))
    text = "\n\n".join(["# Kernel methods", _report.provenance(PACKAGES), *page, *more])
    if arguments.out:
        _report.write(arguments.out / "kernel_methods.md", text + "\n")
    else:
        print(text)
    return not all(met for *_, met in bars)


if __name__ == "__main__":
    sys.exit(main())
