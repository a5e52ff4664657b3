"""Another process, for what must not depend on the one that it is in."""

import json
import os
import subprocess
import sys

import pytest

ANSWER = """
import importlib, json, sys
for line in sys.stdin:
    module, expression = json.loads(line)
    found = eval(expression, vars(importlib.import_module(module)))
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="session")
def elsewhere():
    """The value, through JSON, of an expression in a module of this folder's tests there.

    The other process hashes strings with another seed. It is started once for all who ask.
    """
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", ANSWER],
        env={**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": path},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip

        def ask(module, expression):
            print(json.dumps([module, expression]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, f"the other process ended: {process.wait(60)}"
            return json.loads(answer)

        yield ask
        process.stdin.close()
