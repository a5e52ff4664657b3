"""How rows are dealt to parts that have a limited number of places: quotas, and a queue.

The loops of the thesis's Algorithms 3, 4 and 9 are one loop, `first_come_first_served`; what
differs is which rows queue, in which order, and where the centres come from (see `partition`).
"""

import numpy as np

_SLICE = 4096  # rows


def shares(group_sizes, weights):
    """How many rows of each group each part gets, in proportion to the parts' weights.

    A cell is floor or ceil of group_size * weight / sum(weights). What a group's floors leave goes
    to the parts that are furthest behind their share of the groups so far, so that with equal
    weights the parts' totals too are floor or ceil of m/P. The printed algorithms take m/P as a
    whole number and send the rest to cluster 0.

    Args:
        group_sizes: (n_groups,) integers: rows of each group, such as a class.
        weights: (n_parts,) integers of at least 0, not all 0; equal ones for parts of equal size.

    Returns:
        (n_groups, n_parts) int64; row g sums to `group_sizes[g]`.

    >>> shares([10], [1, 1, 1, 1])
    array([[3, 3, 2, 2]])
    >>> shares([5, 6], [1, 1, 1, 1])
    array([[2, 1, 1, 1],
           [1, 2, 2, 1]])
    """
    group_sizes = np.asarray(group_sizes, dtype=np.int64)
    weights = np.asarray(weights, dtype=np.int64)
    whole, rest = np.divmod(group_sizes[:, np.newaxis] * weights, weights.sum())
    behind = np.zeros(len(weights), dtype=np.int64)  # in units of 1 / sum(weights) rows
    for row, rest_of_row in zip(whole, rest, strict=True):
        behind += rest_of_row
        left = rest_of_row.sum() // weights.sum()
        # A part whose share is a whole number takes none of the rest.
        order = np.lexsort((-behind, rest_of_row == 0))[:left]
        row[order] += 1
        behind[order] -= weights.sum()
    return whole


def first_come_first_served(distances, quotas, rows=None):
    """Each row in turn goes to the nearest part that has room: thesis, Algorithm 3, lines 5-15.

    Exactly the plain loop's result (of equally near parts the first), but many rows choose at once,
    and only those choose again whose part had filled up before their turn.

    Args:
        distances: (n_samples, n_parts) floats: of row i from the centre of part j, or any
            increasing function of it, such as the square. Or a function from row numbers (n,) to
            their distances (n, n_parts), called for some thousand rows at a time.
        quotas: (n_parts,) integers of at least 0: the places of each part.
        rows: (n,) integers: the queue, numbers of rows in their order. None: all rows in order.

    Returns:
        (n,) intp: the part of each row of the queue.

    Raises:
        ValueError: If there are fewer places than rows, or a quota is negative.

    The worked example of Figure 2.3, there with a row a centre:

    >>> distances = np.array([[5, 7, 3, 8, 2, 0, 8, 0], [4, 1, 6, 3, 7, 3, 9, 4],
    ...                       [1, 2, 8, 4, 4, 7, 6, 1], [3, 0, 4, 1, 6, 1, 4, 9]]).T
    >>> first_come_first_served(distances, [2, 2, 2, 2])
    array([2, 3, 0, 3, 0, 1, 2, 1])
    """
    room = np.array(quotas, dtype=np.int64)
    rows = np.arange(len(distances)) if rows is None else np.asarray(rows, dtype=np.intp)
    if room.sum() < len(rows) or room.min(initial=0) < 0:
        raise ValueError(
            f"quotas must be 0 or more and hold all {len(rows)} rows. Received: quotas="
            f"{room.tolist()}, which hold {room.sum()}. Raise some of them."
        )
    distances_of = _distances_of(distances)
    chosen = np.empty(len(rows), dtype=np.intp)
    # In slices: the distances need little memory, and a part which fills up costs a slice's time
    # and not that of all who wait.
    for start in range(0, len(rows), _SLICE):
        here = slice(start, start + _SLICE)
        chosen[here] = _serve(distances_of(rows[here]), room)
    return chosen


def level(labels, quotas, distances):
    """Overloaded parts give their farthest members away: thesis, Algorithm 4, lines 9-26.

    Each overloaded part in order gives its farthest member to the nearest underloaded part, until
    it has its quota. A part only ever gets members while it is underloaded, so that who leaves is
    known beforehand: the farthest ones, who then queue, the farthest first.

    Args:
        labels: (n_samples,) the part of each row, such as its K-means cluster.
        quotas: (n_parts,) integers that sum to n_samples.
        distances: as those of `first_come_first_served`.

    Returns:
        (n_samples,) intp: labels of which `quotas[j]` are j.

    >>> distances = np.array([[0, 9], [1, 8], [2, 7], [3, 6]])
    >>> level([0, 0, 0, 0], [2, 2], distances)
    array([0, 0, 1, 1])
    """
    labels = np.array(labels, dtype=np.intp)
    room = np.asarray(quotas, dtype=np.int64) - np.bincount(labels, minlength=len(quotas))
    distances_of = _distances_of(distances)
    for part in np.flatnonzero(room < 0):
        members = np.flatnonzero(labels == part)
        slices = np.split(members, range(_SLICE, len(members), _SLICE))
        own = np.concatenate([distances_of(rows)[:, part] for rows in slices])
        leaving = members[np.argsort(-own, kind="stable")[: -room[part]]]
        labels[leaving] = first_come_first_served(distances_of, np.maximum(room, 0), leaving)
        room[part] = 0
        room -= np.bincount(labels[leaving], minlength=len(room))
    return labels


def _distances_of(distances):
    return distances if callable(distances) else np.asarray(distances).__getitem__


def _serve(distances, room):
    """The parts of some rows; takes their places from `room`."""
    chosen = _nearest(distances, room)
    served = 0
    while True:
        stop = served + _first_turned_away(chosen[served:], room)
        room -= np.bincount(chosen[served:stop], minlength=len(room))
        if stop == len(chosen):
            return chosen
        served = stop
        again = served + np.flatnonzero(room[chosen[served:]] == 0)
        chosen[again] = _nearest(distances[again], room)


def _nearest(distances, room):
    open_parts = np.flatnonzero(room)
    if len(open_parts) == len(room):
        return distances.argmin(axis=1)
    return open_parts[distances[:, open_parts].argmin(axis=1)]


def _first_turned_away(chosen, room):
    """The place in the queue of the first row whose part has filled up by then; or the length."""
    counts = np.bincount(chosen, minlength=len(room))
    overfull = counts > room
    if not overfull.any():
        return len(chosen)
    by_part = np.argsort(chosen, kind="stable")
    return by_part[(np.cumsum(counts) - counts + room)[overfull]].min()
