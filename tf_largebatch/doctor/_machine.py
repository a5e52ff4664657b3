"""The machine: what is installed, which devices there are, which strategies run on them."""

import contextlib
import importlib.metadata
import importlib.util
import json
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
TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "TPU_WORKER_HOSTNAMES", "TPU_LIBRARY_PATH")
NOT_YET = "not offered yet by train.py"


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
    state, workers, note = "not offered", None, "TF_CONFIG isn't set"
    if text := environment.get("TF_CONFIG"):
        try:
            workers, note = read_tf_config(text)
        except ValueError as error:
            state = "warning"
            note = f"TF_CONFIG is malformed: {error}. TensorFlow reads it: mend it, or unset it"
    return [Finding("strategies", "multi_worker", state, workers, f"{NOT_YET}; {note}")]


def tpu(tensorflow, environment=os.environ):
    """Signs of a TPU; nothing is connected to."""
    seen = [f"{name}={environment[name]}" for name in TPU_VARIABLES if environment.get(name)]
    seen += ["the package libtpu"] if importlib.util.find_spec("libtpu") else []
    seen += [device.name for device in tensorflow.config.list_physical_devices("TPU")]
    note = f"found: {', '.join(seen)}"
    if not seen:
        note = (
            f"no TPU: looked for {', '.join(TPU_VARIABLES)}, the package libtpu, TPU devices. "
            "Without a name TPUClusterResolver refuses: 'Please provide a TPU Name to connect to.'"
        )
    return [Finding("strategies", "tpu", "not offered", seen, f"{NOT_YET}; {note}")]


def read_tf_config(text):
    """(number of workers, what it says) of a TF_CONFIG; ValueError says what is wrong with it.

    >>> task = {"type": "worker", "index": 1}
    >>> read_tf_config(json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": task}))
    (2, 'TF_CONFIG: this is worker 1 at b:1; worker: a:1, b:1')
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it isn't JSON ({error})") from None
    config = config if isinstance(config, dict) else {}
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not cluster or not isinstance(task, dict):
        raise ValueError('it must be an object with the objects "cluster" and "task"')
    for role, hosts in cluster.items():
        if not isinstance(hosts, list) or not hosts or not all(
            isinstance(host, str) and re.fullmatch(r".+:\d+", host) for host in hosts
        ):  # fmt: skip
            raise ValueError(f'the cluster\'s "{role}" must list "host:port". Received: {hosts!r}')
    role, index = task.get("type"), task.get("index")
    hosts = cluster.get(role, ()) if isinstance(role, str) else ()
    if type(index) is not int or not 0 <= index < len(hosts):
        raise ValueError(f"the cluster has no such task. Received: type={role!r}, index={index!r}")
    workers = len(cluster.get("worker", ())) + len(cluster.get("chief", ()))
    listed = "; ".join(f"{name}: {', '.join(several)}" for name, several in cluster.items())
    return workers, f"TF_CONFIG: this is {role} {index} at {hosts[index]}; {listed}"
