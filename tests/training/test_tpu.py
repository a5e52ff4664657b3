"""How a TPU is reached, and what is said where there is none.

Nothing here runs on a TPU. TensorFlow's own resolver is used, and its answers where there is no TPU
are real; connecting, initialising and the strategy are stand-ins where they would need the device.
So it isn't tested that the strategy trains.
"""

import contextlib
import http.server
import socket
import threading
import urllib.error
from importlib.util import find_spec

import pytest
import tensorflow as tf

from tf_largebatch.training import tpu
from tf_largebatch.training.tpu import make_tpu_strategy, signs_of_a_tpu

pytestmark = pytest.mark.tensorflow


@contextlib.contextmanager
def listening():
    """The address of a server that accepts connections and never says a word.

    After 20 seconds it hangs up, so that a test of who waits for it fails and doesn't hang.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        hangs_up = threading.Timer(20, server.close)
        hangs_up.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            hangs_up.cancel()


def silent_address():
    """An address where nobody listens."""
    with listening() as address:
        return address


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch):
    """No variable names a TPU, and the metadata server can't be reached."""
    for name in tpu.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", silent_address())
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for what needs a TPU: what was called, in order, with the name of the TPU."""
    made = []

    def record(place, name, result=None):
        def stand_in(resolver):
            made.append((name, resolver.cluster_spec().as_dict().get("worker", [])))
            return result

        monkeypatch.setattr(place, name, stand_in)

    record(tf.config, "experimental_connect_to_cluster")
    record(tf.tpu.experimental, "initialize_tpu_system")
    record(tf.distribute, "TPUStrategy", "the strategy")
    return made


def refusal(*args, **options):
    """The words of the error, and what caused it."""
    with pytest.raises(ValueError, match="There is no TPU for strategy=tpu") as caught:
        make_tpu_strategy(*args, **options)
    assert socket.getdefaulttimeout() is None
    return str(caught.value), caught.value.__cause__


def test_the_tpu_of_this_machine_is_initialised_without_connecting(calls):
    assert make_tpu_strategy("local") == "the strategy"
    assert calls == [("initialize_tpu_system", []), ("TPUStrategy", [])]


def test_workers_elsewhere_are_connected_to_first(calls):
    with listening() as first, listening() as second:
        assert make_tpu_strategy(f"grpc://{first},grpc://{second}") == "the strategy"
    steps = ["experimental_connect_to_cluster", "initialize_tpu_system", "TPUStrategy"]
    assert calls == [(step, [first, second]) for step in steps]


def test_a_resolver_that_is_given_is_the_one_used(calls):
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver("local")
    assert make_tpu_strategy(resolver=resolver) == "the strategy"
    assert len(calls) == 2


@pytest.mark.parametrize(
    "variables, name, used",
    [
        ({}, "a", "a"),
        ({"TPU_NAME": "b"}, "a", "a"),
        ({"TPU_NAME": "local"}, "", "local"),
        ({"TPU_NAME": "local"}, None, "local"),
        ({"TPU_NAME": "b", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS": "grpc://c"}, "", "grpc://c"),
        ({"TPU_NAME": "b", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS": ""}, "", "b"),
        ({}, "", ""),
    ],
)
def test_what_the_resolver_is_asked_for(monkeypatch, calls, variables, name, used):
    local = tf.distribute.cluster_resolver.TPUClusterResolver("local")
    asked = []

    def stand_in(**options):
        asked.append(options)
        return local

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", stand_in)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    make_tpu_strategy(name, zone="z", project="p")
    assert asked == [{"tpu": used, "zone": "z", "project": "p"}]


def test_without_a_name():
    words, cause = refusal()
    assert type(cause) is ValueError
    for part in (
        "Received: tpu='', tpu_zone=None, tpu_project=None",
        "Please provide a TPU Name to connect to.",
        "TPU_NAME",
        "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS",
        "/dev/accel[0-9]*",
        "tpu=local",
        "tpu=grpc://10.0.0.2:8470",
        "strategy=auto",
        tf.__version__,
    ):
        assert part in words


def test_on_this_machine():
    """Whatever this TensorFlow answers where there is no TPU: it depends on the distribution."""
    words, cause = refusal("local")
    assert isinstance(cause, (tf.errors.NotFoundError, tf.errors.InternalError))
    assert f"{type(cause).__name__}: " in words and "tpu='local'" in words
    assert tf.add(1, 2) == 3


def test_what_is_installed_is_said(monkeypatch):
    monkeypatch.setattr(tpu, "_installed_packages", list)
    words, _ = refusal()
    assert "Neither tensorflow-tpu nor libtpu is installed" in words
    monkeypatch.setattr(tpu, "_installed_packages", lambda: ["libtpu 0.0.10"])
    words, _ = refusal()
    assert "Neither" not in words and "the package libtpu 0.0.10" in words


def test_a_name_where_no_metadata_server_answers():
    words, cause = refusal("some-name")
    assert isinstance(cause, urllib.error.URLError)
    assert "tpu='some-name'" in words and "tpu_zone and tpu_project" in words


def test_a_metadata_server_that_keeps_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tpu, "ANSWER_SECONDS", 0.1)
    with listening() as address:
        monkeypatch.setenv("GCE_METADATA_HOST", address)
        words, cause = refusal("some-name")
    assert isinstance(cause, TimeoutError)
    assert "timed out" in words


def test_a_metadata_server_that_is_none(monkeypatch):
    """Such as a proxy that answers to every name."""

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        words, cause = refusal("some-name")
        server.shutdown()
    with cause:
        assert cause.code == 404 and "HTTPError" in words


@pytest.mark.skipif(find_spec("googleapiclient") is not None, reason="it is installed")
def test_a_name_without_the_client_of_cloud_tpu():
    words, cause = refusal("some-name", zone="z", project="p")
    assert type(cause) is RuntimeError
    assert "tpu_zone='z', tpu_project='p'" in words and "cloud-tpu-client" in words


def test_a_worker_that_does_not_answer(calls):
    with listening() as first:
        second = silent_address()
        words, cause = refusal(f"grpc://{first},grpc://{second}")
    assert isinstance(cause, OSError)
    assert f"the TPU's worker {second} can't be reached" in words
    assert calls == []


def test_a_worker_that_is_not_tensorflow(monkeypatch, calls):
    """The answer is one recorded: connecting in earnest would spoil this process."""

    def connect(resolver):
        raise tf.errors.UnimplementedError(None, None, "Received http2 header with status: 404")

    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", connect)
    with listening() as address:
        words, _ = refusal(f"grpc://{address}")
    assert "UnimplementedError: Received http2 header" in words
    assert calls == []


def test_a_system_without_cores(monkeypatch):
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", lambda resolver: None)
    _, cause = refusal("local")
    assert type(cause) is IndexError  # of the real TPUStrategy


def test_other_errors_are_left_as_they_are(monkeypatch, calls):
    def initialise(resolver):
        raise tf.errors.UnavailableError(None, None, "the TPU is in use")

    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", initialise)
    with pytest.raises(tf.errors.UnavailableError, match="in use"):
        make_tpu_strategy("local")


def test_signs_of_a_tpu(tmp_path):
    (tmp_path / "vfio").mkdir()
    for name in ("accel0", "accel1", "accel", "vfio/0", "vfio/vfio", "null"):
        (tmp_path / name).touch()
    device = tf.config.PhysicalDevice("/physical_device:TPU:0", "TPU")
    environment = {"TPU_NAME": "local", "TPU_WORKER_HOSTNAMES": "", "HOME": "x"}
    signs = signs_of_a_tpu(environment, [device], dev=tmp_path)
    files = [(tmp_path / name).as_posix() for name in ("accel0", "accel1", "vfio/0")]
    assert signs[0] == "TPU_NAME=local" and signs[-1] == "/physical_device:TPU:0"
    assert [sign for sign in signs if sign.startswith(tmp_path.as_posix())] == files
