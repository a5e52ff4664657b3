"""Asy-GCD by threads: speedup, updates, what is lost; the thesis's Figures 4.1 to 4.3.

    PYTHONPATH=. python benchmarks/async_gcd.py --out docs/results
    PYTHONPATH=. python benchmarks/async_gcd.py --train ijcnn1 --test ijcnn1.t --C 32 --gamma 2

Solves eq. 4.9, the dual of a Gaussian SVM without bias, in turns: every round runs each line once,
and a ratio is taken within its round, so that what else the machine does falls on all lines alike.
Serial is Algorithm 13: the same code in one thread, which tells nobody. "As printed" is Algorithm
14: K-means blocks, no bound of the staleness, nobody holds back. Compiling is not timed; K-means
has a column of its own. The objective's gap is to a solve with tol 1e-8, relative to its value.
scikit-learn's SVC, which is LIBSVM, has a bias: its objective is another, its accuracy can be
compared. Checks its bars and ends with 1 if one is missed.
"""

import argparse
import pathlib
import statistics
import sys
import time
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_svmlight_files, make_classification, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks import _report
from tf_largebatch import plots
from tf_largebatch.kernels._functions import gram
from tf_largebatch.kernels.box_qp import BoxQP, KernelMatrix

PACKAGES = ("numba", "llvmlite", "scikit-learn", "numpy", "scipy")
# The bars.
SPEEDUP, MOVES, GAP, ERROR = 1.5, 1 / 4, 1e-5, 1e-5
AS_PRINTED = {"blocks": "kmeans", "max_staleness": None, "hold_back": 0}


class Data(NamedTuple):
    """A binary problem, its labels 1 and -1."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    C: float
    gamma: float

    @property
    def box(self):
        """p, lower, upper in x = y alpha."""
        zero, C = np.zeros(len(self.y)), np.full(len(self.y), self.C)
        return -self.y, np.where(self.y > 0, zero, -C), np.where(self.y > 0, C, zero)


def datasets(arguments):
    """What is solved: the given files, or two sets that scikit-learn makes."""
    if arguments.train:
        files = [arguments.train, arguments.test or arguments.train]
        X, y, X_test, y_test = load_svmlight_files(files)
        positive = y.max()
        y, y_test = (np.where(labels == positive, 1.0, -1.0) for labels in (y, y_test))
        name = pathlib.Path(arguments.train).name
        return [Data(name, X, y, X_test, y_test, arguments.C, arguments.gamma)]
    n = arguments.samples
    X, y = make_classification(n + 2000, 22, n_informative=10, flip_y=0.05, random_state=0)
    X = StandardScaler().fit_transform(X)
    y = 2.0 * y - 1
    first = Data("classification, d=22", X[:n], y[:n], X[n:], y[n:], 1.0, 1 / 22)
    X, y = make_moons(n + 2000, noise=0.3, random_state=0)
    y = 2.0 * y - 1
    return [first, Data("moons, d=2", X[:n], y[:n], X[n:], y[n:], 1.0, 2.0)]


def lines(threads, cache_bytes):
    """Name of each line, and the arguments of its `BoxQP`."""
    found = {"serial": {"n_threads": 1}, "serial, random (PSCD)": {"n_threads": 1}}
    found["serial, random (PSCD)"]["selection"] = "random"
    for number in threads:
        found[f"log, {number}"] = {"n_threads": number}
        found[f"log, {number}, as printed"] = {"n_threads": number, **AS_PRINTED}
        found[f"log, {number}, staleness 0"] = {"n_threads": number, "max_staleness": 0}
        found[f"log, {number}, K-means"] = {"n_threads": number, "blocks": "kmeans"}
        found[f"atomic, {number}"] = {"n_threads": number, "sync": "atomic"}
        found[f"atomic, {number}, as printed"] = {
            "n_threads": number, "sync": "atomic", **AS_PRINTED,
        }  # fmt: skip
        found[f"log, {number}, random (PSCD)"] = {"n_threads": number, "selection": "random"}
    return {
        name: {"random_state": 0, "cache_bytes": cache_bytes, **given}
        for name, given in found.items()
    }


def solve(data, given, **options):
    """(result, seconds for the blocks, seconds of both)."""
    began = time.perf_counter()
    problem = BoxQP(KernelMatrix(data.X, gamma=data.gamma), **given)
    blocks = time.perf_counter() - began
    result = problem.solve(*data.box, **options)
    return result, blocks, time.perf_counter() - began


def measure(data, ways, arguments):
    """{name: a (result, blocks, seconds) each round}, the lines in turn."""
    small = data._replace(X=data.X[:100], y=data.y[:100])
    for given in ways.values():  # compiles
        solve(small, {**given, "blocks": None}, tol=arguments.tol)
    found = {name: [] for name in ways}
    for number in range(arguments.rounds):
        order = list(ways)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            found[name].append(solve(data, ways[name], tol=arguments.tol))
    return found


def reference(data, cache_bytes):
    """The objective, solved to a much smaller tol."""
    given = {"n_threads": 1, "cache_bytes": cache_bytes}
    return solve(data, given, tol=1e-8)[0].objective


def accuracy(data, result):
    """Share of the test samples on the right side."""
    support = np.flatnonzero(result.x)
    values = gram(data.X_test, data.X[support], kernel="rbf", gamma=data.gamma)
    return float(np.mean(np.sign(values @ result.x[support]) == data.y_test))


def rows_of(data, found, best):
    """The table's rows of one data set."""
    serial = [seconds for _, _, seconds in found["serial"]]
    for name, runs in found.items():
        results = [result for result, _, _ in runs]
        solves = [result.seconds for result in results]
        ratios = [
            first.seconds / result.seconds
            for (first, _, _), result in zip(found["serial"], results, strict=True)
        ]
        whole = [one / seconds for one, (_, _, seconds) in zip(serial, runs, strict=True)]
        yield [
            data.name, name, _report.spread(solves, 3), _report.spread(ratios),
            _report.spread(whole), f"{statistics.median(r.n_updates for r in results):,.0f}",
            f"{statistics.median(r.n_looks for r in results):,.0f}",
            max(r.max_staleness for r in results),
            f"{max((r.objective - best) / abs(best) for r in results):.1e}",
            f"{max(r.gradient_error for r in results):.1e}",
        ]  # fmt: skip


