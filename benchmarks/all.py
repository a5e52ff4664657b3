"""Runs the benchmarks one after the other, in sizes that end within half an hour on two cores.

    make bench
    make bench ARGS="scaling memory"

Each is a process of its own. Most write their page to docs/results themselves; what the others
print is kept there as NAME.txt. The exit code is 1 if one of them failed or missed a bar that it
checks; the rest runs all the same.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from benchmarks import _report

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = pathlib.Path("docs", "results")
_OUT = ["--out", str(RESULTS)]
# The options of each, by its script's name.
BENCHMARKS = {
    "ring_all_reduce": _OUT,
    "memory": _OUT,
    "sharded_update": _OUT,
    "scaling": ["--rounds", "7", *_OUT],
    "step_overhead": _OUT,
    "update_step": ["--shapes", "bert_base", "resnet50", "tiny", "--rounds", "7", *_OUT],
    "async_gcd": _OUT,
    "diagnostics_cost": ["--rounds", "5"],
    "masking": ["--rounds", "5", "--sequences", "16384"],
    "image_pipeline": ["--rounds", "5", "--images", "384"],
}
PRINT_ONLY = ("diagnostics_cost", "masking", "image_pipeline")
# What isn't run here, and why.
ELSEWHERE = {
    "tpu_compile": "runs by `make tpu-check`, in an environment of its own",
    "kernel_methods": "takes 20 minutes; its results are in docs/results",
    "small_runs": "takes half an hour; its results are in docs/results",
    "rewarmup": "a long study, whose results are in docs/results",
    "lipschitz_peak": "a long study, whose results are in docs/results",
}


def run(name):
    """Runs one; returns its exit code."""
    command = [f"benchmarks/{name}.py", *BENCHMARKS[name]]
    said = []
    with subprocess.Popen(
        [sys.executable, "-u", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
    if name in PRINT_ONLY and process.returncode == 0:
        text = f"{_report.provenance(command=command)}\n\n{''.join(said)}"
        _report.write(ROOT / RESULTS / f"{name}.txt", text)
    return process.returncode


def main():
    """Runs those that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; by default all")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        reasons = [f"{name}: {why}" for name, why in ELSEWHERE.items()]
        parser.error(
            f"no such benchmark: {', '.join(unknown)}. There are {', '.join(BENCHMARKS)}. Not run "
            f"here: {'; '.join(reasons)}."
        )
    rows = []
    for name in names:
        print(f"\n==== {name}", flush=True)
        began = time.monotonic()
        code = run(name)
        rows.append([name, f"{(time.monotonic() - began) / 60:.1f}", code])
    print("\n" + _report.table(["benchmark", "minutes", "exit code"], rows))
    return 1 if any(code for *_, code in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
