"""The doctor's checks: of the machine, and of faults, on what is wrong and on what is right."""

import functools
import importlib.metadata
import json

import keras
import numpy as np
import pytest

from tf_largebatch import LAMB, LARS
from tf_largebatch.doctor import _faults, _machine

SGD_BY_LARS = functools.partial(LARS, momentum=0.0, weight_decay=0.0)


def by_name(findings):
    return {finding.name: finding for finding in findings}


@pytest.fixture
def distributions(monkeypatch):
    """What is said to be installed: a dict from names to versions, to fill."""
    versions = {"keras": "3.15.1"}

    def version(name):
        try:
            return versions[name]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_two_distributions_are_warned_of(distributions):
    distributions |= {"tensorflow": "2.21.0"}
    assert "TensorFlow twice" not in by_name(_machine.installed("tensorflow"))
    distributions |= {"tensorflow-cpu": "2.21.0"}
    found = by_name(_machine.installed("tensorflow"))
    assert found["TensorFlow twice"].state == "warning"
    assert found["TensorFlow twice"].value == ["tensorflow", "tensorflow-cpu"]


@pytest.mark.parametrize(
    "name, version, state",
    [
        ("keras", "3.15.0rc1", "ok"),
        ("keras", "3.9.2", "failed"),
        ("keras", "4.0", "ok"),
        ("tensorflow-tpu", "2.19.1", "ok"),
        ("tensorflow", "2.9.0", "failed"),
        ("numba", "0.61", "ok"),
    ],
)
def test_versions(name, version, state, distributions):
    distributions |= {"tensorflow-cpu": "2.21.0"} | {name: version}
    found = by_name(_machine.installed("tensorflow"))
    assert (found[name].state, found[name].value) == (state, version)


def test_tensorflow_is_required_on_its_backend_alone(distributions):
    states = [by_name(_machine.installed(b))["TensorFlow"].state for b in ("tensorflow", "jax")]
    assert states == ["failed", "absent"]
    assert by_name(_machine.installed("torch"))["backend"].state == "warning"


@pytest.mark.tensorflow
def test_tf_config_is_read():
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:2"]}}
    config["task"] = {"type": "worker", "index": 1}
    [found] = _machine.multi_worker({"TF_CONFIG": json.dumps(config)})
    assert (found.state, found.value) == ("skipped", 3)
    assert "this is worker 2 of a:1, b:1, c:2" in found.note
    [found] = _machine.multi_worker({"TF_CONFIG": "{oops"})
    assert found.state == "warning" and "must be JSON" in found.note


@pytest.mark.tensorflow
def test_signs_of_a_tpu():
    import tensorflow as tf

    [none] = _machine.tpu(tf, {})
    [named] = _machine.tpu(tf, {"TPU_NAME": "local"})
    # The machine itself may have some: a package, devices.
    assert none.state == ("skipped" if none.value else "not offered")
    assert "found: " in none.note if none.value else "TPU_NAME" in none.note
    assert named.state == "skipped" and named.value == ["TPU_NAME=local", *none.value]
    assert "found: TPU_NAME=local" in named.note


def test_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  2097152 kB\nMemFree: 1 kB\nMemAvailable:  524288 kB\n")
    assert _machine.memory_gib(meminfo) == {"total": 2.0, "available": 0.5}
    assert "available" not in _machine.memory_gib(tmp_path / "missing")


def evaluate_whole_batch(model, inputs, labels, mask):
    """Right: divides by the sum of the weights."""
    losses = (model.predict(inputs, verbose=0) - labels)[:, 0] ** 2
    return np.sum(losses * mask) / np.sum(mask)


def evaluate_by_keras(model, inputs, labels, mask):
    return model.evaluate(inputs, labels, sample_weight=mask, verbose=0)


@pytest.mark.parametrize(
    "check, wrong, right",
    [
        (_faults.decays_outside, keras.optimizers.Lamb, LAMB),
        (_faults.counts_micro_steps, keras.optimizers.SGD, SGD_BY_LARS),
        (_faults.stands_still, keras.optimizers.Lamb, LAMB),
        (_faults.averages_padding, evaluate_by_keras, evaluate_whole_batch),
    ],
)
def test_checks_of_faults_come_out_either_way(check, wrong, right):
    assert check(wrong) is True
    assert check(right) is False


@pytest.mark.tensorflow
def test_checks_on_replicas_come_out_either_way():
    sgd, average = keras.optimizers.SGD, {"use_ema": True, "ema_overwrite_frequency": 1}
    assert _faults.clips_too_early(sgd) is True
    assert _faults.clips_too_early(SGD_BY_LARS) is False
    for options in ({"gradient_accumulation_steps": 2}, average):
        assert _faults.raises_merge_call(sgd, **options) is True
        assert _faults.raises_merge_call(LAMB, **options) is False


@pytest.mark.tensorflow
def test_checks_of_tensorflow_come_out_either_way():
    assert _faults.share_group_keys(_faults._mirrored) is True
    bases = iter((0, 100))

    def apart():
        strategy = _faults._mirrored()
        strategy.extended._collective_keys._group_key += next(bases)
        return strategy

    assert _faults.share_group_keys(apart) is False
    assert _faults.refuses_seeds(None) is True
    assert _faults.refuses_seeds(lambda **arguments: None) is False


def test_mended_faults_need_nothing():
    [found] = _faults._fault("x", lambda: False, "its remedy")
    assert (found.state, found.value) == ("mended", False) and "remedy" not in found.note
