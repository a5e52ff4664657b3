"""The check that steps compile for TPUs: how it reads, judges and fails; slowly, the real one."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks.tpu_compile import __main__ as command
from benchmarks.tpu_compile import report
from benchmarks.tpu_compile.cases import CASES
from benchmarks.tpu_compile.checks import Check, Machine, run_checks, run_controls
from benchmarks.tpu_compile.reading import (
    answer_of,
    collectives,
    exit_code,
    memory_limit,
)

pytestmark = pytest.mark.tensorflow
ROOT = pathlib.Path(__file__).resolve().parents[1]
TPU_PYTHON = ROOT / ".venv-tpu-check" / "bin" / "python"

PROGRAM = """
HloModule step, is_scheduled=true

%body (p: (f32[8])) -> f32[8] {
  ROOT %all-reduce.1 = f32[8]{0:T(256)} all-reduce(%p.2), channel_id=1, to_apply=%sum
}

%all-reduce-scatter.7 (input.14: f32[3,5]) -> f32[2,8] {
  %all-reduce.2 = f32[2,8]{1,0:T(8,128)} all-reduce(%bitcast.3), to_apply=%sum
}

%all-gather.7 (input.15: f32[1,8]) -> f32[3,5] {
  %all-reduce.3 = f32[2,8]{1,0:T(8,128)} all-reduce(%update.1), to_apply=%sum
}

ENTRY %main (p0: f32[4,2]) -> f32[4,2] {
  %a = (f32[5,5,1,6]{3,2,1,0:T(1,128)S(1)}, /*index=1*/bf16[84]{0:T(128)(2,1)}, s32[]) all-reduce()
  %start = (bf16[16,2]{1,0}, bf16[64,2]{1,0}) all-gather-start(%c), dimensions={0}
  %done = bf16[64,2]{1,0} all-gather-done(%start)
  %q = (u8[3]{0}, u8[3]{0}, u32[], u32[]) collective-permute-start(%r), source_target_pairs={{0,1}}
  %s = f8e4m3fn[10]{0} reduce-scatter(%t), dimensions={0}
  %fusion = f32[8]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-reduce-like
}
"""


def test_collectives_are_counted_once_by_what_they_do_with_the_bytes_of_their_results():
    found = {c.operation: (c.count, c.nbytes) for c in collectives(PROGRAM)}
    assert found == {
        "all-reduce": (2, 8 * 4 + (5 * 5 * 6 * 4 + 84 * 2 + 4)),
        "all-gather": (2, 64 * 2 * 2 + 2 * 8 * 4),
        "collective-permute": (1, 3),
        "reduce-scatter": (2, 10 + 2 * 8 * 4),
    }


def test_a_program_without_collectives_has_none():
    assert collectives("ENTRY %m {\n ROOT %d = f32[2]{0} dot(%a, %b)\n}") == []


def test_a_type_of_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="size of q7 is not known"):
        collectives("  %x = q7[2]{0} all-reduce(%y)")


def test_memory_limit_reads_the_message_of_a_program_that_is_too_big():
    message = (
        "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (2.00T) exceeds "
        "available HBM (15.75G). HLO module: main."
    )
    assert memory_limit(message) == (2 * 2**40, round(15.75 * 2**30))
    assert memory_limit("INVALID_ARGUMENT: Custom emitter for x not found") is None


@pytest.mark.parametrize(
    "returncode, result, compiling, expected",
    [
        (0, "compiled", True, "compiled"),
        (0, "rejected", True, "rejected"),
        (0, None, True, "error"),  # it ended without a word
        (0, "fine", True, "error"),
        (1, "compiled", True, "error"),
        (-6, None, True, "aborted"),
        (134, None, True, "aborted"),
        (-11, None, True, "aborted"),
        (-6, None, False, "error"),  # before the compiler saw the program
        (-9, None, True, "error"),  # killed, for want of memory perhaps
    ],
)
def test_only_the_compiler_rejects(returncode, result, compiling, expected):
    assert answer_of(returncode, result, compiling) == expected


RIGHT = [("compiled", "compiled"), ("rejected", "rejected")]


@pytest.mark.parametrize(
    "steps, controls, code",
    [
        (["compiled"], RIGHT, 0),
        (["compiled", "rejected"], RIGHT, 1),
        (["aborted"], RIGHT, 1),
        (["rejected", "error"], RIGHT, 2),
        (["compiled"], [*RIGHT, ("compiled", "rejected")], 2),
        (["rejected"], [("error", "compiled")], 2),
        ([], RIGHT, 0),
    ],
)
def test_exit_codes(steps, controls, code):
    assert exit_code(steps, controls) == code


def machine_that(tmp_path, script):
    """A `Machine` whose process for the TPU's side is this shell script."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n" + script)
    python.chmod(0o755)
    return Machine(python, 1, tmp_path / "kept")


