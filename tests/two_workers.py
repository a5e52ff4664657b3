"""Two worker processes on the loopback interface."""

import os
import socket
import subprocess
import sys


def free_ports():
    """Two ports that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        for s in (one, other):
            s.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def run(job, folder):
    """Runs a script as both workers, `job NUMBER PORT PORT FOLDER`; they must succeed."""
    ports = list(map(str, free_ports()))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    workers = [
        subprocess.Popen(
            [sys.executable, "-u", job, str(number), *ports, folder],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in (0, 1)
    ]  # fmt: skip
    try:
        for worker in workers:
            output = worker.communicate(timeout=300)[0]
            assert worker.returncode == 0, output
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
