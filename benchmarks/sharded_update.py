"""A sharded weight update beside the replicated one: results, bytes, state, time.

    PYTHONPATH=. python benchmarks/sharded_update.py --out docs/results

In data parallelism every replica makes the same update. Sharded (Xu et al. 2020, arXiv:2004.13336;
the first stage of ZeRO, arXiv:1910.02054), each of N replicas holds the slots of 1/N of a
variable's rows, updates these, and gathers the rest. A variable is cut along its first dimension
that N divides; one without any stays replicated.

On JAX: logical CPU devices, `stateless_apply` compiled with shardings of its arguments. Checked, or
the script ends with code 1: all programs agree with float64 NumPy, and a reduce-scatter, update and
gather send what an all-reduce does, and but two scalars more for each adapted variable that is cut.

Under MirroredStrategy: gradients are summed whole, and slots are mirrored. Measured is the most
that sharding could win there, the update of 1/N of the rows, against what the gathering costs.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

import numpy as np

from benchmarks import _report
from benchmarks._sharded_job import UPDATES_CHECKED, cut_dimension

ROOT = pathlib.Path(__file__).resolve().parents[1]
OPTIMIZERS = ("LAMB", "LARS")
TOLERANCE = 1e-3  # of a variable's largest step
# BERT-base: its embeddings, one of its 12 layers' kinds of kernels and biases, and its heads'.
BERT_BASE_PART = {
    "word_embeddings": (30522, 768),
    "position_embeddings": (512, 768),
    "query/kernel": (768, 12, 64),
    "attention_output/kernel": (12, 64, 768),
    "attention_output/bias": (768,),
    "intermediate/kernel": (768, 3072),
    "intermediate/bias": (3072,),
    "output/kernel": (3072, 768),
    "mlm_head/output_bias": (30522,),
    "next_sentence/kernel": (768, 2),
    "next_sentence/bias": (2,),
}


def bytes_of_algorithm(program, shapes, devices):
    """(bytes that a device must send, bytes of scalars that it may send beside): the formula.

    Around a ring an all-reduce of n bytes sends 2 (p-1)/p n, a reduce-scatter and a gather half
    of it each. None for `shardings`, where the compiler chooses between these.
    """
    if program == "shardings":
        return None
    factor = 2 * (devices - 1) / devices
    cut = [name for name, shape in shapes.items() if cut_dimension(shape, devices) is not None]
    norms = 0 if program == "replicated" else sum("bias" not in name for name in cut)
    return factor * 4 * sum(map(math.prod, shapes.values())), factor * 2 * 4 * norms


def in_process(kind, name, devices, shapes, rounds):
    """What `_sharded_job.py` finds."""
    job = {"kind": kind, "name": name, "devices": devices, "shapes": shapes, "rounds": rounds}
    done = subprocess.run(
        [sys.executable, "benchmarks/_sharded_job.py"], input=json.dumps(job), cwd=ROOT,
        capture_output=True, text=True, check=False,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "jax" if kind == "jax" else "tensorflow",
        },
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} ({kind}) failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def wrong(name, devices, shapes, found):
    """Sentences on what `measure_jax` found and shouldn't have."""
    sentences = []
    for program, one in found.items():
        where = f"{name} on {devices} devices, {program}"
        if not one["error"] <= TOLERANCE:
            sentences.append(f"{where}: off by {one['error']:.2g} of a step")
        formula = bytes_of_algorithm(program, shapes, devices)
        if formula and not -1 < one["sent"] - formula[0] <= formula[1] + 1:
            times = one["sent"] / formula[0]
            sentences.append(f"{where}: sends {times:.3f} times what the algorithm needs")
    return sentences


def rows_of_jax(name, devices, shapes, found):
    """Cells of the table, a row for each program."""
    n, base = 4 * sum(map(math.prod, shapes.values())), found["replicated"]
    return [
        [
            devices, name, f"`{program}`",
            ", ".join(f"{many} {kind}" for kind, many in one["collectives"].items()),
            f"{one['sent'] / n:.4f}", f"{one['state'] / base['state']:.4f}", f"{one['error']:.1e}",
            _report.spread(np.divide(one["seconds"], base["seconds"]).tolist()),
        ]
        for program, one in found.items()
    ]  # fmt: skip


def ratios_of_mirrored(seconds):
    """By round: {what the table tells: ratios}, of what `measure_mirrored` returned."""
    s = {label: np.array(times) for label, times in seconds.items()}
    whole = s["update whole"]
    # The update of the rows summed these rows' gradients alone; all have to be summed.
    rows = s["update rows"] + s["sum whole"] - s["sum rows"]
    return {
        "gradients' sum": (s["sum whole"] / whole).tolist(),
        "update of the rows": (rows / whole).tolist(),
        "gather": (s["gather"] / whole).tolist(),
        "sharded in all": ((rows + s["gather"]) / whole).tolist(),
        "gather / saved": (s["gather"] / (whole - rows)).tolist(),
    }


COLUMNS_OF_JAX = ["devices", "", "program", "collectives", "bytes sent / n", "state a device",
                  "error / step", "time / replicated's"]  # fmt: skip
COLUMNS_OF_MIRRORED = ["replicas", "", "sum of all gradients", "sum, update of 1/N of the rows",
                       "gather", "sharded in all", "gather / saved by 1/N"]  # fmt: skip
