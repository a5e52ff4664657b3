"""Strong and weak scaling of the Trainer, and an update's time over batch size and parameters.

    PYTHONPATH=. python benchmarks/scaling.py --rounds 9 --out docs/results

Trains LeNet-5 on scikit-learn's digits with LAMB. Replicas are logical CPU devices of one process,
workers are processes that talk over the loopback interface. A replica has a core while there are
cores left: the operating system holds one replica to one core, two to two, and so on; the same
training on one device with all cores stands beside. Strong scaling keeps the global batch, weak
scaling the batch a replica.

The processes are started once and then asked in turn, one measurement each in every round; ratios
are formed within a round. What a measurement times is updates in one host call of `Trainer.fit`,
reading and shuffling included, without the first update. Each process takes some 1 GB of memory.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from benchmarks import _report, _scaling_report
from benchmarks._scaling_report import ALL_CORES, Setup

ROOT = pathlib.Path(__file__).resolve().parents[1]
JOB = pathlib.Path(__file__).with_name("_scaling_job.py")


class Process:
    """One or more processes that measure together, as workers do; else just one."""

    def __init__(self, stack, jobs, cores):
        """Starts them. `cores`: for each the numbers of those it may use."""
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._logs = [folder / f"{number}.log" for number in range(len(jobs))]
        self._processes = []
        for job, own, path in zip(jobs, cores, self._logs, strict=True):
            with open(path, "w", encoding="utf-8") as log:
                process = subprocess.Popen(
                    [sys.executable, JOB, json.dumps(job)], cwd=ROOT, text=True, stderr=log,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(),
                )  # fmt: skip
            stack.enter_context(process)  # which closes its pipes in the end, and waits for it
            stack.callback(process.kill)
            _hold(process, own)
            self._processes.append(process)
        self._names = None

    @property
    def names(self):
        """What can be measured; waits until all is warm."""
        if self._names is None:
            self._names = self._answers()[0]
        return self._names

    def seconds(self, name):
        """(wall time, processor time) of an update: of several processes the slowest, the sum."""
        for process in self._processes:
            process.stdin.write(name + "\n")
            process.stdin.flush()
        walls, processors = zip(*self._answers(), strict=True)
        return max(walls), sum(processors)

    def _answers(self):
        answers = [process.stdout.readline() for process in self._processes]
        for answer, log in zip(answers, self._logs, strict=True):
            if not answer:
                said = log.read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"A process of the benchmark ended:\n{said[-3000:]}")
        return [json.loads(answer) for answer in answers]


def _environment():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_CONFIG", None)
    return environment | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}


def _hold(process, cores):
    """Keeps a process that has just begun, and so all its threads to come, to these cores."""
    if hasattr(os, "sched_setaffinity"):  # else all share all, and the report says how many
        os.sched_setaffinity(process.pid, cores)


def _free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def setups(flags, cores):
    """{name: `Setup`} of what is compared; the first one is the reference."""
    most = len(cores)
    found = {f"{n} replica{'s' * (n > 1)}": Setup(n, 0, min(n, most)) for n in flags.replicas}
    found |= {f"{n} workers": Setup(n, n, min(n, most)) for n in flags.workers}
    return found | ({ALL_CORES: Setup(1, 0, most)} if most > 1 else {})


def start(stack, flags, setup, cores):
    """The `Process` of a setup."""
    replicas, workers, used = setup
    trainings = {
        "strong": (flags.strong_batch, flags.updates),
        "weak": (flags.weak_batch * replicas, flags.updates),
    }
    job = {"kind": "training", "replicas": replicas, "workers": [], "trainings": trainings}
    if not workers:
        return Process(stack, [job], [cores[:used]])
    addresses = _free_addresses(workers)
    jobs = [job | {"workers": addresses, "worker_index": i} for i in range(workers)]
    return Process(stack, jobs, [[cores[i % used]] for i in range(workers)])


def measure(flags, cores):
    """{(setup, measurement): (wall, processor) time of an update, in seconds, of each round}."""
    one = {"kind": "training", "replicas": 1, "workers": []}
    sizes = {f"batch {size}": (size, _updates_of(size, flags)) for size in flags.batches}
    widths = [(width, max(3, 2**21 // width**2)) for width in flags.widths]
    found = {}
    with contextlib.ExitStack() as stack:
        processes = {
            name: start(stack, flags, setup, cores) for name, setup in setups(flags, cores).items()
        }
        processes["batches"] = Process(stack, [one | {"trainings": sizes}], [cores])
        processes["parameters"] = Process(
            stack, [{"kind": "parameters", "widths": widths}], [cores]
        )
        # Those to be compared come one after the other: strong of all, then weak of all, ...
        each = dict.fromkeys(m for process in processes.values() for m in process.names)
        turns = [(name, m) for m in each for name in processes if m in processes[name].names]
        for number in range(flags.rounds):
            for name, measurement in turns:
                seconds = processes[name].seconds(measurement)
                found.setdefault((name, measurement), []).append(seconds)
            print(f"round {number + 1} of {flags.rounds}", file=sys.stderr, flush=True)
    return found


def _updates_of(batch, flags):
    return max(4, flags.updates * flags.weak_batch // batch)


def main():
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="at least 2")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, nargs="*", default=[2])
    parser.add_argument("--strong_batch", type=int, default=512, help="images, over all replicas")
    parser.add_argument("--weak_batch", type=int, default=256, help="images a replica")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 512, 2048],
                        help="of the four dense layers that an optimizer updates")  # fmt: skip
    parser.add_argument("--updates", type=int, default=10, help="in one measurement")
    parser.add_argument("--out", type=pathlib.Path, help="folder for scaling.md, .csv and .png")
    flags = parser.parse_args()
    if flags.rounds < 2 or flags.replicas[0] != 1:
        parser.error("--rounds must be at least 2, and the first of --replicas 1, the reference.")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    cores = cores or list(range(os.cpu_count() or 1))
    setups_of = setups(flags, cores)
    found = measure(flags, cores)
    text = _scaling_report.page(found, setups_of, flags, len(cores))
    print(text)
    if flags.out:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["setup", "measurement", "round", "wall_s", "processor_s"])
        for (name, measurement), rounds in found.items():
            for number, seconds in enumerate(rounds):
                writer.writerow([name, measurement, number, *(f"{s:.6g}" for s in seconds)])
        _report.write(flags.out / "scaling.csv", lines.getvalue())
        _scaling_report.draw(found, setups_of, flags, flags.out / "scaling.png")
        _report.write(flags.out / "scaling.md", text)


if __name__ == "__main__":
    main()
