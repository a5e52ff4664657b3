"""How long devices take to sum their gradients, in the alpha-beta model.

A message of n bytes takes alpha + n * beta seconds, and a device sends one and receives one at a
time (Thakur, Rabenseifner and Gropp 2005, "Optimization of Collective Communication Operations in
MPICH", section 3). What an algorithm does is so two numbers: its rounds of messages, and the bytes
that go one after the other on its longest path. Their model adds gamma for each byte summed; it is
left out, as it doesn't show: 2e-14 s a byte of float32 on a P100, against 2e-10 s for FDR's beta.
"""

import math
from typing import NamedTuple

from tf_largebatch.scaling import check_count, check_number


class AllReduce(NamedTuple):
    """One way to sum a buffer over all devices, so that each of them has the sum."""

    algorithm: str
    rounds: int  # messages, one after the other
    bytes_in_sequence: float  # in those messages

    def seconds(self, network):
        """The time on a `Network`."""
        alpha, beta = network.latency_seconds, network.seconds_per_byte
        return self.rounds * alpha + self.bytes_in_sequence * beta


def ring(num_bytes, devices):
    """Reduce-scatter and all-gather around a ring: 2 (p-1) alpha + 2 (p-1)/p n beta.

    No algorithm sends fewer bytes (Patarasuk and Yuan 2009); but the rounds grow with p.

    Args:
        num_bytes: n, the size of the buffer.
        devices: p.

    Returns:
        `AllReduce`.

    Raises:
        ValueError: If p isn't a whole number of at least 1, or n isn't a number of at least 0.

    >>> ring(1e6, 4)
    AllReduce(algorithm='ring', rounds=6, bytes_in_sequence=1500000.0)
    """
    n, p = _checked(num_bytes, devices)
    return AllReduce("ring", 2 * (p - 1), 2 * (p - 1) / p * n)


def recursive_doubling(num_bytes, devices):
    """In each round all exchange the whole buffer, at twice the distance: log2(p) (alpha + n beta).

    The fewest rounds, hence for short messages (Thakur et al. 2005, on all-reduce). It is what the
    thesis counts in Table 5.1, log(p) t_2, where t_2 = alpha + |w| beta (slides, page of the same
    table). For p that is no power of two the devices beyond one give their buffers to a neighbour
    first, and get the sum last: two more rounds. The thesis prints log(2500) = 11.3 for what so
    takes 13.

    Args, Returns, Raises: As `ring`.

    >>> recursive_doubling(1e6, 16).rounds, recursive_doubling(1e6, 2500).rounds
    (4, 13)
    """
    n, p = _checked(num_bytes, devices)
    rounds = _log2_below(p) + _beyond_power_of_two(p)
    return AllReduce("recursive_doubling", rounds, rounds * n)


def halving_doubling(num_bytes, devices):
    """Reduce-scatter by recursive halving, all-gather by doubling, by Rabenseifner (2004).

    2 log2(p) alpha + 2 (p-1)/p n beta (Thakur et al. 2005, on all-reduce). For p that is no power
    of two, the largest one below does so, and the others give whole buffers before it and
    get them after it, as MPICH does: 2 (alpha + n beta) more.

    Args, Returns, Raises: As `ring`.

    >>> halving_doubling(1e6, 4), halving_doubling(1e6, 5).rounds
    (AllReduce(algorithm='halving_doubling', rounds=4, bytes_in_sequence=1500000.0), 6)
    """
    n, p = _checked(num_bytes, devices)
    rounds, extra = _log2_below(p), _beyond_power_of_two(p)
    power = 2**rounds
    return AllReduce("halving_doubling", 2 * rounds + extra, (2 * (power - 1) / power + extra) * n)