COLUMNS = [
    "data", "line", "seconds", "speedup", "speedup with the blocks' time", "updates", "looks",
    "stalest", "objective gap", "gradient error",
]  # fmt: skip


def plain_pscd(data, tol):
    """(draws, moves) of stochastic descent that moves whatever it draws, in NumPy.

    The package's passes over what violates by less than tol, and so needs fewer moves.
    """
    K = gram(data.X, kernel="rbf", gamma=data.gamma)
    p, lower, upper = data.box
    x, g, draws, moves = np.zeros(len(p)), p.copy(), 0, 0
    random = np.random.default_rng(0)
    while np.abs(x - np.clip(x - g, lower, upper)).max() >= tol:
        for i in random.integers(len(p), size=len(p)):
            d = min(max(x[i] - g[i], lower[i]), upper[i]) - x[i]
            if d:
                x[i] += d
                g += d * K[i]
                moves += 1
        draws += len(p)
    return draws, moves


MOVES_COLUMNS = [
    "data", "samples", "greedy", 'selection="random"', "plain PSCD's moves", "its draws",
]  # fmt: skip


class Moves(NamedTuple):
    """Updates of one thread to the end, on few of the samples."""

    n_samples: int
    greedy: int
    random: int  # selection="random"
    plain: int  # moves of plain PSCD
    draws: int  # and its draws


def greedy_against_random(data, arguments):
    """`Moves`, greedy and at random."""
    n = min(arguments.few, len(data.y))
    few = data._replace(X=data.X[:n], y=data.y[:n])
    greedy = solve(few, {"n_threads": 1}, tol=arguments.tol)[0]
    given = {"n_threads": 1, "selection": "random", "random_state": 0}
    random = solve(few, given, tol=arguments.tol)[0]
    draws, moves = plain_pscd(few, arguments.tol)
    return Moves(n, greedy.n_updates, random.n_updates, moves, draws)


