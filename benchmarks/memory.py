"""Memory of one update by ours, Keras' own and optax' optimizers, on BERT-base's shapes.

    PYTHONPATH=. python benchmarks/memory.py --out docs/results

Each contestant is a process of its own. When weights, gradients and state are there and three
updates have run, in which functions are traced and compiled, the kernel's peak of the resident set
is set back before each further update and read after it; what it exceeds the resident set before
by is the update's temporary memory. So that what was freed doesn't count as held, blocks from 1 MiB
on are taken from the system and given back to it (MALLOC_MMAP_THRESHOLD_), and oneDNN is off, whose
pool gives nothing back (an update has no operation that it speeds up). Needs Linux.

The bars: ours holds at most 1.05 times the state of Keras' Lamb, and an update's temporary memory
is at most two copies of the largest variable; where XLA compiles the whole step, which then decides
what it keeps, at most two more than with Keras' Lamb. The script ends with code 1 where one is
missed.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import _report

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).resolve().parents[1]
WARM_UP = 3  # updates that aren't measured
STATE_BAR = 1.05  # of Keras' Lamb
COPIES_BAR = 2.0  # of the largest variable
OURS = ("LAMB", "LAMB, XLA", "NLAMB", "LARS")
CONTESTANTS = (
    *OURS, "keras Lamb", "keras Lamb, XLA", "keras AdamW, XLA", "optax.lamb", "optax.lars",
)  # fmt: skip


def resident_bytes(key="VmRSS"):
    """The resident set of this process, or its peak, "VmHWM"."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status doesn't tell {key}.")


def temporary_bytes(function):
    """By how much the resident set rises above what it was, at most, while the function runs."""
    settle()
    before = resident_bytes()
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    function()
    return resident_bytes("VmHWM") - before


def settle():
    """Frees what nobody holds, back to the system."""
    gc.collect()
    time.sleep(0.2)  # JAX frees what a program worked with some time after its results are ready
    ctypes.CDLL(None).malloc_trim(0)


def arrays(shapes, scale, seed):
    """Normal numbers of these shapes, float32, one array at a time."""
    import numpy as np

    random = np.random.default_rng(seed)
    return (random.standard_normal(shape, dtype="float32") * np.float32(scale) for shape in shapes)


def keras_update(name, shapes):
    """(function that makes an update, bytes of the optimizer's state)."""
    import keras
    import tensorflow as tf

    from tf_largebatch import BIAS_AND_NORM, LAMB, LARS, NLAMB

    optimizer = {
        "LAMB": lambda: LAMB(1e-3, exclude_from_weight_decay=[BIAS_AND_NORM]),
        "NLAMB": lambda: NLAMB(1e-3, exclude_from_weight_decay=[BIAS_AND_NORM]),
        "LARS": lambda: LARS(1.0, exclude_from_weight_decay=[BIAS_AND_NORM]),
        "keras Lamb": lambda: keras.optimizers.Lamb(1e-3),
        "keras AdamW": lambda: keras.optimizers.AdamW(1e-3),
    }[name.removesuffix(", XLA")]()
    variables = [
        keras.Variable(array, name="kernel" if array.ndim > 1 else "bias")
        for array in arrays(shapes, 0.02, 1)
    ]
    gradients = [tf.constant(array) for array in arrays(shapes, 1e-3, 2)]
    optimizer.build(variables)

    @tf.function(jit_compile=name.endswith("XLA"))
    def update():
        optimizer.apply(gradients, variables)

    return update, sum(v.numpy().nbytes for v in optimizer.variables)


def optax_update(name, shapes):
    """The same by optax, compiled, weights and state donated so that they can be reused."""
    import jax
    import optax

    def decayed(tree):
        return [w.ndim > 1 for w in tree]

    optimizer = {
        "optax.lamb": lambda: optax.lamb(1e-3, weight_decay=0.01, mask=decayed),
        "optax.lars": lambda: optax.lars(
            1.0, weight_decay=1e-4, weight_decay_mask=decayed, trust_ratio_mask=decayed
        ),
    }[name]()
    weights = [jax.numpy.array(array, copy=True) for array in arrays(shapes, 0.02, 1)]
    gradients = [jax.numpy.array(array, copy=True) for array in arrays(shapes, 1e-3, 2)]
    held = [weights, optimizer.init(weights)]
    del weights

    def new(weights, state, gradients):
        changes, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, changes), state

    compiled = jax.jit(new, donate_argnums=(0, 1))

    def update():
        held[:] = compiled(*held, gradients)
        jax.block_until_ready(held)

    return update, sum(leaf.nbytes for leaf in jax.tree.leaves(held[1]))


def measure(name, shapes, updates):
    """What a process of its own finds for a contestant, in bytes."""
    make = optax_update if name.startswith("optax") else keras_update
    # The libraries start, and take what they need once, on something small.
    small, _ = make(name, [(8, 8), (8,)])
    small()
    del small
    settle()
    empty = resident_bytes()
    update, state = make(name, shapes)
    settle()
    built = resident_bytes()
    expected = 8 * sum(map(math.prod, shapes)) + state  # weights, gradients, state
    for _ in range(WARM_UP):
        update()
    settle()
    kept = resident_bytes() - built
    temporary = [temporary_bytes(update) for _ in range(updates)]
    return {"state": state, "held": (built - empty) / expected, "kept": kept,
            "temporary": temporary}  # fmt: skip