def result(**fields):
    return f"echo 'RESULT {json.dumps(fields)}'\n"


def test_an_abort_of_the_compiler_is_a_failure_of_the_step_and_is_kept(tmp_path):
    calls = tmp_path / "calls"
    script = f"echo call >> {calls}\necho COMPILING\nkill -ABRT $$\n"
    with machine_that(tmp_path, script) as machine:
        for _ in range(2):
            answer = machine.carry_out("compiler", {"target": "v5e:2x4"})
            assert answer["status"] == "aborted"
    assert calls.read_text() == "call\n"


def test_a_mistake_of_the_check_is_no_rejection_and_is_not_kept(tmp_path):
    calls = tmp_path / "calls"
    script = f"echo call >> {calls}\necho COMPILING\necho a typo >&2\nexit 1\n"
    with machine_that(tmp_path, script) as machine:
        for _ in range(2):
            answer = machine.carry_out("compiler", {"target": "v5e:2x4"})
            assert answer["status"] == "error"
            assert "a typo" in answer["message"]
    assert calls.read_text() == "call\ncall\n"


COMPILED = {"status": "compiled", "cores": 8, "flops": 2e9, "peak_bytes": 2**30}
COMPILED |= {"collectives": [{"operation": "all-reduce", "count": 2, "nbytes": 5_000_000}]}


def test_a_compiler_that_takes_all_fails_its_controls(tmp_path):
    with machine_that(tmp_path, result(**COMPILED)) as machine:
        controls = run_controls(machine, ["v5e:2x4"], bridge=True)
    wrong = {(c["control"], c["target"]) for c in controls if c["status"] != c["expected"]}
    assert wrong == {
        ("too_big", "v5e:2x4"), ("host_call", "v5e:2x4"),
        ("numpy_function", "bridge"), ("complex128", "bridge"),
    }  # fmt: skip
    assert exit_code(["compiled"], [(c["status"], c["expected"]) for c in controls]) == 2


def test_a_step_that_compiles_is_reported_with_memory_collectives_and_operations(tmp_path):
    check = Check("C", "fit", CASES["lenet5"], "v5e:2x4")
    controls = [
        {"control": "matmul", "target": "v5e:2x4", "status": "compiled", "expected": "compiled",
         "cores": 8},
        {"control": "too_big", "target": "v5e:2x4", "status": "rejected", "expected": "rejected",
         "memory": [2**41, 16 * 2**30]},
    ]  # fmt: skip
    with machine_that(tmp_path, result(**COMPILED)) as machine:
        answers = run_checks(machine, [check], controls)
    row = report.table(answers).splitlines()[-1]
    for cell in ("| 512 |", "| 1 of 16 GiB |", "2 all-reduce, 5.0 MB", "| 2 |", "| compiles |"):
        assert cell in row
    report.write(tmp_path / "out", "make tpu-check", 0, answers, controls)
    text = (tmp_path / "out" / "tpu_compile.md").read_text()
    assert row in text and "All 1 steps compile; all 2 controls are right." in text
    assert json.loads((tmp_path / "out" / "tpu_compile.json").read_text())["answers"] == answers


def test_the_export_s_rejection_is_the_step_s(tmp_path):
    check = Check("B", "trainer", CASES["lenet5"], "v5e:2x4")
    script = result(status="rejected", message="Detected unsupported operations")
    controls = [{"control": "matmul", "target": "v5e:2x4", "cores": 8}]
    with machine_that(tmp_path, script) as machine:
        answers = run_checks(machine, [check], controls)
    assert [a["status"] for a in answers] == ["rejected"]
    assert "rejected: Detected unsupported" in report.table(answers)


def test_the_default_checks_are_train_py_s_step_of_three_networks_and_fit_s_with_lamb():
    options = command.parse(["--tpu_python", sys.executable])
    found = {(c.route, c.step, c.case.model) for c in command.checks_of(options)}
    networks = ("lenet5", "resnet50", "bert_base")
    assert found == {
        *itertools.product("B", ["trainer"], networks),
        *itertools.product("BC", ["fit"], ("lenet5", "bert_base")),
    }


