"""Programs of which it is known whether a TPU can run them: without them an answer says nothing."""

from benchmarks.tpu_compile.reading import COMPILED, REJECTED

_SUM = """
    %sum = "stablehlo.all_reduce"(%product) <{{
      replica_groups = dense<[{cores}]> : tensor<1x{count}xi64>
    }}> ({{
    ^bb0(%a: tensor<f32>, %b: tensor<f32>):
      %c = stablehlo.add %a, %b : tensor<f32>
      stablehlo.return %c : tensor<f32>
    }}) : (tensor<256x256xf32>) -> tensor<256x256xf32>"""

_MATMUL = """
func.func public @main(%x: tensor<256x256xbf16>) -> tensor<256x256xf32> {{
    %product = stablehlo.dot_general %x, %x, contracting_dims = [1] x [0]
      : (tensor<256x256xbf16>, tensor<256x256xbf16>) -> tensor<256x256xf32>{sum}
    return {result} : tensor<256x256xf32>
}}"""

# A tebibyte of arguments: more than any core has.
_TOO_BIG = """
func.func public @main(%x: tensor<524288x524288xf32>) -> tensor<524288x524288xf32> {
    %y = stablehlo.add %x, %x : tensor<524288x524288xf32>
    return %y : tensor<524288x524288xf32>
}"""

# A function of the host's: what numpy_function and its like become elsewhere.
_HOST_CALL = """
func.func public @main(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {
    %y = stablehlo.custom_call @xla_python_cpu_callback(%x) {api_version = 2 : i32}
      : (tensor<8x8xf32>) -> tensor<8x8xf32>
    return %y : tensor<8x8xf32>
}"""


def matmul(cores):
    """A product in bfloat16, summed over all cores."""
    total = _SUM.format(cores=list(range(cores)), count=cores) if cores > 1 else ""
    return _MATMUL.format(sum=total, result="%sum" if total else "%product")


def for_compiler(cores):
    """{name: (StableHLO, the right answer)} for a slice of so many cores."""
    return {
        "matmul": (matmul(cores), COMPILED),
        "too_big": (_TOO_BIG, REJECTED),
        "host_call": (_HOST_CALL, REJECTED),
    }


# Programs of `export`, for TensorFlow's bridge.
FOR_BRIDGE = {"matmul": COMPILED, "numpy_function": REJECTED, "complex128": REJECTED}