def in_process(name, shapes, updates):
    """`measure`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", name, "--updates", str(updates)],
        input=json.dumps(shapes), capture_output=True, text=True, cwd=ROOT, check=False,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow",
            "JAX_PLATFORMS": "cpu", "TF_ENABLE_ONEDNN_OPTS": "0",
            "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20),
        },
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if not 0.95 < found["held"] < 1.1:
        raise RuntimeError(
            f"{name}: weights, gradients and state should be resident, no less and little more. "
            f"Received: {found['held']:.2f} times their bytes. Is the system swapping?"
        )
    return found


def missed_bars(found, largest_bytes):
    """Sentences on the bars that ours misses.

    Args:
        found: what `measure` returned, by contestant; "keras Lamb" among them, and
            "keras Lamb, XLA" if there is "LAMB, XLA".
        largest_bytes: of the largest variable.
    """
    missed = []
    for name in OURS:
        if name in found:
            state = found[name]["state"] / found["keras Lamb"]["state"]
            copies = max(found[name]["temporary"]) / largest_bytes
            if name.endswith(", XLA"):
                copies -= max(found["keras Lamb, XLA"]["temporary"]) / largest_bytes
            if state > STATE_BAR:
                missed.append(f"{name} holds {state:.3f} times the state of Keras' Lamb")
            if copies > COPIES_BAR:
                more = " more than Keras' Lamb" * name.endswith(", XLA")
                missed.append(f"{name} takes {copies:.2f} copies of the largest variable{more}")
    return missed


def bert_base_shapes():
    """The shapes of its trainable variables."""
    import models

    model = models.build("bert_base", task="masked_lm", vocabulary_size=30522)
    return [list(v.shape) for v in model.trainable_variables]


TEXT = """# Memory of one update on BERT-base's shapes

{provenance}

Made by `benchmarks/memory.py`: {variables} variables, {parameters:,} parameters of float32, the
largest {largest} ({largest_mb:.1f} MB); each contestant in a process of its own. Temporary: how far
the resident set rises while an update runs, the most of {updates} updates after {warm_up} that
aren't counted. Kept: what is resident after those beyond weights, gradients and state, such as
compiled programs. The last column is a check of the method: resident bytes of weights, gradients
and state over their sizes. MB are 10^6 bytes.

{table}

Bars for ours: state at most {state_bar} times that of Keras' Lamb, temporary memory at most
{copies_bar:g} copies of the largest variable, or, where XLA compiles the whole step, {copies_bar:g}
more than Keras' Lamb takes there. {verdict}
"""
COLUMNS = ["", "state, MB", "over keras Lamb's", "temporary, MB", "in copies of the largest",
           "kept, MB", "resident / expected"]  # fmt: skip


def main():
    """Measures, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS,
                        help="contestants; Keras' Lamb is always measured")  # fmt: skip
    parser.add_argument("--updates", type=int, default=5, help="measured of each contestant")
    parser.add_argument("--out", type=pathlib.Path, help="folder for memory.md")
    parser.add_argument("--measure", choices=CONTESTANTS, metavar="CONTESTANT",
                        help="measure it here; shapes are read as JSON")  # fmt: skip
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(flags.measure, json.load(sys.stdin), flags.updates)))
        return 0
    shapes = bert_base_shapes()
    largest = max(shapes, key=math.prod)
    largest_bytes = 4 * math.prod(largest)
    found, rows = {}, []
    for name in CONTESTANTS:
        if name in flags.only or name in ("keras Lamb", "keras Lamb, XLA"):
            found[name] = in_process(name, shapes, flags.updates)
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    for name, one in found.items():
        most = max(one["temporary"])
        rows.append(
            [name, f"{one['state'] / 1e6:.1f}",
             f"{one['state'] / found['keras Lamb']['state']:.3f}", f"{most / 1e6:.1f}",
             f"{most / largest_bytes:.2f}", f"{one['kept'] / 1e6:.1f}", f"{one['held']:.3f}"]
        )  # fmt: skip
    missed = missed_bars(found, largest_bytes)
    verdict = f"MISSED: {'; '.join(missed)}." if missed else "All of ours hold both."
    text = TEXT.format(
        provenance=_report.provenance(), variables=len(shapes), updates=flags.updates,
        parameters=sum(map(math.prod, shapes)), largest="x".join(map(str, largest)),
        largest_mb=largest_bytes / 1e6, warm_up=WARM_UP, table=_report.table(COLUMNS, rows),
        state_bar=STATE_BAR, copies_bar=COPIES_BAR, verdict=verdict,
    )  # fmt: skip
    print(text)
    if flags.out:
        _report.write(flags.out / "memory.md", text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
