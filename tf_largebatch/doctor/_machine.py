"""The machine: what is installed, which devices there are, which strategies run on them."""

import contextlib
import importlib.metadata
import os
import platform
import re

from tf_largebatch.doctor._report import Finding

REQUIRED = {"Python": (3, 11), "keras": (3, 15), "TensorFlow": (2, 19)}
# They install the same folder, `tensorflow`: of two, the files of the later one have won.
TENSORFLOWS = (
    "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tensorflow-rocm", "tf-nightly",
    "tf-nightly-cpu",
)  # fmt: skip
OTHERS = (
    "numpy", "jax", "optax", "keras-hub", "scikit-learn", "tensorboard", "tensorflow-datasets",
    "numba",
)  # fmt: skip


def installed(backend):
    """Versions, and whether they are supported."""
    yield _versioned("Python", platform.python_version())
    yield _versioned("keras", _version("keras"))
    known = backend in ("tensorflow", "jax")
    note = {"tensorflow": "", "jax": "the optimizers run on it; the trainer needs TensorFlow's"}
    untested = "neither tested nor supported: set KERAS_BACKEND=tensorflow or jax"
    yield Finding(
        "installed", "backend", "ok" if known else "warning", backend, note.get(backend, untested)
    )
    found = {name: version for name in TENSORFLOWS if (version := _version(name))}
    for name, version in found.items():
        yield _versioned("TensorFlow", version, name)
    if len(found) > 1:
        note = "they overwrite each other's files: uninstall all of them, then install one again"
        yield Finding("installed", "TensorFlow twice", "warning", list(found), note)
    if not found:
        state = "failed" if backend == "tensorflow" else "absent"
        note = "install one of tf-largebatch's extras: [cpu], [gpu], [tpu]"
        yield Finding("installed", "TensorFlow", state, None, note)
    for name in OTHERS:
        version = _version(name)
        yield Finding("installed", name, "ok" if version else "absent", version)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versioned(what, version, distribution=None):
    numbers = tuple(int(n) for n in re.findall(r"\d+", version or "")[:2])
    least, name = ".".join(map(str, REQUIRED[what])), distribution or what
    if numbers >= REQUIRED[what]:
        return Finding("installed", name, "ok", version, f"supported: {least} or later")
    return Finding("installed", name, "failed", version, f"too old or missing: needs {least}")


def devices(tensorflow):
    """Cores, memory in GiB (2^30 bytes), and what TensorFlow (a module, or None) sees."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu_cores", "ok", usable, f"of {os.cpu_count()} in the machine")
    for name, size in memory_gib().items():
        yield Finding("devices", f"memory_{name}_gib", "ok", size)
    if tensorflow is None:
        return
    config = tensorflow.config
    gpus = config.list_physical_devices("GPU")
    yield Finding("devices", "gpus", "ok", len(gpus), "" if gpus else "TensorFlow sees none")
    for i, gpu in enumerate(gpus):
        details = config.experimental.get_device_details(gpu)
        used = config.experimental.get_memory_info(f"GPU:{i}")["current"]
        note = f"compute capability {details.get('compute_capability')}; bytes in use: {used}"
        yield Finding("devices", f"gpu_{i}", "ok", details.get("device_name"), note)
    logical = [device.name for device in config.list_logical_devices()]
    yield Finding("devices", "logical_devices", "ok", len(logical), ", ".join(logical))


def memory_gib(meminfo="/proc/meminfo"):
    """{"total": ..., "available": ...}, as far as the system says so."""
    found = {}
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found["total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with contextlib.suppress(OSError), open(meminfo, encoding="ascii") as file:
        sizes = dict(re.findall(r"^Mem(Total|Available):\s+(\d+) kB", file.read(), re.MULTILINE))
        found |= {name.lower(): int(size) / 2**20 for name, size in sizes.items()}
    return {name: round(size, 1) for name, size in found.items()}


def offered(name, replicas):
    """A strategy that make_strategy offers is made, to be sure."""
    from tf_largebatch.training.strategy import make_strategy

    made = make_strategy(name, num_replicas=replicas)
    used = ", ".join(device.rpartition("device:")[2] for device in made.extended.worker_devices)
    return [Finding("strategies", name, "works", made.num_replicas_in_sync, used)]


def multi_worker(environment=os.environ):
    """What TF_CONFIG says, if anything; value: the number of workers."""
    from tf_largebatch.training.workers import read_tf_config

    text = environment.get("TF_CONFIG")
    if not text:
        note = "TF_CONFIG isn't set; --workers and --worker_index of train.py say the same"
        return [Finding("strategies", "multi_worker", "skipped", None, note)]
    try:
        workers, index = read_tf_config(text)
    except ValueError as error:
        note = f"{error} TensorFlow reads it, too: mend it, or unset it"
        return [Finding("strategies", "multi_worker", "warning", None, note)]
    note = "TF_CONFIG names no cluster"
    if workers:
        note = f"TF_CONFIG: this is worker {index} of {', '.join(workers)}; they aren't called"
    return [Finding("strategies", "multi_worker", "skipped", len(workers), note)]


def tpu(tensorflow, environment=os.environ):
    """Signs of a TPU; nothing is connected to."""
    from tf_largebatch.training.tpu import LOOKED_FOR, signs_of_a_tpu

    signs = signs_of_a_tpu(environment, tensorflow.config.list_physical_devices("TPU"))
    if not signs:
        return [Finding("strategies", "tpu", "not offered", signs, f"no sign of {LOOKED_FOR}")]
    note = f"found: {', '.join(signs)}; not tried: a run with strategy=tpu says whether it works"
    return [Finding("strategies", "tpu", "skipped", signs, note)]
