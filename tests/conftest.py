"""What holds for every test: the devices it sees, and that it starts from a clean Keras."""

import os
import random

import numpy as np
import pytest

LOGICAL_DEVICES = 4


def share_of_cores():
    """How many threads one of the processes that share the cores may take."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


# Before TensorFlow or JAX is imported, and also for the processes that a test starts.
# A GPU is hidden, so that results do not depend on the machine, unless it is asked for:
# CUDA_VISIBLE_DEVICES=0 pytest -m gpu
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
GPU_IS_HIDDEN = os.environ["CUDA_VISIBLE_DEVICES"] in ("", "-1")
if GPU_IS_HIDDEN:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for _variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
):
    os.environ.setdefault(_variable, str(share_of_cores()))


def pytest_configure(config):
    """Splits the CPU into logical devices, before anything can initialise TensorFlow."""
    distributes = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if distributes:
        return  # this process runs no test itself: its workers come here too
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * LOGICAL_DEVICES,
        )


def pytest_ignore_collect(collection_path):
    """Looks for no doctests in the helpers of the tests."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


def pytest_collection_modifyitems(items):
    """Skips what this backend or this machine cannot run."""
    import keras

    backend = keras.backend.backend()
    for item in items:
        if item.get_closest_marker("tensorflow") and backend != "tensorflow":
            item.add_marker(pytest.mark.skip(reason=f"needs TensorFlow; the backend is {backend}"))
        if item.get_closest_marker("gpu") and GPU_IS_HIDDEN:
            item.add_marker(pytest.mark.skip(reason="needs a GPU and CUDA_VISIBLE_DEVICES=0"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """Fresh layer names and seeds for each test, Keras' global settings restored after it.

    A hook and not a fixture, so that it comes before the fixtures of a module, too.
    """
    import keras

    keras.utils.clear_session(free_memory=False)
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(0)
    else:
        # The function above would import TensorFlow. After `clear_session`, Keras draws the seed
        # of its own generator from `random`.
        random.seed(0)
        np.random.seed(0)
    policy = keras.config.dtype_policy()
    floatx = keras.config.floatx()
    result = yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    return result


@pytest.fixture(scope="session")
def main():
    """train.py in this process: takes flags as the command line does, returns the exit code."""
    import train

    if "model" not in train.FLAGS:
        train.define_recipe_flags()

    def call(*arguments):
        train.FLAGS.unparse_flags()
        for name in train.FLAGS:
            train.FLAGS[name].unparse()
        return train.main(train.FLAGS(["train.py", *map(str, arguments)]))

    return call