def torus(num_bytes, rows, columns):
    """On a grid of devices: reduce-scatter along rows, all-reduce along columns, all-gather.

    Each is by rings. As many bytes as one ring over all, but 2 (rows-1) + 2 (columns-1) rounds,
    O(N) where the ring has O(N^2) (Ying et al. 2018, arXiv:1811.06992; slides,
    "Efficient Global Summation").

    Args:
        num_bytes: n, the size of the buffer.
        rows, columns: Devices in each dimension; see `torus_shape`.

    Returns:
        `AllReduce`.

    Raises:
        ValueError: If a dimension isn't a whole number of at least 1, or n isn't a number of at
            least 0.

    >>> torus(1e6, 4, 4).rounds, ring(1e6, 16).rounds
    (12, 30)
    """
    n, a = _checked(num_bytes, columns)
    _, b = _checked(num_bytes, rows)
    along_rows = 2 * (a - 1) / a * n
    along_columns = 2 * (b - 1) / b * (n / a)
    return AllReduce("torus", 2 * (a - 1) + 2 * (b - 1), along_rows + along_columns)


def torus_in_halves(num_bytes, rows, columns):
    """`torus`, one half of the buffer rows first, the other half columns first, at once.

    Needs links of their own for each dimension, which are then never idle: on a square half the
    bytes one after the other (Ying et al. 2018; slides, "2D ring implementation"). On
    another grid a phase lasts as long as the longer dimension takes.

    Args, Returns, Raises: As `torus`.

    >>> torus_in_halves(1e6, 4, 4).bytes_in_sequence / torus(1e6, 4, 4).bytes_in_sequence
    0.5
    """
    n, a = _checked(num_bytes, max(rows, columns))
    _, b = _checked(num_bytes, min(rows, columns))
    half = n / 2
    # The longer dimension is the slower in all three phases: scatter, all-reduce, gather.
    scatter_and_gather = 2 * (a - 1) / a * half
    in_between = 2 * (a - 1) / a * (half / b)
    return AllReduce("torus_in_halves", 4 * (a - 1), scatter_and_gather + in_between)


def torus_shape(devices):
    """The grid (rows, columns) of so many devices that is nearest to a square.

    >>> torus_shape(16), torus_shape(32), torus_shape(7)
    ((4, 4), (4, 8), (1, 7))
    """
    devices = check_count("devices", devices)
    rows = next(d for d in range(math.isqrt(devices), 0, -1) if devices % d == 0)
    return rows, devices // rows


def all_reduces(num_bytes, devices, *, link_dimensions=1):
    """Every algorithm for so many bytes and devices.

    Args:
        num_bytes: Size of the buffer.
        devices: How many share it.
        link_dimensions: 2 where each device has links of its own for both dimensions of a torus;
            only there `torus_in_halves` is possible.

    Returns:
        A tuple of `AllReduce`.

    >>> [found.algorithm for found in all_reduces(1e6, 16)]
    ['ring', 'recursive_doubling', 'halving_doubling', 'torus']
    """
    shape = torus_shape(devices)
    found = [
        ring(num_bytes, devices),
        recursive_doubling(num_bytes, devices),
        halving_doubling(num_bytes, devices),
        torus(num_bytes, *shape),
    ]
    if link_dimensions > 1:
        found.append(torus_in_halves(num_bytes, *shape))
    return tuple(found)


def fastest(num_bytes, devices, network):
    """The algorithm that takes the least time on a `Network`; of equals the first.

    >>> from tf_largebatch.costs import NETWORKS
    >>> [fastest(size, 16, NETWORKS["fdr"]).algorithm for size in (64, 1e8)]
    ['recursive_doubling', 'halving_doubling']
    """
    found = all_reduces(num_bytes, devices, link_dimensions=network.link_dimensions)
    return min(found, key=lambda algorithm: algorithm.seconds(network))


def _checked(num_bytes, devices):
    return check_number("num_bytes", num_bytes, allow_zero=True), check_count("devices", devices)


def _log2_below(p):
    """The whole rounds in which the largest power of two up to p is doubled to."""
    return p.bit_length() - 1


def _beyond_power_of_two(p):
    return 0 if p & (p - 1) == 0 else 2
