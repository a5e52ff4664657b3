"""The doctor as a tool: its report, flags and exit codes, and what fails without a crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_largebatch import doctor
from tf_largebatch.doctor import _command, _report, _self_test

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "decay_outside_trust_ratio", "schedule_counts_micro_steps", "bfloat16_stands_still",
    "padded_batch_loss", "clips_before_reduction", "accumulation_on_replicas_raises",
    "average_on_replicas_raises", "one_cpu_strategy_a_process", "index_shuffle_refuses_seeds",
    "second_fit_with_average_fails",
}  # fmt: skip


def as_process(**environment):
    done = subprocess.run(
        [sys.executable, "-m", "tf_largebatch.doctor", "--format=json"],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"ok", "findings"}
    assert report["ok"] is (done.returncode == 0)
    return done.returncode, {(f["section"], f["name"]): f for f in report["findings"]}


@pytest.mark.tensorflow
def test_json_of_a_process():
    code, found = as_process()
    assert code == 0
    assert all(set(f) == {"section", "name", "state", "value", "note"} for f in found.values())
    sections = list(dict.fromkeys(section for section, _ in found))
    assert sections == ["installed", "devices", "strategies", "self_test", "faults"]
    assert found["installed", "keras"]["value"] == keras.__version__
    assert found["installed", "keras"]["state"] == "ok"
    assert found["devices", "logical_devices"]["value"] >= 2
    assert found["devices", "memory_total_gib"]["value"] > 0
    assert found["strategies", "one_device"]["value"] == 1
    assert found["strategies", "mirrored"]["value"] == 2
    assert found["strategies", "multi_worker"]["state"] == "skipped"
    assert found["strategies", "tpu"]["state"] in ("not offered", "skipped")
    assert found["self_test", "replicas_equal_one_device"]["value"] <= 1e-5
    assert found["self_test", "examples_per_second"]["value"] > 0
    faults = {name: f["state"] for (section, name), f in found.items() if section == "faults"}
    assert set(faults) == FAULTS
    assert faults.pop("second_fit_with_average_fails") == "skipped"
    assert set(faults.values()) <= {"present", "mended"}


def test_on_jax_what_needs_tensorflow_is_skipped():
    pytest.importorskip("jax")
    code, found = as_process(KERAS_BACKEND="jax")
    assert code == 0
    assert found["installed", "backend"]["value"] == "jax"
    assert found["self_test", "self_test"]["state"] == "skipped"
    assert found["faults", "second_fit_with_average_fails"]["state"] in ("present", "mended")
    assert found["faults", "clips_before_reduction"]["state"] == "skipped"


@pytest.mark.tensorflow
def test_table_in_process(capsys):
    assert doctor.main(["--replicas=2"]) == 0
    table = capsys.readouterr().out
    for words in ("installed\n", "devices\n", "strategies\n", "self test\n", "faults\n"):
        assert f"\n{words}" in table
    assert "All that is essential works." in table
    assert max(map(len, table.splitlines())) <= 100


@pytest.mark.tensorflow
def test_self_test_can_be_left_out(capsys, monkeypatch):
    monkeypatch.setattr(_self_test, "_trained", None)
    assert doctor.main(["--skip-self-test", "--format=json"]) == 0
    assert '"skipped"' in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--replicas=0"], ["--replicas=two"], ["--format=xml"], ["--fix"]]
)
def test_wrong_flags(flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        doctor.main(flags)
    assert flags[0].partition("=")[0] in capsys.readouterr().err


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "replaced, words",
    [
        ({"TOLERANCE": -1.0}, "allowed: -1"),
        ({"_trained": lambda *_: (np.ones(3), np.array([1, np.nan, 2]), 1.0)}, "relative diff"),
        ({"_trained": lambda *_: (np.ones(3), np.ones(3), 1.0)}, "nothing was learnt"),
        ({"_trained": lambda *_: 1 / 0}, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_self_test(replaced, words, monkeypatch, capsys):
    monkeypatch.setattr(_command, "faults", lambda backend: ())
    for name, value in replaced.items():
        monkeypatch.setattr(_self_test, name, value)
    assert doctor.main(["--format=json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    failed = [f for f in report["findings"] if f["state"] == "failed"]
    assert [f["section"] for f in failed] == ["self_test"] and words in failed[0]["note"]


@pytest.mark.tensorflow
def test_devices_are_never_taken_away(monkeypatch):
    """Another part of the process may count on them."""
    import tensorflow as tf

    calls = []
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", lambda *a: calls.append(a))
    _command._make_cpu_devices(tf, 2)
    assert not calls and len(tf.config.list_logical_devices("CPU")) == 4
    _command._make_cpu_devices(tf, 6)
    assert len(calls) == 1 and len(calls[0][1]) == 6


@pytest.mark.tensorflow
def test_more_replicas_than_devices_fail_with_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(_command, "faults", lambda backend: ())
    keras.ops.convert_to_numpy(keras.ops.ones(1))  # TensorFlow has started, with 4 devices
    assert doctor.main(["--replicas=5"]) == 1
    assert "TensorFlow has started with 4 CPU devices" in " ".join(capsys.readouterr().out.split())


@pytest.mark.tensorflow
def test_malformed_tf_config_is_no_crash(monkeypatch, capsys):
    """TensorFlow's MirroredStrategy itself fails on it, and so does the report's essential part."""
    monkeypatch.setenv("TF_CONFIG", "{oops")
    assert doctor.main(["--skip-self-test"]) == 1
    assert "TF_CONFIG must be JSON" in " ".join(capsys.readouterr().out.split())


def test_a_check_that_breaks_is_one_line():
    def check():
        yield doctor.Finding("faults", "first", "present")
        raise OSError("no\nsuch thing")

    first, second = _report.guarded("faults", "all", check)
    assert first.state == "present"
    assert second == doctor.Finding("faults", "all", "unknown", None, "OSError: no such thing")
    _, failed = _report.guarded("self_test", "all", check, essential=True)
    assert failed.state == "failed"
