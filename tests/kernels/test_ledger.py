"""The ledger counts the bytes of the very arrays."""

import pickle

import numpy as np
import pytest
from scipy import sparse

from tf_largebatch.kernels.ledger import Ledger, payload_bytes


def test_send_books_what_it_returns():
    ledger, X = Ledger(), np.ones((5, 3), np.float32)
    assert ledger.send("distribute", "samples", X, source=0, target=2) is X
    one, other = ledger.send("train", "rows", X, np.arange(4), source=1, target=0)
    assert one is X and len(other) == 4
    assert ledger.send("distribute", "samples", X, source=0, target=0) is X  # nothing is sent
    assert [tuple(entry) for entry in ledger.entries] == [
        ("distribute", "samples", 1, 60, 0, 2),
        ("train", "rows", 1, 92, 1, 0),
    ]
    assert ledger.bytes("train") == 92 and ledger.words("train", "rows") == 23
    assert ledger.bytes(what="samples") == 60 and ledger.bytes("predict") == 0
    assert (ledger.total_bytes, ledger.total_messages) == (152, 2)
    copy = pickle.loads(pickle.dumps(ledger))
    assert copy.entries == ledger.entries


def test_csr_counts_values_columns_and_pointers():
    X = sparse.csr_array(np.eye(4))
    assert payload_bytes(X) == 4 * 8 + 4 * X.indices.itemsize + 5 * X.indptr.itemsize
    assert payload_bytes(X.tocsc()) == payload_bytes(X)


def test_table_adds_the_nodes_up():
    ledger = Ledger()
    for node in (1, 2, 3):
        ledger.record("train", "extremes", n_bytes=1000, n_messages=10, source=node)
    ledger.record("distribute", "samples", n_bytes=10**6)
    ledger.record("train", "nothing", n_bytes=0, n_messages=0)
    lines = [line.split() for line in ledger.table().splitlines()]
    assert lines[1:] == [
        ["distribute", "samples", "1", "1,000,000"],
        ["train", "extremes", "30", "3,000"],
        ["total", "31", "1,003,000"],
    ]


def test_refusals():
    with pytest.raises(ValueError, match="phase must be one of"):
        Ledger().record("lunch", "bread", n_bytes=1)
    with pytest.raises(ValueError, match="at least 0"):
        Ledger().record("train", "bread", n_bytes=-1)
