"""What a user should know before a run: `python -m tf_largebatch.doctor [--format=json]`.

Every check gives `Finding`s; `report` alone prints. The faults of Keras and TensorFlow are found by
running them in small, not by version number. Exit codes: 0 all that is essential works, 1 a
requirement or the self-test failed, 2 wrong flags.
"""

import argparse
import contextlib
import sys

from tf_largebatch.doctor._faults import faults
from tf_largebatch.doctor._machine import devices, installed, multi_worker, offered, tpu
from tf_largebatch.doctor._report import Finding, guarded, report
from tf_largebatch.doctor._self_test import self_test


def examine(replicas=None, *, skip_self_test=False):
    """All findings; `replicas` as the flag. ValueError if there aren't so many devices."""
    import keras

    backend = keras.backend.backend()
    found = guarded("installed", "versions", installed, backend)
    if backend != "tensorflow":
        found += guarded("devices", "devices", devices, None)
        found += guarded("faults", "faults", faults, backend)
        note = "needs Keras' TensorFlow backend"
        return found + [
            Finding(section, section, "skipped", None, note)
            for section in ("strategies", "self_test")
        ]
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus and (replicas or 1) > gpus:
        raise ValueError(f"There are {gpus} GPUs. Received: --replicas={replicas}.")
    replicas = replicas or gpus or 2
    _make_cpu_devices(tf, max(2, 1 if gpus else replicas))
    found += guarded("devices", "devices", devices, tf)
    # Essential: that the offered strategies can be made, and that the self-test passes.
    found += guarded("strategies", "one_device", offered, "one_device", 1, essential=True)
    found += guarded("strategies", "mirrored", offered, "mirrored", replicas, essential=True)
    found += guarded("strategies", "multi_worker", multi_worker)
    found += guarded("strategies", "tpu", tpu, tf)
    if skip_self_test:
        found.append(Finding("self_test", "self_test", "skipped", None, "--skip-self-test"))
    else:
        found += guarded("self_test", "self_test", self_test, replicas, essential=True)
    return found + guarded("faults", "faults", faults, backend)


def _make_cpu_devices(tensorflow, count):
    """At least so many logical CPU devices, if TensorFlow hasn't started with fewer."""
    cpu = tensorflow.config.list_physical_devices("CPU")[0]
    made = tensorflow.config.get_logical_device_configuration(cpu) or ()
    if len(made) < count:
        with contextlib.suppress(RuntimeError):  # it has: what needs more says so
            tensorflow.config.set_logical_device_configuration(
                cpu, [tensorflow.config.LogicalDeviceConfiguration()] * count
            )


def main(argv=None):
    """Runs the tool; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tf_largebatch.doctor", description=__doc__)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--replicas", type=int, help="default: all GPUs, or 2 CPU devices")
    parser.add_argument("--skip-self-test", action="store_true", help="saves about 5 seconds")
    flags = parser.parse_args(argv)
    if flags.replicas is not None and flags.replicas < 1:
        parser.error(f"--replicas must be at least 1. Received: {flags.replicas}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the report's alone
            findings = examine(flags.replicas, skip_self_test=flags.skip_self_test)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    report(findings, flags.format)
    return int(any(finding.state == "failed" for finding in findings))