def bars_of(data, found, best, moves):
    """(what, wanted, measured, met) of one data set; met is None where there is no bar.

    Gap and error are the largest of all lines and rounds.
    """
    if "log, 2" in found:
        speedup = statistics.median(
            first[0].seconds / run[0].seconds
            for first, run in zip(found["serial"], found["log, 2"], strict=True)
        )
        yield "log, 2 threads: speedup over serial", f">= {SPEEDUP}", speedup, speedup >= SPEEDUP
    share = moves.greedy / moves.plain
    yield "greedy's updates / plain PSCD's moves", f"<= {MOVES}", share, share <= MOVES
    share = moves.greedy / moves.random
    yield 'greedy\'s updates / those of selection="random"', "no bar", share, None
    results = [result for runs in found.values() for result, _, _ in runs]
    gap = float(np.max([(result.objective - best) / abs(best) for result in results]))  # or NaN
    yield "objective gap", f"<= {GAP:.0e}", gap, gap <= GAP
    error = float(np.max([result.gradient_error for result in results]))
    yield "largest difference of g from Qa + p", f"<= {ERROR:.0e}", error, error <= ERROR


def bars_table(bars):
    """{data's name: rows of `bars_of`} as a table in Markdown."""
    said = {True: "yes", False: "NO", None: ""}
    rows = [
        [name, what, wanted, f"{measured:.2g}" if measured < 0.01 else f"{measured:.2f}", said[met]]
        for name, rows in bars.items()
        for what, wanted, measured, met in rows
    ]
    return _report.table(["data", "bar", "wanted", "measured", "met"], rows)


def libsvm(data, cache_bytes, tol, rounds=5):
    """[(seconds, accuracy)] of SVC stopped after more and more iterations, the last one whole."""
    found = []
    for iterations in (1000, 3000, 10_000, -1):
        model = SVC(
            C=data.C, gamma=data.gamma, cache_size=cache_bytes / 2**20, tol=tol, max_iter=iterations
        )
        taken = []
        for _ in range(rounds):
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(data.X, data.y)
            taken.append(time.perf_counter() - began)
        found.append((statistics.median(taken), model.score(data.X_test, data.y_test)))
    return found


