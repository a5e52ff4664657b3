"""The TPU compiler, ahead of time, with no TPU: a process that compiles one program.

    python -m benchmarks.tpu_compile.compiler ORDER.json

The order says target and program; the last line of the output is RESULT and what came out, JSON.
It needs jax and libtpu, of the versions in constraints-tpu-check.txt: parts of jax that are not
public are used. What the compiler refuses is a result; any other exception is none.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
import time

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import jax
import numpy as np
from jax._src import compiler
from jax._src.interpreters import mlir as jax_mlir
from jax._src.lib import _jax
from jax._src.lib.mlir import ir
from jax.experimental import topologies

from benchmarks.tpu_compile.reading import (
    COMPILED,
    COMPILING,
    REJECTED,
    collectives,
    memory_limit,
)


def devices_of(target):
    """The cores of a slice, such as "v5e:2x4", as jax describes them."""
    return topologies.get_topology_desc(target, platform="tpu").devices


def module_of(path, aliases):
    """The StableHLO of a program in a file of HLO, in the present context of MLIR.

    Args:
        path: of the file, HLO's protocol buffer.
        aliases: pairs (result, argument) that shall share their memory, where the file doesn't say.
    """
    with open(path, "rb") as file:
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(file.read()))
    copies = []

    def visit(operation):
        # TensorFlow's results are copies of themselves, which the compiler's input can't have.
        if operation.name == "mhlo.copy":
            copy = operation.operation
            copy.results[0].replace_all_uses_with(copy.operands[0])
            copies.append(copy)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for copy in copies:
        copy.erase()
    if aliases:
        entries = ", ".join(
            f'{{alias = {{kind = "may_alias", parameter_index = array<i64>, parameter_number = '
            f"{argument} : i64}}, output_index = array<i64: {result}>}}"
            for result, argument in aliases
        )
        module.operation.attributes["mhlo.input_output_alias"] = ir.Attribute.parse(f"[{entries}]")
    return module


def compile_module(module, devices):
    """The executable of a module for these cores, a replica each; raises the compiler's error."""
    options = compiler.get_compile_options(
        num_replicas=len(devices),
        num_partitions=1,
        device_assignment=np.array([[device.id] for device in devices]),
    )
    devices = tuple(devices)
    return devices[0].client.compile(
        module, executable_devices=_jax.DeviceList(devices), compile_options=options
    )


def described(executable):
    """What an executable needs of a core: memory, operations, collectives."""
    memory, cost = executable.get_compiled_memory_stats(), executable.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    try:
        text = "\n".join(module.to_string() for module in executable.hlo_modules())
    except jax.errors.JaxRuntimeError:  # jaxlib can't read what libtpu writes for some targets
        text = None
    found = None if text is None else [c._asdict() for c in collectives(text)]
    return {
        "peak_bytes": memory.peak_memory_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": cost["flops"],
        "collectives": found,
    }


def answer(compile_program):
    """Compiles, and reports; only the compiler's own error is a rejection.

    Args:
        compile_program: function without arguments that returns the executable, and does nothing
            but compile.
    """
    print(COMPILING, flush=True)
    began = time.perf_counter()
    try:
        executable = compile_program()
    except jax.errors.JaxRuntimeError as error:
        message = " ".join(str(error).split())
        result = {"status": REJECTED, "message": message[:600], "memory": memory_limit(message)}
    else:
        result = {"status": COMPILED, **described(executable)}
    result["seconds"] = time.perf_counter() - began
    return result


def versions(*names):
    """Of these packages, and of what compiles."""
    return {name: importlib.metadata.version(name) for name in (*names, "jax", "jaxlib", "libtpu")}


def main(order):
    """Carries out an order: {"target"} and one of these programs.

    "path" of HLO, with "aliases"; or "case", for Keras on JAX; or "program", StableHLO.
    """
    devices = devices_of(order["target"])
    if "case" in order:
        # Here, since the other programs need neither Keras nor TensorFlow.
        from benchmarks.tpu_compile import keras_jax
        from benchmarks.tpu_compile.cases import Case

        lowered = keras_jax.lower(Case(*order["case"]), devices)
        result = answer(lambda: lowered.compile().runtime_executable())
    else:
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax_mlir.make_ir_context())
            if "program" in order:
                module = ir.Module.parse(order["program"])
            else:
                module = module_of(order["path"], order["aliases"])
            result = answer(lambda: compile_module(module, devices))
    result |= {"cores": len(devices), "versions": versions(*["keras"] * ("case" in order))}
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as order_file:
        main(json.load(order_file))
