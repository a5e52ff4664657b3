"""A two-dimensional ring all-reduce beside a ring over all devices: the sums, hops and bytes.

    PYTHONPATH=. python benchmarks/ring_all_reduce.py --out docs/results

The algorithm is that of Ying et al. 2018 (arXiv:1811.06992, section on the gradient sum). Devices
form a grid whose rows and columns are rings. The array is cut in two: one half is summed along x
first and then along y, the other one along y first, so that the links of both dimensions are busy
at once. Each ring does a reduce-scatter and an all-gather, by exchanges with the next neighbour.
The ring to compare with goes once through all devices of the same grid, from neighbour to
neighbour.

All run in JAX on logical CPU devices. The sums are compared with NumPy's. Rounds, hops and bytes
are counted in the compiled program, and then compared with the formulas of `tf_largebatch.costs`; a
wrong sum or count ends the script with code 1. No time is measured: the devices are threads of one
processor, and their links its memory.
"""

import argparse
import functools
import math
import os
import pathlib
import sys
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from benchmarks import _report
from benchmarks._traffic import count
from tf_largebatch import costs

GRID = ("y", "x")  # the mesh's axes: rows, columns
NETWORK = costs.NETWORKS["tpu_v3_ici"]


class Ring(NamedTuple):
    """Devices one after the other, the last one's neighbour being the first."""

    axes: str | tuple[str, ...]  # of the mesh
    order: tuple[int, ...]  # their indices along these axes

    def position(self):
        """Where on the ring the device stands that asks."""
        return jnp.asarray(np.argsort(self.order))[lax.axis_index(self.axes)]

    def pass_on(self, array):
        """Gives it to the next device; returns what the one before gave."""
        to_next = list(zip(self.order, self.order[1:] + self.order[:1], strict=True))
        return lax.ppermute(array, self.axes, to_next)


def snake(rows, columns):
    """Grid indices in an order that goes from neighbour to neighbour, through all and back.

    One row to the right, the next one to the left; with an odd number of rows by columns instead.
    Where both are odd, the step from the last one to the first crosses two links.

    >>> snake(2, 3)
    (0, 1, 2, 5, 4, 3)
    """
    grid = np.arange(rows * columns).reshape(rows, columns)
    grid = grid.T.copy() if rows % 2 else grid
    grid[1::2] = grid[1::2, ::-1]
    return tuple(grid.ravel().tolist())


def reduce_scatter(chunks, ring):
    """(p, n) on each of p devices to (n,): the device at position i has the sum of chunk i."""
    p, here = len(ring.order), ring.position()

    def own(place):
        return lax.dynamic_index_in_dim(chunks, place % p, keepdims=False)

    # Chunk c starts at position c + 1 and is added to at each stop, until it comes to c.
    part = own(here - 1)
    for stop in range(1, p):
        part = ring.pass_on(part) + own(here - 1 - stop)
    return part


def all_gather(part, ring):
    """(n,) on each of p devices to (p, n): chunk i is what the device at position i had."""
    p, here = len(ring.order), ring.position()
    parts = [part]
    for _ in range(1, p):
        parts.append(ring.pass_on(parts[-1]))
    # parts[s] came from s positions before this one.
    return jnp.stack(parts)[(here - jnp.arange(p)) % p]


def over_rings(array, *rings):
    """The sum of `array` over all devices: scattered along the first ring, and so on inwards."""
    if not rings:
        return array
    first, *others = rings
    p = len(first.order)
    chunks = jnp.pad(array.ravel(), (0, -array.size % p)).reshape(p, -1)
    part = over_rings(reduce_scatter(chunks, first), *others)
    return all_gather(part, first).ravel()[: array.size].reshape(array.shape)


def all_reduce(algorithm, rows, columns):
    """The function of one device's array that an algorithm is, on a grid of devices."""
    x, y = Ring("x", tuple(range(columns))), Ring("y", tuple(range(rows)))
    if algorithm == "ring":
        return lambda array: over_rings(array, Ring(GRID, snake(rows, columns)))
    if algorithm == "torus":
        return lambda array: over_rings(array, x, y)

    def in_halves(array):
        flat = array.ravel()
        half = (flat.size + 1) // 2
        summed = over_rings(flat[:half], x, y), over_rings(flat[half:], y, x)
        return jnp.concatenate(summed).reshape(array.shape)

    return in_halves


FORMULAS = {
    "ring": lambda n, rows, columns: costs.ring(n, rows * columns),
    "torus": costs.torus,
    "torus_in_halves": costs.torus_in_halves,
}


@functools.cache
def on_grid(algorithm, rows, columns):
    """(p, n), a row for each device, to (p, n): what each of them has then. Compiled by use.

    Raises:
        ValueError: If JAX has fewer devices.
    """
    needed = rows * columns
    if len(jax.devices()) < needed:
        raise ValueError(
            f"A grid of {rows} x {columns} needs {needed} devices. Received: "
            f"{len(jax.devices())}. Set jax_num_cpu_devices before JAX starts."
        )
    mesh = Mesh(np.array(jax.devices()[:needed]).reshape(rows, columns), GRID)
    rows_of_all = PartitionSpec(GRID)
    reduce = all_reduce(algorithm, rows, columns)
    return jax.jit(
        jax.shard_map(
            lambda own: reduce(own[0])[None], mesh=mesh, in_specs=rows_of_all,
            out_specs=rows_of_all, check_vma=False,
        )
    )  # fmt: skip


def compiled_text(algorithm, rows, columns, elements, dtype="float32"):
    """The compiled program for an array of so many elements on each device."""
    shape = jax.ShapeDtypeStruct((rows * columns, elements), dtype)
    return on_grid(algorithm, rows, columns).lower(shape).compile().as_text() or ""


