"""The programs that Asy-GCD's threads run, compiled by numba, without the interpreter's lock.

They are plain functions, so that importing this file needs no numba: `compiled()` makes programs of
them. Their arguments are the tuples of `_async_state.py`.

Letters of the thesis, section 4.4: x (alpha), g the gradient, q_i column i of Q, d the step
(delta), S_t the block of thread t, which is the rows [start, stop).
"""

import functools
import pathlib
from types import SimpleNamespace

import numpy as np

from tf_largebatch.kernels import _async_columns, _instructions
from tf_largebatch.kernels._async_columns import CHUNK, column
from tf_largebatch.kernels._instructions import (
    exchange_if,
    fetch_add,
    give_way,
    larger,
    load_acquire,
    store_release,
)

PAD = 16  # int64 between two threads' counters: 128 bytes, so that no two share a cache line
RING = 1024  # slots of the log, a power of two
SPINS = 200  # looks at the log before the core is offered to another thread

UPDATES, LOOKS, STALEST, STUCK = range(4)  # in Shared.tallies


# ---- one coordinate --------------------------------------------------------------------------


def _violation(iterate, i):
    """|x_i - clip(x_i - g_i)|, the projected gradient of eq. 4.11."""
    x, low, high = iterate.x[i], iterate.lower[i], iterate.upper[i]
    moved = x - iterate.g[i]
    moved = low if moved < low else moved
    moved = high if moved > high else moved
    return abs(x - moved)


def _largest(x, g, lower, upper):
    """The largest violation of a few coordinates."""
    largest = 0.0
    for j in range(x.size):  # from 0, so that LLVM sees there are no negative indices
        moved = x[j] - g[j]
        moved = lower[j] if moved < lower[j] else moved
        moved = upper[j] if moved > upper[j] else moved
        largest = larger(largest, abs(x[j] - moved))
    return largest


def _greediest(iterate, start, stop):
    """(i, its violation): the largest of the block, the first of equals."""
    best, where = -1.0, start
    for first in range(start, stop, CHUNK):
        last = min(first + CHUNK, stop)
        largest = _largest(
            iterate.x[first:last], iterate.g[first:last], iterate.lower[first:last],
            iterate.upper[first:last],
        )  # fmt: skip
        if largest > best:
            best, where = largest, first
    chosen, most = start, 0.0
    for j in range(where, min(where + CHUNK, stop)):
        found = _violation(iterate, j)
        if found > most:
            chosen, most = j, found
    return chosen, most


def _step(source, iterate, tallies, i):
    """(where x_i goes, by how much): to clip(x_i - g_i / Q_ii), eq. 4.10.

    A step of 0, though i violates, is noted: it is below x_i's last digit, or f has no minimum.
    """
    x, low, high, g = iterate.x[i], iterate.lower[i], iterate.upper[i], iterate.g[i]
    if iterate.steps[i] > 0.0:
        target = x - iterate.steps[i] * g
        target = low if target < low else target
        target = high if target > high else target
    elif source.diagonal[i] == 0.0:
        target = low if g > 0.0 else high
    else:
        # f is concave along i: least at an end of the interval.
        to_low, to_high, half = low - x, high - x, 0.5 * source.diagonal[i]
        target = low if to_low * (g + half * to_low) < to_high * (g + half * to_high) else high
    if target == -np.inf or target == np.inf:
        target = x
    if target == x:
        tallies[STUCK] = i + 1
    return target, target - x


def _add(g, d, q):
    for j in range(q.size):
        g[j] += d * q[j]


def _draw(random, slot, start, stop):
    """A random index of [start, stop): splitmix64 (Steele et al. 2014)."""
    random[slot] += np.uint64(0x9E3779B97F4A7C15)
    z = random[slot]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return start + int(z >> np.uint64(33)) % (stop - start)


def _choose(iterate, shared, t, start, stop, tol, greedy):
    """(i, violation) by the rule of selection; the violation is below tol only if all are.

    At random (PSCD): draws until one violates by tol or more; after as many draws as the block has
    coordinates, one look at all of them says whether there is any such.
    """
    tallies = shared.tallies[t]
    if not greedy and stop > start:
        for _ in range(stop - start):
            tallies[LOOKS] += 1
            i = _draw(shared.random, t * PAD, start, stop)
            found = _violation(iterate, i)
            if found >= tol:
                return i, found
    i, found = _greediest(iterate, start, stop)
    tallies[LOOKS] += 1
    return i, found


