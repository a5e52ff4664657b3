"""Tables of chapter 2: accuracy, iterations, times and bytes of the nine SVM methods, and peers."""

import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import scipy.sparse
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from benchmarks import _kernel_peer, _report
from tf_largebatch.kernels import KMeansPartition, RandomPartition, approximation, make, theory

PARTS = 8
# In the thesis's order; ours after them. Losses and speedups are against "smo", the whole problem.
METHODS = (
    "smo", "dis_smo", "cascade", "dc_svm", "dc_filter", "cp_svm", "bkm_svm", "fcfs_svm", "ca_svm",
    "kbalance_svm", "ca_svm_average",
)  # fmt: skip
PHASES = ("partition", "distribute", "train")
TREES = ("cascade", "dc_svm", "dc_filter")
# Mean loss of accuracy over the first three data sets, in points, at most.
LOSSES = {"fcfs_svm": 1.3, "cp_svm": 1.3, "bkm_svm": 1.3, "kbalance_svm": 1.0, "ca_svm": 2.0}


class Run(NamedTuple):
    """One fit."""

    data: str
    method: str
    seed: int
    accuracy: float  # percent
    iterations: int  # of SMO, along the critical path
    n_bytes: int  # that P machines would send to train


class Times(NamedTuple):
    """Seconds, medians over rounds."""

    init: float  # the partition
    machines: float  # the partition and the slowest of what runs at once on P machines
    one: float  # the whole fit on this machine


def parameters(data):
    """C and gamma by three-fold cross-validation of the exact SVM on at most 1,500 samples."""
    scale = 1 / (data.X.shape[1] * (data.X.var() if hasattr(data.X, "var") else 1.0))
    grid = {"C": [1.0, 10.0], "gamma": [scale * f for f in (0.5, 1.0, 2.0, 4.0)]}
    search = GridSearchCV(SVC(), grid, cv=3).fit(data.X[:1500], data.y[:1500])
    return search.best_params_


def critical_iterations(method, model):
    """SMO's iterations one after the other, if each part has a machine."""
    if method in TREES:
        return sum(max(node.n_iter for node in layer) for layer in model.layers_)
    n_iter = np.atleast_2d(model.n_iter_)
    return int(n_iter.sum(axis=1).max())


def critical_seconds(method, model):
    """Seconds one after the other, if each part has a machine; without what is sent."""
    if method == "dis_smo":
        return math.nan  # its parts share each iteration: one machine can't tell
    if method in TREES:
        slowest = sum(max(node.seconds for node in layer) for layer in model.layers_)
    else:
        slowest = np.max(model.fit_times_["parts"])
    return model.fit_times_["partition"] + slowest


def unfitted(method, seed, found, **more):
    """The method with `PARTS` parts, where it has any choice."""
    model = make(method, **found)
    if method != "smo":
        more["n_parts"] = PARTS
    if method != "dis_smo":
        more["random_state"] = seed
    return model.set_params(**more)


def accuracy(sets, n, seeds):
    """All methods on all data sets. Returns the runs, and C and gamma of each data set."""
    runs, found = [], {}
    for name, make_data in sets.items():
        found[name] = parameters(make_data(n, 0))
        for seed, method in itertools.product(range(seeds), METHODS):
            data = make_data(n, seed)
            model = unfitted(method, seed, found[name]).fit(data.X, data.y)
            sent = sum(model.ledger_.bytes(phase) for phase in PHASES)
            score = 100 * model.score(data.X_test, data.y_test)
            runs.append(Run(name, method, seed, score, critical_iterations(method, model), sent))
            print(*runs[-1], flush=True)
    return runs, found


