"""The time of one update by ours, Keras' own, optax' and TFA's optimizers, on the same shapes.

    PYTHONPATH=. python benchmarks/update_step.py --shapes bert_base --rounds 9
    PYTHONPATH=. python benchmarks/update_step.py --shapes tiny resnet50 --only lamb keras_lamb

In every round each contestant makes one update; given are medians over the rounds of the time a
parameter and of its ratio to others within the round, with quartiles. The gradients lie in memory;
what is timed is the optimizer's step alone. `copy` copies 40 bytes a parameter (five arrays of
float32 read and written), on all cores.

Contestants: in a graph as `fit` runs it on CPUs, and under XLA as `fit(jit_compile=True)`; optax
under `jax.jit` with weights and state donated. TensorFlow Addons needs an older TensorFlow, and so
an environment of its own (`_tfa_step.py` says how it is made), named by --tfa_python.
"""

import argparse
import concurrent.futures
import functools
import gc
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import models
from benchmarks import _report
from tf_largebatch import BIAS_AND_NORM, LAMB, LARS

# What the others are compared with.
REFERENCES = ("copy", "keras_lamb", "keras_lamb_xla", "optax_lamb", "optax_lars", "tfa_lamb")
ABOUT = """Medians over the rounds, in which the contestants take turns, with the quartiles of the
time; ratios are formed within a round. `copy` reads and writes 40 bytes a parameter on all cores.
`_xla`: the whole step compiled by XLA; else a graph, as `fit` runs it on CPUs; optax under
`jax.jit`, weights and state donated. Made by `benchmarks/update_step.py`.
"""
WARM_UP = 2  # updates that aren't timed: functions are traced and compiled in them


def shapes_of(name):
    """The shapes of the trainable variables of a network, or of a thousand tiny ones."""
    if name == "tiny":
        return [((32, 32), (64,), (3, 3, 16, 16), (128, 8))[i % 4] for i in range(1000)]
    if name == "resnet50":
        model = models.build("resnet50", input_shape=(224, 224, 3), num_classes=1000)
    else:
        model = models.build("bert_base", task="masked_lm", vocabulary_size=30522)
    return [tuple(v.shape) for v in model.trainable_variables]