TEXT = """# A sharded weight update, beside the replicated one

{provenance}

Made by `benchmarks/sharded_update.py`, on {variables} variables of BERT-base ({parameters:,}
parameters, n = {megabytes:.1f} MB of float32): embeddings, the kernels and biases of a layer, and
those of the heads. Each replica updates its share of a variable, cut along the first dimension that
the number of devices divides, and keeps the slots of that share alone; then the weights are
gathered. What has no such dimension stays replicated: {uncut}.

## On JAX

`optimizer.stateless_apply` compiled by `jax.jit` for a mesh of logical CPU devices, each with
gradients of its own. `replicated`: these are summed, and all devices make the same update.
`shardings`: slots and summed gradients are cut by their shardings alone, and the compiler chooses
the collectives. `reduce_scatter`: the gradients are summed by `jax.lax.psum_scatter`, the rest as
before. Collectives are counted in the compiled program; the bytes are those that a device sends if
they go around a ring. Conditional branches, which run only when a norm leaves float32's accurate
range, are left out. State: the slots that a device holds, over those of `replicated`. Error: the
largest of any weight on any device after {updates} updates, against NumPy in float64, over the
variable's largest step.

{jax_table}

Checked: errors are at most {tolerance:g}; `replicated` and `reduce_scatter` send 2 (N-1)/N n, and
but two numbers more for each adapted variable that is cut, for its norms. {verdict}

Times are medians (quartiles) of ratios within a round, of {rounds}. The devices are threads that
share {cores} cores and one memory: this is the sum of the work of all devices, with copies in place
of a network. It says nothing of accelerators, where nothing was run.

## Under tf.distribute

`MirroredStrategy` on {replicas} logical CPU devices. Its public functions have no reduce-scatter,
so that gradients are summed whole; and slots made in its scope are mirrored, so that a device saves
no memory. What remains to win is the update of 1/N of the rows. It is measured as an optimizer of
variables that have only these rows, with norms of them alone, which is less than a sharded update
must do; the sum of the other rows' gradients is added. The gather is `ReplicaContext.all_gather` of
the rows and the assignment to the whole variables. Cells are ratios to the whole update, its sum of
gradients included; medians (quartiles) of {rounds} rounds.

{mirrored_table}

At best an update so takes {sharded} of the time here. That leaves out the exchange of the norms,
and the gather is a copy within one memory.

The bytes say what to expect elsewhere. For a float32 parameter, each of N replicas sends 8 (N-1)/N
bytes in the sum of the gradients, and 4 (N-1)/N more in the gather: half as much again. It saves
40 (N-1)/N bytes of its own memory's traffic (LAMB on a large variable: a first pass reads weights,
gradient and slots and writes the slots, a second one reads weights and slots and writes the
weights). Where the network is slower than a tenth of a device's memory, that loses, whatever N is.
With a reduce-scatter, as on JAX, the gather is paid for by the smaller sum. That, and that no
memory is saved, is why the package offers no sharded update under tf.distribute.
"""


def main():
    """Measures, checks, prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", nargs="+", type=int, default=[2, 4], help="on JAX")
    parser.add_argument("--replicas", type=int, default=2, help="under MirroredStrategy")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement")
    parser.add_argument("--out", type=pathlib.Path, help="folder for sharded_update.md")
    flags = parser.parse_args()
    shapes, rounds = BERT_BASE_PART, flags.rounds
    of_jax, of_mirrored, sentences, sharded = [], [], [], []
    for devices in flags.devices:
        for name in OPTIMIZERS:
            found = in_process("jax", name, devices, shapes, rounds)
            of_jax += rows_of_jax(name, devices, shapes, found)
            sentences += wrong(name, devices, shapes, found)
            print(f"{name} on {devices} devices: {found}", file=sys.stderr, flush=True)
    for name in OPTIMIZERS:
        seconds = in_process("mirrored", name, flags.replicas, shapes, rounds)
        ratios = ratios_of_mirrored(seconds)
        of_mirrored.append([flags.replicas, name, *map(_report.spread, ratios.values())])
        sharded.append(statistics.median(ratios["sharded in all"]))
        print(f"{name} on {flags.replicas} replicas: {seconds}", file=sys.stderr, flush=True)
    parameters = sum(map(math.prod, shapes.values()))
    uncut = [
        f"`{key}` on {devices} devices"
        for devices in flags.devices for key, shape in shapes.items()
        if cut_dimension(shape, devices) is None
    ]  # fmt: skip
    text = TEXT.format(
        provenance=_report.provenance(("tensorflow", "keras", "jax", "numpy")), rounds=rounds,
        variables=len(shapes), parameters=parameters, megabytes=4e-6 * parameters,
        uncut=", ".join(uncut) or "none here", updates=UPDATES_CHECKED, tolerance=TOLERANCE,
        jax_table=_report.table(COLUMNS_OF_JAX, of_jax), cores=_report.cores(),
        verdict=f"WRONG: {'; '.join(sentences)}." if sentences else "All of it holds.",
        replicas=flags.replicas, sharded=" and ".join(f"{median:.2f}" for median in sharded),
        mirrored_table=_report.table(COLUMNS_OF_MIRRORED, of_mirrored),
    )  # fmt: skip
    print(text)
    if flags.out:
        _report.write(flags.out / "sharded_update.md", text)
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