def test_without_the_environment_it_says_how_to_make_it(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--tpu_python", "nowhere/python"])
    assert "make tpu-check" in capsys.readouterr().err


def one_update(cores, kind, *, graph_variables):
    """(the loss or logs, LeNet's variables) after one step of 4 digits a core."""
    import tensorflow as tf

    from benchmarks.tpu_compile import stateless, steps
    from benchmarks.tpu_compile.cases import recipe_of

    keras.backend.clear_session()
    case = CASES["lenet5"]._replace(examples_per_core=4)
    recipe = recipe_of(case, 1).replace(precision="float32", learning_rate=0.01)
    recipe = recipe.replace(global_batch_size=4 * cores, warmup_epochs=0.0)
    reduced = []

    def all_reduce(tensor, replicas):
        reduced.append(tensor)
        return tensor * replicas  # all replicas have the same examples

    with stateless.graph_variables() as made:
        stage = steps.stage_of(recipe, cores, all_reduce)
        update, specs = steps.program(stage, kind)
    random = np.random.default_rng(0)
    batch = [
        tf.constant(random.integers(0, 10, s.shape) if s.dtype.is_integer
                    else random.random(s.shape), s.dtype)
        for s in specs
    ]  # fmt: skip
    if graph_variables:
        before = [v.numpy() for v in made]
        pure = tf.function(stateless.stateless(update, made))
        _, values = pure(*[tf.identity(v) for v in made], *batch)
        assert all(np.array_equal(v.numpy(), b) for v, b in zip(made, before, strict=True))
        for variable, value in zip(made, values, strict=True):
            variable.assign(value)
    else:
        tf.function(update)(*batch)
    weights = [v.numpy() for v in stage.trainer.model.trainable_variables]
    return reduced, weights, [v.numpy() for v in made]


@pytest.mark.parametrize("kind", ["trainer", "fit"])
def test_a_step_of_variables_values_is_the_step_itself(kind):
    _, _, expected = one_update(1, kind, graph_variables=False)
    _, _, found = one_update(1, kind, graph_variables=True)
    assert len(found) == len(expected) > 30
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-6, atol=1e-7)


def test_each_gradient_crosses_the_slice_once_and_equal_cores_make_the_step_of_one():
    _, expected, _ = one_update(1, "trainer", graph_variables=False)
    reduced, found, _ = one_update(4, "trainer", graph_variables=False)
    assert sorted(tuple(t.shape) for t in reduced) == sorted(w.shape for w in found)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-6)


NETWORKS = """
import keras
import tensorflow as tf


class AsksTheHost(keras.layers.Layer):
    def call(self, x):
        mean = tf.numpy_function(lambda array: array.mean(), [x], x.dtype)
        return x + tf.ensure_shape(mean, ())


def network(layers, input_shape, num_classes):
    inputs = keras.Input(input_shape)
    x = keras.layers.Flatten()(inputs)
    for layer in layers:
        x = layer(x)
    outputs = keras.layers.Dense(num_classes, dtype="float32")(x)
    return keras.Model(inputs, outputs)


def small(input_shape, num_classes):
    return network([keras.layers.Dense(16, "relu")], input_shape, num_classes)


def impossible(input_shape, num_classes):
    return network([AsksTheHost()], input_shape, num_classes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not TPU_PYTHON.exists(), reason="make tpu-check makes the environment")
@pytest.mark.parametrize("network, code", [("small", 0), ("impossible", 1)])
def test_the_real_compiler_takes_a_step_and_refuses_one(tmp_path, network, code):
    (tmp_path / "networks_of_test.py").write_text(NETWORKS)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tpu_compile", "--models", f"networks_of_test:{network}",
         "--tpu_python", str(TPU_PYTHON), "--steps", "trainer", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr[-3000:]
    found = json.loads((tmp_path / "tpu_compile.json").read_text())
    assert {c["control"] for c in found["controls"]} >= {"matmul", "too_big", "numpy_function"}
    if code == 0:
        reduced = found["answers"][0]["collectives"]
        # 784 x 16 + 16 and 16 x 10 + 10 gradients, each of float32.
        assert sum(c["nbytes"] for c in reduced) >= 4 * (784 * 16 + 16 + 160 + 10)
    else:
        assert "PyFunc" in " ".join(a["message"] for a in found["answers"])
