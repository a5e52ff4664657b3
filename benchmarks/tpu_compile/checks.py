"""The checks: which process does what, and what its answer means."""

import concurrent.futures
import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

from benchmarks.tpu_compile import controls as known
from benchmarks.tpu_compile.cases import Case, recipe_of
from benchmarks.tpu_compile.reading import COMPILED, COMPILING, ERROR, answer_of

ROUTES = {
    "A": "TensorFlow with its variables, through HLO",
    "B": "TensorFlow's own bridge to TPUs, the variables as arguments",
    "C": "Keras on JAX, cut over the slice by the compiler's partitioner",
}
TIMEOUT_SECONDS = 3 * 3600
NOWHERE = "/nonexistent"  # TensorFlow shall not load the compiler into its own process


class Check(NamedTuple):
    """A step to compile: "trainer" is train.py's, "fit" `model.fit`'s."""

    route: str
    step: str
    case: Case
    target: str


class Machine:
    """Runs orders in processes of their own, and keeps their answers.

    Args:
        tpu_python: the Python of the environment with libtpu, jax and tensorflow-tpu.
        jobs: processes at a time.
        keep: folder for programs and answers, or None: a temporary one.
    """

    def __init__(self, tpu_python, jobs, keep):
        self.tpu_python, self.jobs = str(tpu_python), jobs
        self._stack = contextlib.ExitStack()
        self.folder = keep

    def __enter__(self):
        if self.folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="tpu-check-")
            self.folder = pathlib.Path(self._stack.enter_context(temporary))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.threads = self._stack.enter_context(concurrent.futures.ThreadPoolExecutor(self.jobs))
        return self

    def __exit__(self, *error):
        self._stack.close()

    def file(self, order, suffix):
        """The path that belongs to an order."""
        name = hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{name}{suffix}"

    def carry_out(self, module, order, *, python=None):
        """The answer to an order: a dict with "status"."""
        kept = self.file([module, order], ".answer.json")
        if kept.exists():
            return json.loads(kept.read_text())
        path = self.file([module, order], ".order.json")
        path.write_text(json.dumps(order))
        logs = self.folder / "libtpu"
        environment = os.environ | {"TPU_LIBRARY_PATH": NOWHERE, "TPU_LOG_DIR": str(logs)}
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])
        )
        command = [python or self.tpu_python, "-m", f"benchmarks.tpu_compile.{module}", str(path)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return {"status": ERROR, "message": f"no answer after {TIMEOUT_SECONDS} s"}
        lines = done.stdout.splitlines()
        results = [line for line in lines if line.startswith("RESULT ")]
        result = json.loads(results[-1].removeprefix("RESULT ")) if results else {}
        status = answer_of(done.returncode, result.get("status"), COMPILING in lines)
        result |= {"status": status, "date": datetime.date.today().isoformat()}
        if not results:
            last = " ".join(done.stderr.split())[-1500:]
            result["message"] = f"exit code {done.returncode}: {last}"
        if status != ERROR:
            kept.write_text(json.dumps(result))
        return result


def run_controls(machine, targets, *, bridge):
    """Compiles the programs of which it is known whether a TPU can run them.

    Returns:
        The answers, with "control", "target" and what is "expected"; those of the compiler have
        the cores of the target, and `too_big` its memory.
    """
    futures = []
    for target in targets:
        cores = machine.threads.submit(
            machine.carry_out, "compiler", {"target": target, "program": known.matmul(1)}
        ).result()
        for name, (text, expected) in known.for_compiler(cores.get("cores", 1)).items():
            order = {"target": target, "program": text}
            future = machine.threads.submit(machine.carry_out, "compiler", order)
            futures.append((name, target, expected, future))
    for name, expected in known.FOR_BRIDGE.items() if bridge else ():
        order = {"program": name, "platform": "TPU"}
        future = machine.threads.submit(machine.carry_out, "export", order)
        futures.append((name, "bridge", expected, future))
    return [
        {"control": name, "target": target, "expected": expected, **future.result()}
        for name, target, expected, future in futures
    ]


def run_checks(machine, checks, controls):
    """Compiles the steps, and prints each as it is done.

    Returns:
        The answers in the order of the checks, with what was compiled, and `limit_bytes`, what a
        core of the target has.
    """
    cores = {c["target"]: c.get("cores") for c in controls if c["control"] == "matmul"}
    limits = {c["target"]: c.get("memory") for c in controls if c["control"] == "too_big"}
    # Checks of one program go together: it is written once.
    programs = {}
    for check in checks:
        programs.setdefault((*check[:3], cores[check.target]), []).append(check)

    def of_program(key, group):
        for check in group:
            found = _answer(machine, check, key[-1])
            found["limit_bytes"] = (limits.get(check.target) or (None, None))[1]
            print(f"{check.route} {check.step} {check.case.model} {check.target}: "
                  f"{found['status']} {found.get('message', '')}", flush=True)  # fmt: skip
            answers[check] = found

    answers = {}
    futures = [machine.threads.submit(of_program, *item) for item in programs.items()]
    for future in futures:
        future.result()
    return [answers[check] for check in checks]


def _answer(machine, check, cores):
    described = {**check._asdict(), "case": list(check.case), "cores": cores}
    if cores is None:
        return described | {"status": ERROR, "message": f"{check.target} is not known."}
    recipe = recipe_of(check.case, cores)
    described |= {"optimizer": recipe.optimizer, "global_batch_size": recipe.global_batch_size}
    if check.route == "C":
        order = {"target": check.target, "case": list(check.case)}
        return described | machine.carry_out("compiler", order)
    order = {"case": list(check.case), "step": check.step, "cores": cores}
    if check.route == "A":
        order |= {"program": "with_variables", "platform": None}
        exported = machine.carry_out("export", order, python=sys.executable)
    else:
        order |= {"program": "through_bridge", "platform": "TPU"}
        exported = machine.carry_out("export", order)
    if exported["status"] != COMPILED:
        return described | exported
    order = {"target": check.target, "path": exported["path"], "aliases": exported["aliases"]}
    found = machine.carry_out("compiler", order)
    found["versions"] = exported["versions"] | found.get("versions", {})
    return described | found
