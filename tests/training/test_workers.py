"""Worker processes on this machine: they equal replicas, and none waits for ever for another."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

import two_workers
import worker_job
from replicas import strategy_of
from tf_largebatch.training import workers
from tf_largebatch.training.strategy import make_strategy

pytestmark = [pytest.mark.tensorflow]
ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIR = ["127.0.0.1:1001", "127.0.0.1:1002"]


def start(*command):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    return subprocess.Popen(
        [sys.executable, "-u", *map(str, command)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(processes):
    """Their outputs, once all have ended by themselves with exit code 0."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


@pytest.mark.multi_worker
@pytest.mark.parametrize("names", [["LAMB"], pytest.param([], marks=pytest.mark.slow, id="all")])
def test_two_workers_equal_two_replicas(tmp_path, names):
    """In micro-batches, clipped; statistics across the two; evaluation; resumption; stopping."""
    ports = two_workers.free_ports()
    ended([start("tests/worker_job.py", i, *ports, tmp_path, *names) for i in (0, 1)])
    chief, other = (np.load(tmp_path / f"worker-{i}.npz") for i in (0, 1))
    replicas = strategy_of(2)
    for name, optimizer, precision, options in worker_job.jobs(names):
        state, logs, _ = worker_job.train(replicas, optimizer, precision, **options)
        for i, array in enumerate(state):
            key = f"{name}, {i}"
            np.testing.assert_array_equal(chief[key], other[key], err_msg=key)
            atol = 1e-5 * np.abs(array).max()
            np.testing.assert_allclose(chief[key], array, rtol=1e-5, atol=atol, err_msg=key)
        logs = [value for log in logs for value in log.values()]
        np.testing.assert_allclose(chief[f"{name}, logs"], logs, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(chief[f"{name}, logs"], other[f"{name}, logs"])
    for found in (chief, other):
        assert found["stops"].tolist() == [True]


def train_py(model_dir, ports, index, *flags):
    return start(
        "train.py", "--progress=line", "--epochs=12", "--checkpoint_every=7", "--seed=1",
        "--optimizer=nlamb", f"--workers=127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}",
        f"--worker_index={index}", f"--model_dir={model_dir}", "--resume", *flags,
    )  # fmt: skip


def weights(model_dir):
    return keras.models.load_model(model_dir / "final.keras").get_weights()


def wait_for_epoch(process, number):
    for line in process.stdout:
        if line.startswith(f"Epoch {number}/"):
            return
    raise AssertionError("ended before that epoch")


@pytest.mark.slow
@pytest.mark.multi_worker
def test_a_lost_worker_ends_the_others_and_a_restart_goes_on(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ports = two_workers.free_ports()
    ended([train_py(whole, ports, i) for i in (0, 1)])
    for lost, epoch in ((1, 3), (0, 5)):  # the chief, too
        ports = two_workers.free_ports()
        job = [train_py(broken, ports, i) for i in (0, 1)]
        wait_for_epoch(job[0], epoch)
        job[lost].kill()
        began = time.monotonic()
        output, _ = job[1 - lost].communicate(timeout=120)
        assert job[1 - lost].returncode == 143, output
        assert (
            f"worker {lost} is lost, or the network to it" in output or "a worker is lost" in output
        )
        assert "Traceback" not in output
        assert time.monotonic() - began < 4 * workers.HEARTBEAT_TIMEOUT_S
        job[lost].communicate()
    ports = two_workers.free_ports()
    output, _ = ended([train_py(broken, ports, i) for i in (0, 1)])
    assert re.search(r", from update \d+", output)
    for one, two in zip(weights(whole), weights(broken), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.multi_worker
def test_preemption_of_one_worker_stops_and_saves_all(tmp_path):
    ports = two_workers.free_ports()
    job = [train_py(tmp_path, ports, i, "--preemption_exit_code=75") for i in (0, 1)]
    wait_for_epoch(job[0], 4)
    job[1].send_signal(signal.SIGTERM)
    for process in job:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 75, output
        assert "Stopped by SIGTERM after update" in output
    assert list((tmp_path / "checkpoints").glob("update-*.npz"))
    assert not list(tmp_path.rglob("unfinished-*"))


@pytest.mark.parametrize(
    "config, words",
    [
        ("{", "must be JSON"),
        ("[]", "must be an object"),
        ('{"cluster": {"worker": ["a"]}}', 'must list "host:port"'),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "index=1"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "chief or workers"),
    ],
)
def test_malformed_tf_config_is_one_sentence_for_every_strategy(monkeypatch, config, words):
    monkeypatch.setenv("TF_CONFIG", config)
    for name in ("auto", "one_device", "mirrored", "multi_worker"):
        with pytest.raises(ValueError, match=words):
            make_strategy(name)


def test_a_chief_is_the_first_worker():
    cluster = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    for role, index, place in (("chief", 0, 0), ("worker", 1, 2)):
        config = {"cluster": cluster, "task": {"type": role, "index": index}}
        assert workers.read_tf_config(json.dumps(config)) == (["a:1", "b:1", "c:1"], place)


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "must be told of the workers. Received: no TF_CONFIG"),
        ({"workers": ["a"], "worker_index": 0}, 'different addresses "host:port"'),
        ({"workers": ["a:1", "a:1"], "worker_index": 0}, 'different addresses "host:port"'),
        ({"workers": PAIR}, "from 0 to 1. Received: worker_index=None"),
        ({"workers": PAIR, "worker_index": 2}, "from 0 to 1. Received: worker_index=2"),
        ({"tpu": "x"}, "tpu says nothing with strategy=multi_worker"),
        ({"worker_index": 1}, "worker_index belongs to workers"),
        ({"name": "auto", "worker_index": 1}, "worker_index belongs to workers"),
    ],
)
def test_refused_workers(monkeypatch, options, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=words):
        make_strategy(**{"name": "multi_worker", **options})


