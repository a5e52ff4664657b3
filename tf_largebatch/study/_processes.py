"""Processes side by side: so many at a time, stopped together, each with its share of the cores."""

import contextlib
import os
import signal
import subprocess
import time
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

POLL_SECONDS = 0.1


class Task(NamedTuple):
    """A command, and the file that takes its output, both streams."""

    name: str
    arguments: list[str]
    output: str


class Stopped(Exception):
    """A signal has ended the study; `number` is its number."""

    def __init__(self, number):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(processes):
    """The environment of one of so many processes: its share of the cores, and this folder's code.

    What is set already stays. On a GPU, none takes all the memory at its start.
    """
    share = str(max(1, cores() // processes))
    paths = [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_NUM_THREADS": share,
        "OPENBLAS_NUM_THREADS": share,
        "TF_NUM_INTRAOP_THREADS": share,
        "TF_NUM_INTEROP_THREADS": share,
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def run(tasks, *, processes, ended, waiting=lambda: None):
    """Runs tasks, `processes` at a time, in their order.

    Args:
        tasks: iterable of `Task`; the next is taken when a process is free.
        processes: how many run side by side.
        ended: called with (task, exit code, seconds) when one has ended. What it raises ends the
            others.
        waiting: called now and then while processes run.

    Raises:
        Stopped: by SIGINT or SIGTERM. The processes have got SIGTERM and have ended; a second
            signal kills them. `ended` isn't called for those.
    """
    tasks, running = iter(tasks), []
    left = True
    with _caught() as caught:
        try:
            while not caught and (left or running):
                while left and len(running) < processes:
                    task = next(tasks, None)
                    if task is None:
                        left = False
                    else:
                        running.append((task, *_start(task, processes)))
                time.sleep(POLL_SECONDS if running else 0)
                waiting()
                for entry in [e for e in running if e[1].poll() is not None]:
                    task, process, began = entry
                    running.remove(entry)
                    ended(task, process.returncode, time.monotonic() - began)
        finally:
            _end([process for _, process, _ in running], caught)
        if caught:
            raise Stopped(caught[0])


def _start(task, processes):
    with open(task.output, "wb") as output:
        process = subprocess.Popen(
            task.arguments, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment(processes),
            start_new_session=True,  # the terminal's Ctrl-C is for the study, which passes it on
        )  # fmt: skip
    return process, time.monotonic()


def _end(processes, caught):
    """Asks processes to save and end, and waits for them; kills them on a second signal."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    while any(process.poll() is None for process in processes):
        if len(caught) > 1:
            for process in processes:
                process.kill()
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def alone(path):
    """Holds a lock file; it is free again when this process ends, however it ends.

    Where the system has no such locks (Windows), nothing is held.

    Raises:
        ValueError: if another process holds it.
    """
    with open(path, "a", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"Another study is at work in this folder: it holds {path}. Wait for its end, "
                    "or name another --out."
                ) from None
        yield


@contextlib.contextmanager
def _caught():
    """Collects the numbers of the signals that come, instead of ending this process."""
    caught = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
