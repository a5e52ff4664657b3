"""What 16 logical devices sum and send: python ring_job.py FILE writes it to an .npz file."""

import json
import sys

import jax
import numpy as np

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 16)

from benchmarks import _traffic, ring_all_reduce  # noqa: E402

ALGORITHMS = ("ring", "torus", "torus_in_halves")
# Sizes to sum, most of which don't divide; the size to count.
GRIDS = {(2, 2): ((1, 37), 96), (2, 4): ((37,), 96), (4, 4): ((37,), 512), (3, 3): ((5,), 5),
         (1, 4): ((6,), 6)}  # fmt: skip


def inputs(rows, columns, elements, kind):
    """(devices, elements), float32: whole numbers, or numbers of very different sizes."""
    random = np.random.default_rng([rows, columns, elements])
    shape = rows * columns, elements
    if kind == "whole":
        return random.integers(-(2**18), 2**18, shape).astype("float32")
    return (random.normal(size=shape) * 10.0 ** random.integers(-4, 5, shape)).astype("float32")


def main(path):
    """Runs and counts all algorithms on all grids."""
    found, counted = {}, {}
    for grid, (sizes, size_to_count) in GRIDS.items():
        for algorithm in ALGORITHMS:
            reduce = ring_all_reduce.on_grid(algorithm, *grid)
            for elements in sizes:
                for kind in ("whole", "normal"):
                    key = f"{algorithm} {grid} {elements} {kind}"
                    numbers = inputs(*grid, elements, kind)
                    found[f"{key} inputs"] = numbers
                    found[key] = np.asarray(reduce(numbers))
            program = ring_all_reduce.compiled_text(algorithm, *grid, size_to_count)
            counted[f"{algorithm} {grid}"] = _traffic.count(program, *grid)
    # What the script says of a wrong formula, and of a ring that passes nothing on.
    right = ring_all_reduce.examine("ring", 2, 2, [8])[1]
    ring_all_reduce.FORMULAS["ring"] = ring_all_reduce.FORMULAS["torus"]
    formula = ring_all_reduce.examine("ring", 2, 2, [8])[1]
    ring_all_reduce.on_grid.cache_clear()
    ring_all_reduce.Ring.pass_on = lambda self, array: array
    sums = ring_all_reduce.examine("torus", 2, 2, [8])[1]
    said = json.dumps({"counted": counted, "right": right, "formula": formula, "sums": sums})
    np.savez(path, said=said, **found)


if __name__ == "__main__":
    main(sys.argv[1])