def test_workers_that_contradict_tf_config(monkeypatch):
    config = {"cluster": {"worker": PAIR}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(ValueError, match="contradict each other"):
        make_strategy("multi_worker", workers=PAIR, worker_index=0)
    with pytest.raises(ValueError, match="workers says nothing with strategy=mirrored"):
        make_strategy("mirrored", workers=PAIR)


def test_a_worker_that_does_not_come_is_named():
    addresses = [f"127.0.0.1:{port}" for port in two_workers.free_ports()]
    for index in (0, 1):
        words = rf"Missing, seen from worker {index}: worker {1 - index} at {addresses[1 - index]}"
        with pytest.raises(ValueError, match=words):
            workers.meet(addresses, index, {}, timeout_s=0.1)


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"can't listen at its address. Received: {address}"):
            workers.meet([address], 0, {}, timeout_s=0.5)


def meeting(settings, addresses=None):
    """What `meet` raises on each of the workers, None where it doesn't."""
    addresses = addresses or [f"127.0.0.1:{port}" for port in two_workers.free_ports()]

    def one(index):
        try:
            workers.meet(addresses, index, settings[index], timeout_s=5)
        except ValueError as error:
            return str(error)
        return None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(one, range(len(settings))))


def test_workers_meet():
    assert meeting([{"seed": 1}, {"seed": 1}]) == [None, None]
    ports = [*two_workers.free_ports(), *two_workers.free_ports()]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    assert meeting([{}] * 4, addresses) == [None] * 4


def test_other_settings_are_refused_on_all_workers():
    first, second = meeting([{"seed": 1, "epochs": 2}, {"seed": 2, "epochs": 2}])
    assert "Received: seed=2 on worker 1, 1 here" in first
    assert "Received: seed=1 on worker 0, 2 here" in second


def test_another_program_at_a_workers_port_is_no_worker():
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port, own = stranger.getsockname()[1], two_workers.free_ports()[0]

        def answer():
            for _ in range(2):
                peer, _ = stranger.accept()
                peer.sendall(b"HTTP/1.1 400 Bad Request\n")
                peer.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ValueError, match=f"Something else answers at 127.0.0.1:{port}"):
            workers.meet([f"127.0.0.1:{port}", f"127.0.0.1:{own}"], 1, {}, timeout_s=0.5)