def _all_quiet(shared, updates):
    """Whether every thread, having seen these updates, has nothing to do: then no more come.

    A thread that said so acts again only on an update it hasn't seen, and there is nobody left
    to make one.
    """
    for slot in range(0, shared.quiet.size, PAD):
        if load_acquire(shared.quiet, slot) != updates + 1:
            return False
    return True


# ---- the programs ----------------------------------------------------------------------------


def serial(
    source, cache, iterate, shared, t, start, stop, limit, tol, greedy, staleness, lead, hold_back
):
    """Algorithm 13: one thread, which waits for no other."""
    tallies = shared.tallies[t]
    while shared.tail[0] < limit and load_acquire(shared.stop, 0) == 0:
        i, found = _choose(iterate, shared, t, start, stop, tol, greedy)
        if found < tol:
            shared.quiet[t * PAD] = shared.tail[0] + 1
            return
        target, d = _step(source, iterate, tallies, i)
        if d == 0.0:
            return
        iterate.x[i] = target
        shared.tail[0] += 1
        tallies[UPDATES] += 1
        _add(iterate.g[start:stop], d, column(source, cache, i, start, stop))


def _read_log(source, cache, iterate, shared, t, start, stop, head, limit):
    """Applies to S_t what others have published from update `head` on; returns the new head."""
    while head < limit and load_acquire(shared.sequence, head & (RING - 1)) == head + 1:
        slot = head & (RING - 1)
        i, d = shared.index[slot], shared.delta[slot]
        head += 1
        store_release(shared.heads, t * PAD, head)  # the slot may be used again
        if i < start or i >= stop:
            _add(iterate.g[start:stop], d, column(source, cache, i, start, stop))
    return head


def _may_write(shared, k, lead):
    """Whether all threads have read update k - lead; then, in the log, update k has a slot."""
    for slot in range(0, shared.heads.size, PAD):
        if load_acquire(shared.heads, slot) + lead <= k:
            return False
    return True


def _holds_back(shared, found, hold_back):
    """Whether another block's largest violation makes an update of this size a waste."""
    most = 0.0
    for slot in range(0, shared.wants.size, PAD):
        most = max(most, load_acquire(shared.wants, slot))
    return found < hold_back * most


def _waited(spins):
    """Counts a look in vain, and after many of them lets another thread run."""
    if spins >= SPINS:
        give_way()
    return spins + 1


def _reserve(shared, head, limit, staleness):
    """The number of this thread's next update, in one atomic step; -1: not now.

    From `limit` on there are no more updates in this round.
    """
    if staleness < 0:
        return fetch_add(shared.tail, 0, 1)
    k = load_acquire(shared.tail, 0)
    if k - head > staleness or (k < limit and exchange_if(shared.tail, 0, k, k + 1) != k):
        return -1
    return k


def log(
    source, cache, iterate, shared, t, start, stop, limit, tol, greedy, staleness, lead, hold_back
):
    """Algorithm 14 with a log: an update is published as (i, d), and each thread adds d q_i to the
    gradient of its own block. Only the log is shared.

    A thread first applies what it can read, then picks in S_t. Slot k of the log is its own by one
    atomic step; k less the updates it has read is the staleness of that update (Assumption 1.1),
    which `staleness` bounds if it isn't negative: an update that would be staler is not made. Who
    is `lead` updates ahead of the slowest waits, and goes on reading, so that the slowest always
    gets on: it can read up to the first slot not yet written, whose owner waits for nobody.
    """
    x, tallies = iterate.x, shared.tallies[t]
    head, spins, knows = shared.heads[t * PAD], 0, False
    i, found, d, target = start, 0.0, 0.0, 0.0
    while load_acquire(shared.stop, 0) == 0:
        before = head
        head = _read_log(source, cache, iterate, shared, t, start, stop, head, limit)
        if head == limit:
            return
        if head != before or not knows:
            i, found = _choose(iterate, shared, t, start, stop, tol, greedy)
            knows, spins = True, 0
            if found >= tol:
                target, d = _step(source, iterate, tallies, i)
                found = -1.0 if d == 0.0 else found
            if found < tol:
                store_release(shared.quiet, t * PAD, head + 1)
            store_release(shared.wants, t * PAD, max(found, 0.0))
        if found < tol:
            if _all_quiet(shared, head):
                return
            spins = _waited(spins)
            continue
        if hold_back > 0.0 and _holds_back(shared, found, hold_back):
            spins = _waited(spins)
            continue
        k = _reserve(shared, head, limit, staleness)
        if k < 0:
            spins = _waited(spins)
            continue
        if k >= limit:  # the round is over; the rest of its updates are to be read
            while head < limit and load_acquire(shared.stop, 0) == 0:
                head = _read_log(source, cache, iterate, shared, t, start, stop, head, limit)
                spins = _waited(spins)
            return
        tallies[STALEST] = max(tallies[STALEST], k - head)
        while not _may_write(shared, k, lead):
            if load_acquire(shared.stop, 0) != 0:
                return
            head = _read_log(source, cache, iterate, shared, t, start, stop, head, k)
            spins = _waited(spins)
        shared.index[k & (RING - 1)] = i
        shared.delta[k & (RING - 1)] = d
        store_release(shared.sequence, k & (RING - 1), k + 1)
        x[i] = target
        tallies[UPDATES] += 1
        _add(iterate.g[start:stop], d, column(source, cache, i, start, stop))
        knows = False


