"""A step from TensorFlow to XLA: a process that writes one program.

    python -m benchmarks.tpu_compile.export ORDER.json

Two ways: with its variables, by any TensorFlow; and by TensorFlow's bridge to TPUs, which knows
what they can't do, by tensorflow-tpu, as a function of the variables' values. The last line of the
output is RESULT and what came out, JSON.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.tpu_compile import replica, stateless, steps
from benchmarks.tpu_compile.cases import Case, recipe_of
from benchmarks.tpu_compile.reading import COMPILED, REJECTED

# How TensorFlow says that it knows no way to run an operation on this kind of device.
_UNSUPPORTED = "Detected unsupported operations"


def with_variables(order):
    """The program of a step whose variables are TensorFlow's.

    Returns:
        (function, its specs, aliases): the last is a function that gives, once the first has been
        traced, pairs (result, argument) of a variable's values.
    """
    stage = steps.stage_of(recipe(order), order["cores"], replica.collective_reduce)
    return *steps.program(stage, order["step"]), list  # none: the program says them itself


def through_bridge(order):
    """The same step as a function of its variables' values."""
    with stateless.graph_variables() as variables:
        stage = steps.stage_of(recipe(order), order["cores"], replica.cross_replica_sum)
        update, specs = steps.program(stage, order["step"])
    results = []

    def pure(*tensors):
        found, values = stateless.stateless(update, variables)(*tensors)
        results[:] = found
        return [*found, *values]

    values = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
    return pure, [*values, *specs], lambda: [(len(results) + i, i) for i in range(len(variables))]


def recipe(order):
    """The recipe of an order."""
    return recipe_of(Case(*order["case"]), order["cores"])


def numpy_function(order):
    """A control: a step that asks the host, which a TPU's program can't."""

    def ask(x):
        return tf.numpy_function(lambda array: array.mean(), [x @ x], tf.float32)

    return ask, [tf.TensorSpec((8, 8))], list


def complex128(order):
    """A control: numbers that TPUs don't have."""
    return (lambda x: x @ x), [tf.TensorSpec((8, 8), tf.complex128)], list


def matmul(order):
    """A control that must pass: a product, summed over the cores as the steps' gradients are."""
    return (lambda x: replica.cross_replica_sum(x @ x, 8)), [tf.TensorSpec((8, 8))], list


PROGRAMS = {f.__name__: f for f in (with_variables, through_bridge)}
PROGRAMS |= {f.__name__: f for f in (numpy_function, complex128, matmul)}


def main(order, path):
    """Writes the program of an order to `path`: {"program", "platform"}, and what else it asks."""
    function, specs, aliases = PROGRAMS[order["program"]](order)
    compiled = tf.function(function, jit_compile=True)
    generate = compiled.experimental_get_compiler_ir(*specs)
    options = {"platform_name": order["platform"]} if order["platform"] else {}
    try:
        program = generate(stage="hlo_serialized", **options)
    except ValueError as error:
        message = " ".join(str(error).split())
        if _UNSUPPORTED not in message:
            raise
        result = {"status": REJECTED, "message": message[:600]}
    else:
        with open(path, "wb") as file:
            file.write(program)
        result = {"status": COMPILED, "path": path, "aliases": aliases()}
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    print("RESULT " + json.dumps(result | {"versions": versions}))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as order_file:
        main(json.load(order_file), sys.argv[1].removesuffix(".order.json") + ".hlo.pb")
