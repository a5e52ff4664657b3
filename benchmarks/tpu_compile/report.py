"""What came out, as tables."""

import datetime
import json
import os
import platform

from benchmarks.tpu_compile.checks import ROUTES
from benchmarks.tpu_compile.reading import COMPILED

HEADER = (
    "route", "step", "network", "target", "batch", "peak a core", "collectives", "Gflop a core",
    "verdict",
)  # fmt: skip


def gib(nbytes):
    """Bytes as GiB, to three digits."""
    return f"{nbytes / 2**30:.3g}"


def cells(answer):
    """A row of the table."""
    case = answer["case"]
    times = f" ({case[3]} x {answer['global_batch_size'] // case[3]:,})" if case[3] > 1 else ""
    row = [
        answer["route"], answer["step"], f"{case[1]}, {answer.get('optimizer', '')}",
        f"{answer['target']} ({answer['cores']})",
        f"{answer.get('global_batch_size', 0):,}{times}",
    ]  # fmt: skip
    if answer["status"] != COMPILED:
        return [*row, "", "", "", f"{answer['status']}: {answer.get('message', '')[:200]}"]
    limit = answer["limit_bytes"]
    peak = f"{gib(answer['peak_bytes'])} of {gib(limit) if limit else '?'} GiB"
    found = answer["collectives"]
    moved = "not readable" if found is None else ", ".join(
        f"{c['count']} {c['operation']}, {c['nbytes'] / 1e6:,.1f} MB" for c in found
    )  # fmt: skip
    return [*row, peak, moved or "none", f"{answer['flops'] / 1e9:,.4g}", "compiles"]


def table(answers):
    """All answers, as Markdown."""
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, answers)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def control_line(control):
    """One control, in a line."""
    right = "as it must be" if control["status"] == control["expected"] else "WRONG"
    message = control.get("message", "")
    return (
        f"control {control['control']}, {control['target']}: {control['status']}, "
        f"{right}{': ' if message else ''}{message[:160]}"
    )


def verdict(code, answers, controls):
    """The conclusion, in a sentence."""
    failed = [a for a in answers if a["status"] != COMPILED]
    if code == 2:
        return "The check failed: what it says about the steps isn't to be relied on."
    if code == 1:
        return f"{len(failed)} of {len(answers)} steps do not compile."
    steps = f"All {len(answers)} steps compile" if answers else "No step was asked for"
    return f"{steps}; all {len(controls)} controls are right."


def versions(answers):
    """What compiled: by route, since not all have all."""
    lines = []
    for route in ROUTES:
        found = {
            f"{name} {version}"
            for a in answers if a["route"] == route
            for name, version in a.get("versions", {}).items()
        }  # fmt: skip
        if found:
            lines.append(f"{route}: {', '.join(sorted(found))}")
    return lines


def write(folder, command, code, answers, controls):
    """Writes tpu_compile.md and tpu_compile.json.

    Args:
        folder: where to.
        command: that gives these answers again.
        code: the exit code.
        answers, controls: as `run_checks` and `run_controls` return them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dates = sorted({a["date"] for a in [*answers, *controls] if "date" in a})
    # Programs lie where only this run finds them.
    answers, controls = (
        [
            {name: value for name, value in a.items() if name not in ("path", "aliases")}
            for a in part
        ]
        for part in (answers, controls)
    )
    whole = {"verdict": verdict(code, answers, controls), "command": command}
    whole |= {"answers": answers, "controls": controls}
    (folder / "tpu_compile.json").write_text(json.dumps(whole, indent=1) + "\n")
    wrong = [c for c in controls if c["status"] != c["expected"]]
    names = sorted({c["control"] for c in controls})
    text = TEXT.format(
        verdict=whole["verdict"],
        command=command,
        table=table(answers),
        controls="; ".join(
            f"`{name}` " + next(c["expected"] for c in controls if c["control"] == name)
            for name in names
        ),
        wrong=f"of {len(controls)} answers {len(wrong) or 'none'} came out otherwise",
        versions="\n".join(f"- {line}" for line in versions(answers)),
        dates=" and ".join({dates[0], dates[-1]}) if dates else datetime.date.today().isoformat(),
        python=platform.python_version(),
        machine=f"{os.cpu_count()} {platform.machine()} CPU cores",
        routes="\n".join(
            f"- {name}, {text}:\n  {PROVES[name]}"
            for name, text in ROUTES.items()
            if any(a["route"] == name for a in answers)
        ),
    )
    (folder / "tpu_compile.md").write_text(text)


PROVES = {
    "A": """the step as it is, with its variables and its loop over micro-batches, is a program
  that the TPU compiler takes. TensorFlow lowers it as for a CPU: an operation that only its bridge
  to TPUs refuses passes here.""",
    "B": """TensorFlow knows each operation of the step on TPUs, the all-reduce is the operation
  that TPUStrategy uses, and the compiler takes what comes out. The variables are arguments and
  results, which can't cross a loop: one micro-batch an update.""",
    "C": """`fit` on Keras' JAX backend, weights on each core and the batch cut, as
  `keras.distribution.DataParallel` does; the partitioner puts in the all-reduce.""",
}

TEXT = """# Which training steps compile for TPUs

{verdict} Written by `{command}`.

The real TPU compiler, libtpu's, compiled these steps ahead of time, with no TPU attached. Nothing
ran on a TPU: that a step compiles for it says nothing about its numbers and its speed, nor about
how `tf.distribute.TPUStrategy` starts it and feeds it.

{table}

The step `trainer` is what `Trainer` gives to `strategy.run`: forward and backward pass, all-reduce
over the cores, update, in mixed bfloat16, for a model that `train.prepare` makes by the recipe; the
data are zeros of the recipe's shapes. `fit` is `model.train_step`, which Keras' `fit` runs. The
strategy stands for the cores of a slice, and does on one of them what TPUStrategy does.

{routes}

Peak a core is the compiler's own figure, beside what it says a core has. Collectives: how many, and
the bytes of their results; where it pays, the compiler itself cuts a gradient's all-reduce into a
reduce-scatter and an all-gather of the new weights, between which each core updates its part. Both
collectives and operations count once in a loop's body.

Controls, of which it is known whether a TPU can run them: {controls};
{wrong}. A step counts as rejected by the compiler's own error alone.
`host_call` asks the host for an answer, `numpy_function` does so in TensorFlow; `too_big` takes a
tebibyte, and the answer says what a core has.

{versions}

Python {python}, {machine}, {dates}. Every answer: `tpu_compile.json`.
"""