def atomic(
    source, cache, iterate, shared, t, start, stop, limit, tol, greedy, staleness, lead, hold_back
):
    """Algorithm 14 as printed: g is shared, read freely, and each element of d q_i added to it in
    one atomic step. The staleness counts the updates not wholly written when the search began.
    """
    x, g, tallies, spins = iterate.x, iterate.g, shared.tallies[t], 0
    while load_acquire(shared.stop, 0) == 0 and load_acquire(shared.tail, 0) < limit:
        # Nothing is half written now if as many updates are finished as have begun.
        head = load_acquire(shared.finished, 0)
        at_rest = load_acquire(shared.tail, 0) == head
        i, found = _choose(iterate, shared, t, start, stop, tol, greedy)
        target, d, k = 0.0, 0.0, -1
        if found >= tol:
            target, d = _step(source, iterate, tallies, i)
            found = -1.0 if d == 0.0 else found
        store_release(shared.wants, t * PAD, max(found, 0.0))
        waits = hold_back > 0.0 and _holds_back(shared, found, hold_back)
        store_release(shared.heads, t * PAD, head)
        if found >= tol and not waits and _may_write(shared, head, lead):
            k = _reserve(shared, head, limit, staleness)
        if 0 <= k < limit:
            x[i] = target
            q = column(source, cache, i, 0, g.size)
            for j in range(g.size):
                fetch_add(g, j, d * q[j])
            fetch_add(shared.finished, 0, 1)
            tallies[STALEST] = max(tallies[STALEST], k - head)
            tallies[UPDATES] += 1
            spins = 0
        else:
            spins = _waited(spins)
        if found < tol and at_rest and load_acquire(shared.tail, 0) == head:
            store_release(shared.quiet, t * PAD, head + 1)
            if _all_quiet(shared, head):
                return


def gradient(source, cache, x, first, last, start, stop, out, flag):
    """out[j - start] += sum over i in [first, last) of x_i Q_ij, for the rows of [start, stop)."""
    for i in range(first, last):
        if x[i] != 0.0:
            if load_acquire(flag, 0) != 0:
                return
            _add(out, x[i], column(source, cache, i, start, stop))


_MODULES_OF_PARTS = (_async_columns, _instructions)
_PARTS = (
    _violation, _largest, _greediest, _step, _add, _draw,
    _choose, _all_quiet, _read_log, _may_write, _holds_back, _waited, _reserve,
)  # fmt: skip


@functools.cache
def compiled():
    """The four programs, compiled when first called, and kept on disk where that can be written."""
    try:
        import numba
    except ImportError as error:
        raise ImportError(
            "Asy-GCD's threads need numba, the extra [async]: pip install 'tf-largebatch[async]'."
        ) from error
    # There is no NaN, and the sign of 0 doesn't matter; infinite bounds, though, must stay so.
    options = {"fastmath": {"nnan", "nsz"}, "error_model": "numpy"}
    _instructions.register()
    for part in (*_PARTS, *_async_columns.PARTS):
        numba.extending.register_jitable(**options)(part)

    def program(function):
        try:
            made = numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # neither beside this file nor in the user's folder can be written
            return numba.njit(nogil=True, **options)(function)
        _drop_older_than_parts(pathlib.Path(made.stats.cache_path))
        return made

    return SimpleNamespace(
        serial=program(serial), log=program(log), atomic=program(atomic),
        gradient=program(gradient),
    )  # fmt: skip


def _drop_older_than_parts(folder):
    """Removes compiled programs older than a file of their parts: numba looks at this file only."""
    changed = max(pathlib.Path(module.__file__).stat().st_mtime for module in _MODULES_OF_PARTS)
    for index in folder.glob(f"{pathlib.Path(__file__).stem}.*.nbi"):
        try:
            if index.stat().st_mtime < changed:
                index.unlink()
        except OSError:  # another process was first, or it isn't ours to remove
            continue
