"""What nodes send each other: a ledger of payloads, one entry a kind of message.

A node is a partition: part 0 lives with the data's owner, the root. What goes from one to another
goes through `Ledger.send`, which books the bytes of the very arrays and hands them on. So the
ledger says what P nodes with one part each would send, as thesis Table 2.6 does, also where several
parts share a device and nothing moves. A word is 4 bytes: a float64 is 2, an int32 index 1.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

PHASES = ("partition", "distribute", "train", "collect", "predict")
WORD_BYTES = 4


class Entry(NamedTuple):
    """Messages of one kind between the same nodes."""

    phase: str  # one of PHASES
    what: str
    n_messages: int
    n_bytes: int  # of all of them
    source: int | str  # a node's number, or "each"
    target: int | str

    @property
    def n_words(self):
        """Words of 4 bytes, the unit of Table 2.6."""
        return self.n_bytes / WORD_BYTES


class Ledger:
    """Entries in the order in which they were booked.

    >>> ledger = Ledger()
    >>> rows, labels = ledger.send("distribute", "samples", np.zeros((5, 3)), np.zeros(5, np.int32),
    ...                            source=0, target=1)
    >>> ledger.total_bytes, ledger.words("distribute")
    (140, 35.0)
    """

    def __init__(self):
        self.entries = []

    def send(self, phase, what, *arrays, source, target):
        """Books the arrays as one message and returns them: one, or the tuple of several.

        Dense arrays count their values; CSR counts values, columns and row pointers. From a node to
        itself nothing is sent and nothing booked.
        """
        if source != target:
            self.record(phase, what, n_bytes=payload_bytes(*arrays), source=source, target=target)
        return arrays[0] if len(arrays) == 1 else arrays

    def record(self, phase, what, *, n_bytes, n_messages=1, source="each", target="each"):
        """Books `n_messages` of together `n_bytes`.

        Raises:
            ValueError: If the phase is none of `PHASES` or a number is negative.
        """
        if phase not in PHASES:
            raise ValueError(f"phase must be one of {PHASES}. Received: phase={phase!r}.")
        if n_bytes < 0 or n_messages < 0:
            raise ValueError(
                "n_bytes and n_messages must be at least 0. Received: "
                f"n_bytes={n_bytes}, n_messages={n_messages}."
            )
        if n_messages:
            self.entries.append(Entry(phase, what, int(n_messages), int(n_bytes), source, target))

    def select(self, phase=None, what=None):
        """The entries of a phase, of a kind, or all."""
        return [
            entry
            for entry in self.entries
            if phase in (None, entry.phase) and what in (None, entry.what)
        ]

    def bytes(self, phase=None, what=None):
        """Bytes of the entries that `select` gives."""
        return sum(entry.n_bytes for entry in self.select(phase, what))

    def words(self, phase=None, what=None):
        """The same in words of 4 bytes."""
        return self.bytes(phase, what) / WORD_BYTES

    @property
    def total_bytes(self):
        """Bytes of all entries."""
        return self.bytes()

    @property
    def total_messages(self):
        """Messages of all entries."""
        return sum(entry.n_messages for entry in self.entries)

    def table(self):
        """Lines of text: phase, what, messages, bytes, summed over the nodes; and their total."""
        sums = {}
        for entry in self.entries:
            messages, n_bytes = sums.get((entry.phase, entry.what), (0, 0))
            sums[entry.phase, entry.what] = messages + entry.n_messages, n_bytes + entry.n_bytes
        order = sorted(sums, key=lambda key: PHASES.index(key[0]))
        rows = [(*key, *sums[key]) for key in order]
        rows.append(("total", "", self.total_messages, self.total_bytes))
        width = max(len(row[1]) for row in rows)
        lines = [f"{'phase':<10} {'what':<{width}} {'messages':>10} {'bytes':>14}"]
        lines += [f"{p:<10} {w:<{width}} {n:>10,} {b:>14,}" for p, w, n, b in rows]
        return "\n".join(lines)

    def __repr__(self):
        return f"<Ledger: {self.total_messages:,} messages, {self.total_bytes:,} bytes>"


def payload_bytes(*arrays):
    """Bytes of what is sent: dense arrays, CSR matrices, numbers (as int64 or float64).

    >>> payload_bytes(np.zeros((2, 3)), sparse.csr_array(np.eye(4)))
    116
    """
    total = 0
    for array in arrays:
        if sparse.issparse(array):
            csr = array.tocsr()
            total += csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes
        else:
            total += np.asarray(array).nbytes
    return total