def times(sets, n, found, rounds=3):
    """{(data, method): Times} of seed 0: the parts one at a time, and as they are by default."""
    taken = {}
    for name, make_data in sets.items():
        data = make_data(n, 0)
        for method in METHODS:
            apart = {} if method == "dis_smo" else {"batch_bytes": 0}
            rows = []
            for _ in range(rounds + 1):  # the first compiles
                model = unfitted(method, 0, found[name], **apart).fit(data.X, data.y)
                init = model.fit_times_.get("partition", 0.0)
                machines = critical_seconds(method, model)
                model = unfitted(method, 0, found[name])
                began = time.perf_counter()
                model.fit(data.X, data.y)
                rows.append(Times(init, machines, time.perf_counter() - began))
            taken[name, method] = Times(*np.median(rows[1:], axis=0))
            print(name, method, *taken[name, method], flush=True)
    return taken


def accuracy_tables(runs, taken, found, sizes):
    """Tables like 2.9 to 2.14, one a data set."""
    for name in found:
        C, gamma = found[name]["C"], found[name]["gamma"]
        rows = []
        for method in METHODS:
            here = [r for r in runs if (r.data, r.method) == (name, method)]
            t = taken[name, method]
            steps = statistics.median(r.iterations for r in here)
            machines = "-" if math.isnan(t.machines) else f"{t.machines:.3f} ({t.init:.3f})"
            rows.append([
                f"`{method}`", _deviation([r.accuracy for r in here]),
                _deviation([_loss(runs, r) for r in here]), f"{steps:,.0f}", machines,
                f"{t.one:.3f}", f"{statistics.median(r.n_bytes for r in here) / 2**20:.2f}",
            ])  # fmt: skip
        yield f"**{name}**: {sizes[name]}, C = {C:g}, gamma = {gamma:.3g}", _report.table(
            ["method", "accuracy, %", "loss, points", "iterations", "s, 8 machines (partition)",
             "s, this machine", "MiB sent"], rows,
        )  # fmt: skip


def bars(runs, taken, first_three):
    """(what, measured, bar, whether it is met) of the accuracy and the speedups."""
    for method, bar in LOSSES.items():
        losses = [_loss(runs, r) for r in runs if r.method == method and r.data in first_three]
        loss = statistics.mean(losses)
        what = f"mean loss of `{method}` on the first three sets, points"
        yield what, loss, f"<= {bar}", loss <= bar
    large = [name for name in dict.fromkeys(r.data for r in runs) if "digits" not in name]
    for field, where, least in (("machines", "8 machines", 8), ("one", "this machine", 2)):
        for method in ("fcfs_svm", "ca_svm"):
            ratios = [
                getattr(taken[n, "smo"], field) / getattr(taken[n, method], field) for n in large
            ]
            speedup = statistics.median(ratios)
            what = f"`smo`'s seconds over `{method}`'s, {where}, median of {', '.join(large)}"
            yield what, speedup, f">= {least}", speedup >= least


def iterations(sets, sizes, found):
    """Table 2.3: SMO's iterations against the samples, and the power that they go as."""
    rows = []
    for name, make_data in sets.items():
        counts = []
        for n in sizes:
            data = make_data(n, 0)
            counts.append(int(np.sum(make("smo", **found[name]).fit(data.X, data.y).n_iter_)))
        power = np.polyfit(np.log(sizes), np.log(counts), 1)[0]
        rows.append([name, *(f"{count:,}" for count in counts), f"{power:.2f}"])
    return _report.table(["samples", *(f"{n:,}" for n in sizes), "power of m"], rows)


def tree_profile(data, found):
    """Table 2.5: what each layer of Cascade does, and the machines in use, by Equation 2.13."""
    options = {"n_parts": PARTS, "batch_bytes": 0, "random_state": 0, **found}
    for _ in range(2):  # the first compiles
        layers = make("cascade", **options).fit(data.X, data.y).layers_
    rows = [
        [
            number, len(layer), f"{max(n.seconds for n in layer):.3f}",
            *(f"{most(getattr(n, field) for n in layer):,}" for field, most in
              (("n_samples", sum), ("n_iter", max), ("n_support", sum))),
        ]
        for number, layer in enumerate(layers, start=1)
    ]  # fmt: skip
    slowest = [max(node.seconds for node in layer) for layer in layers]
    mean = theory.mean_nodes(slowest, [len(layer) for layer in layers])
    columns = ("layer", "machines", "s, slowest", "samples", "iterations, most", "support vectors")
    return f"{_report.table(columns, rows)}\n\nMachines in use, the mean over time: {mean:.1f}."