def error_of_sum(algorithm, rows, columns, elements, *, whole):
    """The largest error on any device, over float32's bound for adding p numbers one by one.

    Args:
        algorithm, rows, columns: which, and on what grid.
        elements: of the array; need not divide.
        whole: add whole numbers, of which float32 rounds none; else normal ones.
    """
    random = np.random.default_rng(elements)
    shape = rows * columns, elements
    numbers = random.integers(-1000, 1000, shape) if whole else random.normal(size=shape)
    numbers = numbers.astype("float32")
    found = np.asarray(on_grid(algorithm, rows, columns)(numbers), "float64")
    wide = numbers.astype("float64")
    bound = (shape[0] - 1) * 2.0**-24 * np.abs(wide).sum(axis=0)
    return float((np.abs(found - wide.sum(axis=0)) / bound).max())


def examine(algorithm, rows, columns, sizes):
    """(cells of a row of the table, what is wrong) of an algorithm on a grid."""
    p, wrong = rows * columns, []
    for elements in sizes:
        if error_of_sum(algorithm, rows, columns, elements, whole=True):
            wrong.append(f"{algorithm} on {rows}x{columns}: {elements} whole numbers")
    errors = [error_of_sum(algorithm, rows, columns, n, whole=False) for n in sizes]
    if max(errors) > 1:
        wrong.append(f"{algorithm} on {rows}x{columns}: rounding of {max(errors)} times the bound")
    elements = 2 * p * 64  # can be cut in halves and among all devices
    traffic = count(compiled_text(algorithm, rows, columns, elements), rows, columns)
    formula = FORMULAS[algorithm](4 * elements, rows, columns)
    same = math.isclose(traffic.bytes_in_sequence, formula.bytes_in_sequence, rel_tol=1e-12)
    if not (same and traffic.rounds == formula.rounds):
        wrong.append(f"{algorithm} on {rows}x{columns}: counted {traffic}, formula {formula}")
    per_byte = traffic.bytes_in_sequence / (4 * elements)
    milliseconds = [
        1e3 * (traffic.hops * NETWORK.latency_seconds + n * per_byte * NETWORK.seconds_per_byte)
        for n in (4 * 61_706, 4 * 25_557_032)
    ]
    cells = [
        f"{rows} x {columns}", algorithm, traffic.rounds, formula.rounds, traffic.hops,
        f"{per_byte:.4f}", f"{formula.bytes_in_sequence / (4 * elements):.4f}",
        f"{traffic.bytes_sent / (4 * elements):.4f}", f"{max(errors):.2f}",
        *(f"{t:.3f}" for t in milliseconds),
    ]  # fmt: skip
    return cells, wrong


COLUMNS = [
    "grid", "algorithm", "rounds", "formula", "hops", "bytes in sequence / n", "formula",
    "bytes sent / n", "rounding error / bound", "LeNet, ms", "ResNet-50, ms",
]  # fmt: skip
TEXT = """# A ring all-reduce in two dimensions, counted

{provenance}

Made by `benchmarks/ring_all_reduce.py`. An array of n bytes on each device of a grid is summed: by
one ring through all devices (`ring`), along the rows and then the columns (`torus`), and so in two
halves with the dimensions swapped (`torus_in_halves`), as in Ying et al. 2018. Rounds, hops and
bytes are counted in the program that XLA compiled for logical CPU devices, "formula" is what
`tf_largebatch.costs` says. Rounds follow one another: the longest chain of exchanges that need each
other's results, or those that share one dimension's links, whichever is more. Hops are the links
crossed meanwhile.

{table}

Checked on every device, with arrays of {sizes} float32 numbers: sums of whole numbers must be
exact, those of normal ones within the error bound (p - 1) u Σ|x| of adding p numbers, of which the
column gives the largest share; rounds and bytes must be the formulas'. {verdict}

With the side N of a square grid the torus's rounds grow as N, the ring's as N². The bytes that a
device sends are the same for all three; the halves keep both dimensions' links busy, and so pass
half of them one after the other on a square. On other grids the longer dimension bounds them:
fewer bytes in sequence than `torus`, but more rounds.

The last two columns are predictions, not measurements: hops times latency plus bytes in sequence
over bandwidth, with the figures of a link that `costs.NETWORKS["{network}"]` names, for the
gradients of LeNet-5 (61,706 parameters) and ResNet-50 (25,557,032). Nothing ran on such links.
"""


def _grid(text):
    rows, columns = (int(side) for side in text.split("x"))
    if min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(text)
    return rows, columns


def main():
    """Counts, checks, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", nargs="+", type=_grid, default=[(2, 2), (2, 4), (4, 4), (8, 8)],
                        help="rows x columns, such as 4x4; at least 2 devices")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 17, 1000, 65_537],
                        help="elements of the arrays that are summed")  # fmt: skip
    parser.add_argument("--out", type=pathlib.Path, help="folder for ring_all_reduce.md")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(rows * columns for rows, columns in flags.grids))
    found = [examine(a, *grid, flags.sizes) for grid in flags.grids for a in FORMULAS]
    wrong = [what for _, whats in found for what in whats]
    verdict = f"WRONG: {'; '.join(wrong)}." if wrong else "All of it holds."
    text = TEXT.format(
        provenance=_report.provenance(("jax", "numpy")), network=NETWORK.name, verdict=verdict,
        table=_report.table(COLUMNS, [cells for cells, _ in found]),
        sizes=", ".join(f"{size:,}" for size in flags.sizes),
    )  # fmt: skip
    print(text)
    if flags.out:
        _report.write(flags.out / "ring_all_reduce.md", text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
