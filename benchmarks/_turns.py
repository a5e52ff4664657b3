"""Ways to train that take turns in one process, so that they meet the same machine."""

import contextlib
import threading
import time

import keras
import numpy as np
from tensorflow.python.eager import context  # the only way to the optimised graph

WARM_UP = 2  # turns that aren't timed: TensorFlow traces a function at its second call again


class Contestant(keras.callbacks.Callback):
    """A loop in a thread of its own, which runs when it is its turn.

    As a callback it holds the loop at the end of a turn's last host call; what the loop does
    between that one and the next is in the next turn.

    Args:
        loop: function of the callback that runs all the updates.
        calls: host calls in a turn.
        waited: function that returns the seconds waited for data so far, or None.
    """

    def __init__(self, loop, calls, waited=None):
        super().__init__()
        self._loop, self._calls, self._waited = loop, calls, waited
        self._call, self._error = 0, None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self._go.acquire()
        try:
            self._loop(self)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error
        self._done.release()

    def on_train_batch_end(self, batch, logs=None):
        """Hands over after the last call of the turn."""
        self._call += 1
        if self._call % self._calls == 0:
            self._done.release()
            self._go.acquire()

    def turn(self):
        """(wall time, processor time, time waited for data) of a turn, in seconds."""
        before = self._clocks()
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return np.subtract(self._clocks(), before)

    def finish(self):
        """Lets the loop end, after the last turn."""
        self._go.release()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _clocks(self):
        waited = self._waited() if self._waited else 0.0
        return time.perf_counter(), time.process_time(), waited


@contextlib.contextmanager
def operations(found):
    """Appends the number of operations in the largest optimised graph that is first run within."""
    context.context().enable_run_metadata()
    context.context().export_run_metadata()  # what was left over
    try:
        yield
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_run_metadata()
    graphs = [graph.post_optimization_graph for graph in graphs]
    found.append(
        max(len(g.node) + sum(len(f.node_def) for f in g.library.function) for g in graphs)
    )


def take_turns(contestants, rounds):
    """({name: (rounds, 3)}, {name: operations}), after turns that trace and aren't timed."""
    counts, found = {}, {name: [] for name in contestants}
    for name, contestant in contestants.items():
        counted = []
        with operations(counted):
            contestant.turn()
        for _ in range(WARM_UP - 1):
            contestant.turn()
        counts[name] = counted[0]
        print(f"  {name}: ready", flush=True)
    random, names = np.random.default_rng(0), list(contestants)
    for _ in range(rounds):
        for i in random.permutation(len(names)):
            found[names[i]].append(contestants[names[i]].turn())
    for contestant in contestants.values():
        contestant.finish()
    return {name: np.array(turns) for name, turns in found.items()}, counts


def interval(values):
    """The 95 % interval of the median, from the sorted values alone (the sign test's)."""
    values = np.sort(values)
    below = max(0, int(len(values) / 2 - 0.98 * np.sqrt(len(values))))
    return values[below], values[-1 - below]