def arrays(shapes, scale, seed):
    """Normal numbers of these shapes, float32."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape, dtype="float32") * np.float32(scale) for shape in shapes]


def keras_step(optimizer, shapes, gradients, *, jit, updates=1):
    """A function that makes so many updates of variables of its own by these tensors."""
    names = ["kernel" if len(shape) > 1 else "bias" for shape in shapes]
    variables = [
        keras.Variable(array, name=name)
        for array, name in zip(arrays(shapes, 0.02, 1), names, strict=True)
    ]
    optimizer.build(variables)

    @tf.function(jit_compile=jit)
    def step():
        for _ in tf.range(updates) if updates > 1 else range(1):
            optimizer.apply(gradients, variables)

    return step


def optax_step(make, shapes, gradients):
    """The same by optax, compiled, the state updated in place."""
    import jax

    optimizer = make()
    state = [jax.numpy.asarray(a) for a in arrays(shapes, 0.02, 1)]
    state = [state, optimizer.init(state)]
    g = [jax.numpy.asarray(a) for a in gradients]

    def update(w, slots, g):
        import optax

        changes, slots = optimizer.update(g, slots, w)
        return optax.apply_updates(w, changes), slots

    compiled = jax.jit(update, donate_argnums=(0, 1))

    def step():
        state[:] = compiled(*state, g)
        jax.block_until_ready(state)

    return step


def tfa_step(python, shapes, jit):
    """The same by TensorFlow Addons' LAMB, in a process of another Python, which waits its turn."""
    script = pathlib.Path(__file__).with_name("_tfa_step.py")
    process = subprocess.Popen(
        [python, str(script), json.dumps({"shapes": shapes, "jit": jit})],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def step():
        print(file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{script.name} ended with exit code {process.wait()}.")
        return float(line)

    return step


def copy_step(parameters):
    """Copies 20 bytes a parameter, which is 40 read and written, by as many threads as cores."""
    cores = os.cpu_count() or 1
    source = [np.ones(math.ceil(parameters / cores), "float32") for _ in range(cores)]
    target = [np.empty_like(part) for part in source]
    pool = concurrent.futures.ThreadPoolExecutor(cores)

    def copy(part):
        for _ in range(5):
            np.copyto(target[part], source[part])  # without Python's lock

    def step():
        list(pool.map(copy, range(cores)))

    return step


def contestants(shapes, gradients, updates=1, tfa_python=None):
    """Functions that make the contestants' steps, by name."""
    import optax

    def decayed(tree):
        return [w.ndim > 1 for w in tree]

    ours = {"weight_decay": 0.01, "exclude_from_weight_decay": [BIAS_AND_NORM]}

    tensors = [tf.constant(g) for g in gradients]

    def by_keras(make, jit=False):
        return lambda: keras_step(make(), shapes, tensors, jit=jit, updates=updates)

    tfa = {
        f"tfa_lamb{'_xla' * jit}": functools.partial(tfa_step, tfa_python, shapes, jit)
        for jit in (False, True)
        if tfa_python
    }
    return {
        "copy": lambda: copy_step(sum(math.prod(shape) for shape in shapes)),
        "lamb": by_keras(lambda: LAMB(1e-3, **ours)),
        "lamb_xla": by_keras(lambda: LAMB(1e-3, **ours), jit=True),
        "keras_lamb": by_keras(lambda: keras.optimizers.Lamb(1e-3)),
        "keras_lamb_xla": by_keras(lambda: keras.optimizers.Lamb(1e-3), jit=True),
        "keras_adamw_xla": by_keras(lambda: keras.optimizers.AdamW(1e-3), jit=True),
        "optax_lamb": lambda: optax_step(
            lambda: optax.lamb(1e-3, weight_decay=0.01, mask=decayed), shapes, gradients
        ),
        "lars": by_keras(lambda: LARS(1.0, exclude_from_weight_decay=[BIAS_AND_NORM])),
        "optax_lars": lambda: optax_step(
            lambda: optax.lars(
                1.0, weight_decay=1e-4, weight_decay_mask=decayed, trust_ratio_mask=decayed
            ),
            shapes, gradients,
        ),
        **tfa,
    }  # fmt: skip


def measure(shapes, only, rounds, updates=1, tfa_python=None):
    """{name: seconds of an update in each round}."""
    gradients = arrays(shapes, 1e-3, 2)
    steps = {}
    for name, make in contestants(shapes, gradients, updates, tfa_python).items():
        if not only or name in only:
            began = time.perf_counter()
            steps[name] = make()
            for _ in range(WARM_UP):
                steps[name]()
            print(f"  {name}: ready in {time.perf_counter() - began:.1f} s", flush=True)
    gc.collect()
    found = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            said = step()  # the time, if it is another process's
            per_call = updates if name.split("_")[0] in ("lamb", "lars", "keras") else 1
            found[name].append(said or (time.perf_counter() - began) / per_call)
    return found


def page(name, shapes, found):
    """The part of the page about one list of shapes."""
    parameters = sum(math.prod(shape) for shape in shapes)
    others = [other for other in REFERENCES if other in found]
    rows = []
    for contestant, seconds in found.items():
        ratios = [
            statistics.median(s / t for s, t in zip(seconds, found[other], strict=True))
            for other in others
        ]
        shown = [
            f"{ratio:.2f}" if other != contestant else ""
            for other, ratio in zip(others, ratios, strict=True)
        ]
        rows.append([contestant, _report.spread([s / parameters * 1e9 for s in seconds]), *shown])
    columns = ["", "ns a parameter", *(f"x {other}" for other in others)]
    title = f"## {name}: {len(shapes)} variables, {parameters:,} parameters"
    return f"{title}\n\n{_report.table(columns, rows)}\n"


def main():
    """Measures, prints and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["bert_base"],
                        choices=["bert_base", "resnet50", "tiny"])  # fmt: skip
    parser.add_argument("--only", nargs="+", help="contestants; by default all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--updates_per_call", type=int, default=1,
                        help="updates in one call of a graph, as in the trainer")  # fmt: skip
    parser.add_argument("--tfa_python", help="a Python that has TensorFlow Addons")
    parser.add_argument("--out", help="folder for update_step.md; by default nothing is written")
    flags = parser.parse_args()
    parts = []
    for name in flags.shapes:
        shapes = shapes_of(name)
        found = measure(shapes, flags.only, flags.rounds, flags.updates_per_call, flags.tfa_python)
        parts.append(page(name, shapes, found))
        print(parts[-1], flush=True)
    if flags.out:
        head = f"# Time of one update\n\n{_report.provenance()}\n\n{ABOUT}\n"
        _report.write(pathlib.Path(flags.out, "update_step.md"), "\n".join([head, *parts]))


if __name__ == "__main__":
    sys.exit(main())