def communication(data, found):
    """Tables 2.6 and 2.7: bytes by the ledger, messages, and what the formulas give."""
    rows, (m, n) = [], data.X.shape
    X = scipy.sparse.csr_array(data.X)  # as in the thesis
    for method in (*METHODS[1:9], "ca_svm, fit_parts"):
        name, _, prepartitioned = method.partition(", ")
        model = unfitted(name, 0, found)
        if prepartitioned:  # casvm2: the samples lie in parts from the beginning
            labels = RandomPartition(PARTS, random_state=0).fit(X).labels_
            model.fit_parts([(X[labels == p], data.y[labels == p]) for p in range(PARTS)])
        else:
            model.fit(X, data.y)
        n_bytes = sum(model.ledger_.bytes(phase) for phase in PHASES)
        messages = sum(e.n_messages for phase in PHASES for e in model.ledger_.select(phase))
        formula = "-"
        if name in theory.COMMUNICATION and (name != "ca_svm" or prepartitioned):
            words = theory.communication_words(
                name, m=m, n=n, P=PARTS, s=len(model.support_), n_iter=int(np.sum(model.n_iter_)),
                k=getattr(getattr(model, "partition_", None), "n_iter_", 0),
            )  # fmt: skip
            formula = f"{words * theory.WORD_BYTES / 2**20:.3f}"
        by_phase = [f"{model.ledger_.bytes(phase) / 2**20:.3f}" for phase in PHASES]
        mean = f"{n_bytes / messages:,.0f}" if messages else "-"
        rows.append([f"`{method}`", formula, *by_phase, f"{messages:,}", mean])
    return _report.table(
        ["method", "Table 2.6, MiB", *(f"{phase}, MiB" for phase in PHASES), "messages",
         "bytes a message"], rows,
    )  # fmt: skip


def approximation_table(data, gammas):
    """Table 2.19 with norms that can be: of the whole, of random blocks, of K-means' blocks."""
    rows = []
    for gamma in gammas:
        K = rbf_kernel(data.X, gamma=gamma)
        cells = [f"{gamma:g}", f"{np.linalg.norm(K):.3f}"]
        for method in (RandomPartition, KMeansPartition):
            norm = approximation.block_norm(K, method(PARTS, random_state=0).fit(data.X).labels_)
            cells.append(f"{norm.blocks:.3f} / {norm.error:.1%} / {norm.distance:.1%}")
        rows.append(cells)
    columns = ("gamma", "whole", "random: norm / error / distance", "K-means: the same")
    return _report.table(columns, rows)


def peers(data_name, n, found):
    """Seconds and accuracy of other libraries' exact SVC, our exact one, and two in parts."""
    rows = []
    for name in (*_kernel_peer.PEERS, *_kernel_peer.METHODS):
        command = [sys.executable, "-m", "benchmarks._kernel_peer", name, data_name, n]
        command += [found["C"], found["gamma"]]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
        took = json.loads(done.stdout.splitlines()[-1])
        print("peers", name, took, flush=True)
        title = name if name in _kernel_peer.PEERS else f"`{name}`, ours"
        if "missing" in took:
            rows.append([title, took["missing"], "-", "-"])
        else:
            seconds = _report.spread(took["seconds"])
            rows.append([title, seconds, f"{took['first']:.2f}", f"{took['accuracy']:.2f}"])
    return _report.table(
        ["SVC", "seconds to fit, median (quartiles)", "the first fit", "accuracy, %"], rows
    )


def _exact(runs, r):
    return next(x for x in runs if (x.data, x.seed, x.method) == (r.data, r.seed, "smo"))


def _loss(runs, r):
    return _exact(runs, r).accuracy - r.accuracy


def _deviation(values):
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"