def followed(data, given, tol, updates, rounds=5):
    """[(seconds, objective, accuracy)] of runs that stop on the way, the run of median time each.

    `updates`: about those of the whole run.
    """
    found = []
    for share in np.geomspace(0.02, 1, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            most = max(10, int(share * updates))
            runs = [solve(data, given, tol=tol, max_updates=most) for _ in range(rounds)]
        found.append(sorted(runs, key=lambda run: run[0].seconds)[rounds // 2][0])
    # Afterwards: BLAS's threads wait for more to do, on the cores that the next run needs.
    return [(result.seconds, result.objective, accuracy(data, result)) for result in found]


def draw(all_data, all_found, bests, threads, cache_bytes, tol, path):
    """Figures 4.1 (objective against time), 4.2 (speedup) and 4.3 (solvers' accuracy)."""
    with plots.figure(rows=len(all_data), columns=3, height=2.6, width=10) as (figure, axes):
        for row, data in zip(axes, all_data, strict=True):
            found, best = all_found[data.name], bests[data.name]
            ways = {"Asy-GCD, 1 thread": {"n_threads": 1}}
            ways |= {f"Asy-GCD, {n} threads": {"n_threads": n} for n in threads}
            ways["PSCD"] = {"n_threads": threads[-1], "selection": "random"}
            for number, (name, given) in enumerate(ways.items()):
                is_random = "selection" in given
                of = "serial, random (PSCD)" if is_random else "serial"
                updates = max(run[0].n_updates for run in found[of])
                given = {**given, "cache_bytes": cache_bytes, "random_state": 0}
                points = np.array(followed(data, given, tol, updates))
                style = plots.line_style(number)
                gaps = np.maximum((points[:, 1] - best) / abs(best), 1e-12)
                row[0].plot(points[:, 0], gaps, label=name, **style)
                row[2].plot(points[:, 0], points[:, 2], label=name, **style)
            points = np.array(libsvm(data, cache_bytes, tol))
            row[2].plot(*points.T, label="LIBSVM (bias)", **plots.line_style(len(ways)))
            row[0].set(xlabel="seconds", ylabel="objective gap", xscale="log", yscale="log")
            row[2].set(xlabel="seconds", ylabel="test accuracy", xscale="log")
            for number, sync in enumerate(("log", "atomic")):
                speedups = [
                    statistics.median(
                        first[0].seconds / run[0].seconds
                        for first, run in zip(found["serial"], found[f"{sync}, {n}"], strict=True)
                    )
                    for n in threads
                ]
                row[1].plot([1, *threads], [1, *speedups], label=sync, **plots.line_style(number))
            row[1].plot([1, *threads], [1, *threads], "k:", label="linear")
            row[1].set(xlabel="threads", ylabel="speedup", xticks=[1, *threads])
            for axis in row:
                axis.xaxis.set_minor_formatter("")  # their labels would lie over each other
                axis.set_title(data.name)
                axis.legend(fontsize=6)
        plots.save(figure, path)


def main():
    """Measures, prints, writes; 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8000, help="of each data set that is made")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--few", type=int, default=1500, help="samples on which plain PSCD runs")
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--cache_mib", type=int, default=1024)
    parser.add_argument("--train", help="an svmlight file, in place of what is made")
    parser.add_argument("--test", help="its test set")
    parser.add_argument("--C", type=float, default=1.0, help="for --train")
    parser.add_argument("--gamma", type=float, default=1.0, help="for --train")
    parser.add_argument("--out", type=pathlib.Path, help="folder for async_gcd.md and .png")
    arguments = parser.parse_args()
    cache_bytes = arguments.cache_mib * 2**20
    ways = lines(arguments.threads, cache_bytes)
    all_data, found, bests, rows, peers = datasets(arguments), {}, {}, [], []
    moves, bars = {}, {}
    for data in all_data:
        bests[data.name] = reference(data, cache_bytes)
        found[data.name] = measure(data, ways, arguments)
        moves[data.name] = greedy_against_random(data, arguments)
        measured = (found[data.name], bests[data.name])
        rows += rows_of(data, *measured)
        bars[data.name] = list(bars_of(data, *measured, moves[data.name]))
        seconds, score = libsvm(data, cache_bytes, arguments.tol)[-1]
        peers.append([data.name, "scikit-learn SVC, 1 thread", f"{seconds:.3f}", f"{score:.4f}"])
        for name in ("serial", f"log, {arguments.threads[-1]}"):
            runs = found[data.name][name]
            taken = statistics.median(seconds for *_, seconds in runs)
            score = accuracy(data, runs[0][0])
            peers.append([data.name, name, f"{taken:.3f}", f"{score:.4f}"])
    text = "\n\n".join(
        [
            "# Asynchronous greedy coordinate descent",
            _report.provenance(PACKAGES),
            __doc__.partition("\n\n")[2].partition("\n\n")[2].strip(),
            bars_table(bars),
            "The speedup is the median of the rounds' ratios; gap and difference are the largest "
            f"of all lines and rounds; the updates are those of one thread on {arguments.few:,} "
            'samples. `selection="random"` passes over what violates by less than tol, and so '
            "needs fewer than plain PSCD, which moves whatever it draws: for it there is no bar.",
            f"Median and quartiles of {arguments.rounds} rounds; {arguments.samples:,} samples, "
            f"tol {arguments.tol}, {arguments.cache_mib} MiB of columns. Gaps, errors and "
            "staleness are the worst of all rounds.",
            _report.table(COLUMNS, rows),
            "Updates of one thread; plain PSCD moves whatever it draws:",
            _report.table(
                MOVES_COLUMNS,
                [[name, *(f"{count:,}" for count in counts)] for name, counts in moves.items()],
            ),
            "Seconds, medians, and test accuracy beside LIBSVM's, all with this tol: LIBSVM's of "
            "the gap between its worst pair, ours of the largest projected gradient.",
            _report.table(["data", "solver", "seconds", "test accuracy"], peers),
        ]
    )
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / "async_gcd.png"
        draw(all_data, found, bests, arguments.threads, cache_bytes, arguments.tol, path)
        notes = "\n\n![Objective, speedup and accuracy](async_gcd.png)\n"
        _report.write(arguments.out / "async_gcd.md", text + notes)
    return not all(met in (True, None) for rows in bars.values() for *_, met in rows)


if __name__ == "__main__":
    sys.exit(main())
