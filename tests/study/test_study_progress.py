"""What a study says on the way: lines, a bar in a terminal, the time that is left."""

import io

from tf_largebatch.study._progress import Progress, seconds_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_count_and_tell_the_time_that_is_left():
    stream = io.StringIO()
    progress = Progress(4, 1, 2, stream)
    progress.waiting()
    progress.ended("a: done", 240)
    progress.ended("b: failed", None)
    progress.ended("c: done", 0)
    assert stream.getvalue().splitlines() == [
        "[2/4] a: done; about 2 min left", "[3/4] b: failed", "[4/4] c: done",
    ]  # fmt: skip


def test_a_terminal_has_a_bar_that_makes_way_for_lines():
    stream = Terminal()
    progress = Progress(4, 1, 1, stream)
    progress.waiting()
    first = stream.getvalue()
    progress.waiting()
    assert stream.getvalue() == first  # nothing new, nothing drawn
    assert first == "[" + "#" * 6 + "-" * 18 + "] 1 of 4 runs"
    progress.ended("a: done", 30)
    wiped = "\r" + " " * len(first) + "\r"
    assert stream.getvalue() == first + wiped + "[2/4] a: done; about 30 s left\n"
    progress.waiting()
    assert stream.getvalue().endswith("] 2 of 4 runs; about 30 s left")


def test_the_estimate_is_the_median_of_each_batch_size():
    rows = [
        {"status": status, "global_batch_size": batch, "seconds": seconds}
        for status, batch, seconds in (
            ("done", "16", "40"),
            ("done", "16", "44"),
            ("done", "16", "100"),
            ("done", "512", "10"),
            ("diverged", "512", "1"),
            ("failed", "16", "2"),
        )
    ]
    assert seconds_of([16, 512, 512], rows) == 44 + 10 + 10
    assert seconds_of([64], rows) == 42  # the median of 40, 44, 100 and 10
    assert seconds_of([], rows) == 0
    assert seconds_of([16], rows[4:]) is None
