"""Several worker processes, as `tf.distribute.MultiWorkerMirroredStrategy` runs them.

Each host runs the same command; TF_CONFIG, or the flags --workers and --worker_index, tell it who
it is. TensorFlow waits for ever for a worker that doesn't come, so they meet here first; of one
that is lost later its coordination service tells the others, who then raise UnavailableError.
"""

import contextlib
import faulthandler
import json
import os
import re
import socket
import sys
import time

import tensorflow as tf

# The workers must have come after so many seconds, and miss one whose heartbeat stops for so many.
START_TIMEOUT_S = 300
HEARTBEAT_TIMEOUT_S = 20
# As long as a worker's own port may be held by the process before it.
PORT_TIMEOUT_S = 60
# What TensorFlow raises on a worker whose peers are gone.
LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError,
)  # fmt: skip


def read_tf_config(text):
    """(addresses of the workers, index of this one) of a TF_CONFIG; ValueError says what is wrong.

    A chief is worker 0. Without a cluster: ([], 0).

    >>> cluster = {"worker": ["a:1", "b:1"]}
    >>> read_tf_config(json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
    (['a:1', 'b:1'], 1)
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG must be JSON. Received: {text!r} ({error}).") from None
    config = config if isinstance(config, dict) else {"cluster": None}
    cluster, task = config.get("cluster", {}), config.get("task", {})
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise ValueError(
            'TF_CONFIG must be an object with the objects "cluster" and "task". Received: '
            f"{text!r}."
        )
    if not cluster:
        return [], 0
    for role, hosts in cluster.items():
        if not isinstance(hosts, list) or not hosts or not all(map(_is_address, hosts)):
            raise ValueError(
                f'TF_CONFIG: the cluster\'s "{role}" must list "host:port". Received: {hosts!r}.'
            )
    role, index = task.get("type"), task.get("index")
    hosts = cluster.get(role, ()) if isinstance(role, str) else ()
    if role not in ("chief", "worker") or type(index) is not int or not 0 <= index < len(hosts):
        raise ValueError(
            "TF_CONFIG: the task must be one of the cluster's chief or workers. Received: "
            f"type={role!r}, index={index!r} in a cluster of {sorted(cluster)}."
        )
    chiefs = cluster.get("chief", [])
    return [*chiefs, *cluster.get("worker", [])], index + len(chiefs) * (role == "worker")


def _is_address(address):
    return isinstance(address, str) and re.fullmatch(r".+:\d{1,5}", address) is not None


def multi_worker_strategy(workers=None, worker_index=None, *, settings=None):
    """Waits until all workers are there; returns their `MultiWorkerMirroredStrategy`.

    Args:
        workers: addresses "host:port" of all workers, the chief first, the same list on each of
            them; None: those of TF_CONFIG.
        worker_index: which of them this process is; None with `workers=None`.
        settings: JSON-serialisable dict that must be equal on all workers, such as the batch size
            and the seed: with others they would wait for each other, or train wrongly in silence.

    Raises:
        ValueError: if these contradict TF_CONFIG or each other, TensorFlow has already started,
            this worker's port is taken, a worker didn't come within START_TIMEOUT_S, or has other
            settings.
    """
    told = os.environ.get("TF_CONFIG", "")
    if workers is None:
        if worker_index is not None:
            raise ValueError(
                f"worker_index belongs to workers. Received: worker_index={worker_index} without "
                "workers. Give both, or let TF_CONFIG say both."
            )
        workers, worker_index = read_tf_config(told) if told else ([], 0)
        if not workers:
            raise ValueError(
                "strategy=multi_worker must be told of the workers. Received: "
                + (f"TF_CONFIG={told!r}" if told else "no TF_CONFIG, workers=None")
                + ". Pass --workers=host:port,host:port and --worker_index, or set TF_CONFIG."
            )
    else:
        workers = list(workers)
        wrong = [address for address in workers if not _is_address(address)]
        if wrong or len(set(workers)) < len(workers):
            raise ValueError(
                f'workers must be different addresses "host:port". Received: workers={workers}.'
            )
        if worker_index is None or not 0 <= worker_index < len(workers):
            raise ValueError(
                f"worker_index must say which of the {len(workers)} workers this is: from 0 to "
                f"{len(workers) - 1}. Received: worker_index={worker_index}."
            )
        if told and read_tf_config(told) != (workers, worker_index):
            raise ValueError(
                f"workers and TF_CONFIG contradict each other. Received: workers={workers}, "
                f"worker_index={worker_index}, TF_CONFIG={told}. Leave one of them out."
            )
        os.environ["TF_CONFIG"] = told or json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": worker_index}}
        )
    meet(workers, worker_index, settings or {}, timeout_s=START_TIMEOUT_S)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    _configure_heartbeat(resolver.cluster_spec())
    # Should one be lost just now, TensorFlow would wait for ever, and no Python run meanwhile: this
    # ends the process with code 1 and a dump of where it waits.
    faulthandler.dump_traceback_later(START_TIMEOUT_S, exit=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        if "must be configured at program startup" not in str(error):
            raise
        raise ValueError(
            "TensorFlow has started before the workers could be joined. Call make_strategy before "
            "anything else of TensorFlow."
        ) from None
    finally:
        faulthandler.cancel_dump_traceback_later()


def meet(workers, index, settings, *, timeout_s):
    """Returns when all workers have greeted each other; each listens at its address meanwhile.

    Of each two the one with the higher index calls. A greeting is a line of JSON.

    Raises:
        ValueError: if this worker's port is taken, another one didn't come in time, or has other
            settings.
    """
    began = time.monotonic()
    greeting = json.dumps({"worker": index, "of": workers, "settings": settings}) + "\n"
    met, strangers, said = {}, set(), began + 5
    with _listener(workers[index], index, began + min(timeout_s, PORT_TIMEOUT_S)) as listener:
        while missing := {i: w for i, w in enumerate(workers) if i != index and i not in met}:
            for i, address in missing.items():
                if i < index:
                    host, _, port = address.rpartition(":")
                    place = (host.strip("[]"), int(port))
                    with contextlib.suppress(OSError), socket.create_connection(place, 2) as peer:
                        _greet(peer, greeting, met, strangers, address)
            with contextlib.suppress(TimeoutError):
                peer, _ = listener.accept()
                with peer, contextlib.suppress(OSError):
                    _greet(peer, greeting, met, strangers, "this worker's port")
            now = time.monotonic()
            names = ", ".join(f"worker {i} at {address}" for i, address in missing.items())
            if now > began + timeout_s:
                others = f" Something else answers at {', '.join(strangers)}." if strangers else ""
                raise ValueError(
                    f"Not all workers came within {timeout_s:g} s. Missing, seen from worker "
                    f"{index}: {names}.{others} Start the same command on each host, with the same "
                    "list of workers, and let its ports through."
                )
            if now > said and missing.keys() - met.keys():
                print(f"Waiting for {names}.", file=sys.stderr, flush=True)
                said = now + 30
    _check_same({**met, index: {"of": workers, "settings": settings}}, index)


def _listener(address, index, deadline):
    """A socket that listens at this worker's port, on all of the host's names."""
    port = int(address.rpartition(":")[2])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.settimeout(0.2)
    while True:
        try:
            listener.bind(("", port))
            listener.listen()
            return listener
        except (OSError, OverflowError) as error:
            # The process before this one, as it ends, may hold the port for a moment.
            if time.monotonic() < deadline and isinstance(error, OSError):
                time.sleep(0.2)
                continue
            listener.close()
            raise ValueError(
                f"Worker {index} can't listen at its address. Received: {address} ({error}). Name "
                "a port that is free on this host."
            ) from None


def _greet(peer, greeting, met, strangers, address):
    """Sends this worker's greeting and takes the other's down in `met`."""
    peer.settimeout(2)
    peer.sendall(greeting.encode())
    with peer.makefile("rb") as lines:
        line = lines.readline(2**20)
    try:
        found = json.loads(line)
        met[found["worker"]] = found
    except (ValueError, TypeError, KeyError):
        strangers.add(address)


def _check_same(met, index):
    """ValueError where workers were started with other lists or settings than this one."""
    mine = {"workers": met[index]["of"], **met[index]["settings"]}
    differs = []
    for i, found in sorted(met.items()):
        theirs = {"workers": found["of"], **found["settings"]}
        differs += [
            f"{key}={theirs.get(key)!r} on worker {i}, {mine.get(key)!r} here"
            for key in sorted(mine.keys() | theirs.keys())
            if theirs.get(key) != mine.get(key)
        ]
    if differs:
        raise ValueError(
            f"The workers were started with different settings. Received: {'; '.join(differs[:4])} "
            f"(worker {index}). Start the same command on all of them, but for worker_index."
        )


def _configure_heartbeat(cluster):
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.distribute import multi_worker_util
    from tensorflow.python.eager import context

    # As MultiWorkerMirroredStrategy does, which sets no times; its own would be 100 s and more.
    jobs = [
        coordination_config_pb2.CoordinatedJob(name=job, num_tasks=cluster.num_tasks(job))
        for job in cluster.jobs
    ]
    with contextlib.suppress(RuntimeError):  # too late: the strategy will say so
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader=multi_worker_util.coordination_leader(cluster),
            cluster_register_timeout_in_ms=START_TIMEOUT_S * 1000,
            heartbeat_timeout_in_ms=HEARTBEAT_TIMEOUT_S * 1000,
            shutdown_barrier_timeout_in_ms=HEARTBEAT_TIMEOUT_S * 1000,
            coordinated_jobs=jobs,
        )


def name_lost_worker(error):
    """The worker that TensorFlow misses, as far as its error says: "worker 1", or "a worker".

    >>> name_lost_worker("{{node _device_/job:worker/replica:0/task:0/device:CPU:0}} aborted: \\n"
    ...                  "/job:worker/replica:0/task:1 is unhealthy")
    'worker 1'
    """
    tasks = re.findall(r"/job:worker/(?:replica:0/)?task:(\d+)(?![\d/])", str(error))
    return f"worker {tasks[0]}" if len(set(tasks)) == 1 else "a worker"


def is_chief(strategy):
    """Whether this process writes what is written once for all workers."""
    return strategy.extended.should_checkpoint


def number_of_workers(strategy):
    """How many processes share the strategy."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return 1
    return max(1, sum(map(len, resolver.cluster_spec().as_dict().values())))


class Workers:
    """What the workers of a strategy agree on. With one worker nothing is sent.

    Args:
        strategy: the `tf.distribute.Strategy`; the calls must come in the same order on all.
    """

    def __init__(self, strategy):
        self.strategy, self.count = strategy, number_of_workers(strategy)

        @tf.function(reduce_retracing=True)
        def total(values):
            parts = strategy.run(tf.identity, args=(values,))
            return strategy.reduce("SUM", parts, axis=None)

        self._total = total

    def anyone(self, flags):
        """For each of the flags, whether any worker has raised it."""
        flags = [bool(flag) for flag in flags]
        if self.count == 1:
            return flags
        return [bool(n > 0) for n in self._total(tf.cast(flags, tf.float32)).numpy()]

    def chief_first(self, action):
        """Runs `action` on the chief, while the others wait; they fail if it failed."""
        if is_chief(self.strategy):
            try:
                result = action()
            except BaseException:
                self.anyone([True])
                raise
            self.anyone([False])
            return result
        if self.anyone([False])[0]:
            raise ValueError("The chief (worker 0) stopped: its message says why.")
        return None
