"""A Cloud TPU as a `tf.distribute.TPUStrategy`, or one error that says why there is none.

Tested up to where TensorFlow takes hold of the device; on a TPU it has not been run.
"""

import contextlib
import importlib.metadata
import os
import socket
from pathlib import Path

import tensorflow as tf

# Where TensorFlow looks for a TPU that isn't named, in this order. The others are set on machines
# that have one.
NAMED_BY = ("KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS", "TPU_NAME", "TPU_CONFIG")
VARIABLES = (*NAMED_BY, "COLAB_TPU_ADDR", "TPU_WORKER_HOSTNAMES", "TPU_LIBRARY_PATH")
PACKAGES = ("tensorflow-tpu", "libtpu")
LOOKED_FOR = (
    f"the variables {', '.join(VARIABLES)}; the devices /dev/accel[0-9]*, /dev/vfio/[0-9]*; the "
    f"packages {', '.join(PACKAGES)}; TensorFlow's TPU devices"
)
# For the metadata server and for a TPU's workers, where TensorFlow would wait without end.
ANSWER_SECONDS = 10


def make_tpu_strategy(name="", *, zone=None, project=None, resolver=None):
    """The strategy whose replicas are a TPU's cores, made as TensorFlow's guide "Use TPUs" says.

    Args:
        name: "local": the TPU of this machine (a TPU VM). Otherwise a TPU's name, or the address of
            its worker, "grpc://10.0.0.2:8470" (of several: with commas). "": what the variables
            KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS, TPU_NAME or TPU_CONFIG say.
        zone, project: where a named TPU is; None: the metadata server of Google Cloud is asked.
        resolver: a `tf.distribute.cluster_resolver.TPUClusterResolver`, instead of the above.

    Returns:
        A `tf.distribute.TPUStrategy`. What the TPU held before is lost.

    Raises:
        ValueError: if no TPU is found. It is said within seconds, with one exception: off a TPU VM
            `import tensorflow` itself waits for minutes where tensorflow-tpu is installed; the
            variable TPU_SKIP_MDS_QUERY=1 prevents that.

    Source: https://www.tensorflow.org/guide/tpu.
    """
    # TensorFlow takes an empty variable for a name, and "local" for one if a variable says it.
    name = name or next(filter(None, map(os.environ.get, NAMED_BY[:2])), "")
    received = f"tpu={name!r}, tpu_zone={zone!r}, tpu_project={project!r}"
    # Each step catches what it was seen to raise where there is no TPU, and nothing else.
    with _explained(received, OSError, RuntimeError, ValueError), _limited_patience():
        if resolver is None:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
                tpu=name, zone=zone, project=project
            )
        jobs = resolver.cluster_spec().as_dict()
    workers = [address for addresses in jobs.values() for address in addresses]
    if workers:  # the TPU of this machine has none
        with _explained(received, OSError, tf.errors.UnimplementedError):
            for address in workers:
                _check_that_it_answers(address)
            tf.config.experimental_connect_to_cluster(resolver)
    # A plain TensorFlow raises the first one, tensorflow-tpu without a TPU the second.
    with _explained(received, tf.errors.NotFoundError, tf.errors.InternalError):
        tf.tpu.experimental.initialize_tpu_system(resolver)
    with _explained(received, IndexError):  # the system has no core
        return tf.distribute.TPUStrategy(resolver)


def signs_of_a_tpu(environment, tpu_devices, dev="/dev"):
    """What on this machine points to a TPU, as words; nothing is connected to.

    Args:
        environment: `os.environ`.
        tpu_devices: `tf.config.list_physical_devices("TPU")`.
        dev: the folder of devices.

    >>> signs_of_a_tpu({"TPU_NAME": "local", "HOME": "x"}, [], dev="nowhere")[0]
    'TPU_NAME=local'
    """
    signs = [f"{name}={environment[name]}" for name in VARIABLES if environment.get(name)]
    files = [*Path(dev).glob("accel[0-9]*"), *Path(dev).glob("vfio/[0-9]*")]
    signs += sorted(path.as_posix() for path in files)
    signs += [f"the package {name}" for name in _installed_packages()]
    return signs + [device.name for device in tpu_devices]


def _installed_packages():
    found = []
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return found


@contextlib.contextmanager
def _limited_patience():
    """New sockets of this process give up after ANSWER_SECONDS: TensorFlow sets no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _check_that_it_answers(address):
    """OSError if nothing listens at "host:port": TensorFlow would try again without end."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise OSError(f"the TPU's worker {address} can't be reached: {error}") from error


@contextlib.contextmanager
def _explained(received, *errors):
    """Turns these errors into one that says what was looked for, and how to mend it."""
    try:
        yield
    except errors as error:
        answer = " ".join(str(error).split())[:300]
        signs = signs_of_a_tpu(os.environ, tf.config.list_physical_devices("TPU"))
        plain = (
            ""
            if _installed_packages()
            else " Neither tensorflow-tpu nor libtpu is installed: a plain TensorFlow can't use a "
            "TPU of its own machine."
        )
        raise ValueError(
            f"There is no TPU for strategy=tpu. Received: {received}. The answer to TensorFlow "
            f"{tf.__version__}: {type(error).__name__}: {answer}. Looked for: {LOOKED_FOR}. "
            f"Found: {', '.join(signs) or 'nothing'}.{plain} On a TPU VM install "
            "tf-largebatch[tpu], without another TensorFlow beside it, and give tpu=local. A TPU "
            "elsewhere needs its address, tpu=grpc://10.0.0.2:8470, or its name with tpu_zone and "
            "tpu_project, and the package cloud-tpu-client. Without a TPU choose strategy=auto."
        ) from error
