"""One line for each run that has ended, and in a terminal a bar with the time that is left."""

import statistics
import sys

BAR_CELLS = 24


class Progress:
    """Tells how far a study is.

    Args:
        total: how many runs it has, those that are finished already included.
        done: how many these are.
        processes: how many run side by side.
        stream: where to; a bar is drawn if it is a terminal.
    """

    def __init__(self, total, done, processes, stream=None):
        self._total, self._done, self._processes = total, done, processes
        self._stream = stream or sys.stdout
        self._left, self._drawn = "", ""

    def ended(self, text, seconds_left):
        """Prints the line of a run that has ended.

        Args:
            text: what it found.
            seconds_left: of one process after the other, as `seconds_of` estimates them, or None.
        """
        self._done += 1
        remaining = self._total - self._done
        self._left = ""
        if remaining and seconds_left is not None:
            self._left = f"; about {duration(seconds_left / self._processes)} left"
        self._clear()
        print(f"[{self._done}/{self._total}] {text}{self._left}", file=self._stream, flush=True)

    def waiting(self):
        """Draws the bar anew, where there is a terminal."""
        if not self._stream.isatty():
            return
        filled = BAR_CELLS * self._done // max(self._total, 1)
        bar = "#" * filled + "-" * (BAR_CELLS - filled)
        text = f"[{bar}] {self._done} of {self._total} runs{self._left}"
        if text != self._drawn:
            self._clear()
            print(text, end="", file=self._stream, flush=True)
            self._drawn = text

    def _clear(self):
        if self._drawn:
            print(f"\r{' ' * len(self._drawn)}\r", end="", file=self._stream)
            self._drawn = ""


def seconds_of(batch_sizes, rows):
    """How long runs at these batch sizes will take, one after the other, by those that are done.

    Args:
        batch_sizes: one for each run.
        rows: of results.csv.

    Returns:
        Seconds, or None if no run is done. A batch size without a run counts as the median one.

    >>> seconds_of([16, 512], [{"status": "done", "global_batch_size": "16", "seconds": "40"}])
    80.0
    """
    took = {}
    for row in rows:
        if row["status"] == "done":
            took.setdefault(int(row["global_batch_size"]), []).append(float(row["seconds"]))
    if not took:
        return None
    every = statistics.median(seconds for batch in took.values() for seconds in batch)
    known = {batch: statistics.median(seconds) for batch, seconds in took.items()}
    return sum(known.get(batch, every) for batch in batch_sizes)


def duration(seconds):
    """Seconds as a reader has them.

    >>> duration(42.1), duration(125), duration(8000)
    ('42 s', '2 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
