"""LLVM's instructions that numba has no name for: atomic operations, a maximum, and casts of bits.

Array elements are int64 or float64. The functions have no body in Python: `register()` tells numba
how to make them.
"""

import functools
import sys


def load_acquire(array, i):
    """array[i]; what its writer had written before `store_release` is seen from then on."""
    raise NotImplementedError("for numba's compiler only")


def store_release(array, i, value):
    """array[i] = value; seen only after all that was written before."""
    raise NotImplementedError("for numba's compiler only")


def fetch_add(array, i, amount):
    """array[i] += amount in one step; returns the value before."""
    raise NotImplementedError("for numba's compiler only")


def exchange_if(array, i, expected, value):
    """array[i] = value if it is `expected`, in one step; returns what it was; int64."""
    raise NotImplementedError("for numba's compiler only")


def give_way():
    """Lets the operating system run another thread on this core."""
    raise NotImplementedError("for numba's compiler only")


def larger(a, b):
    """The larger of two float64, neither of which is NaN; loops of it are vectorized."""
    raise NotImplementedError("for numba's compiler only")


def bits_of(x):
    """The int64 that has the bits of a float64."""
    raise NotImplementedError("for numba's compiler only")


def float_of(bits):
    """The float64 that has the bits of an int64."""
    raise NotImplementedError("for numba's compiler only")


@functools.cache
def register():
    """Gives numba the implementations; once a process."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic, overload

    def element(context, builder, array_type, array, i):
        structure = context.make_array(array_type)(context, builder, array)
        return cgutils.get_item_pointer(
            context, builder, array_type, structure, [i], wraparound=False
        )

    @intrinsic
    def load(typing_context, array, i):
        def generate(context, builder, signature, arguments):
            pointer = element(context, builder, signature.args[0], *arguments)
            kind = context.get_data_type(array.dtype)
            return builder.load_atomic(pointer, "acquire", 8, typ=kind)

        return array.dtype(array, types.intp), generate

    @intrinsic
    def store(typing_context, array, i, value):
        def generate(context, builder, signature, arguments):
            pointer = element(context, builder, signature.args[0], *arguments[:2])
            builder.store_atomic(arguments[2], pointer, "release", 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, array.dtype), generate

    @intrinsic
    def add(typing_context, array, i, amount):
        floating = isinstance(array.dtype, types.Float)

        def generate(context, builder, signature, arguments):
            pointer = element(context, builder, signature.args[0], *arguments[:2])
            # Elements of g have to add up only; the counters also order what lies around them.
            operation, order = ("fadd", "monotonic") if floating else ("add", "seq_cst")
            return builder.atomic_rmw(operation, pointer, arguments[2], order)

        return array.dtype(array, types.intp, array.dtype), generate

    @intrinsic
    def exchange(typing_context, array, i, expected, value):
        def generate(context, builder, signature, arguments):
            pointer = element(context, builder, signature.args[0], *arguments[:2])
            pair = builder.cmpxchg(pointer, *arguments[2:], "seq_cst", "seq_cst")
            return builder.extract_value(pair, 0)

        return types.int64(array, types.intp, types.int64, types.int64), generate

    @intrinsic
    def maximum(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            double = ir.DoubleType()
            function = builder.module.declare_intrinsic(
                "llvm.maxnum", [double], ir.FunctionType(double, [double, double])
            )
            return builder.call(function, arguments, fastmath=("nnan", "nsz"))

        return types.float64(types.float64, types.float64), generate

    def cast(source, target):
        @intrinsic
        def reinterpret(typing_context, x):
            def generate(context, builder, signature, arguments):
                return builder.bitcast(arguments[0], context.get_data_type(target))

            return target(source), generate

        return reinterpret

    to_bits, to_float = cast(types.float64, types.int64), cast(types.int64, types.float64)

    # Each system's C library, which is loaded in any case, has this function.
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    yield_core = types.ExternalFunction(name, types.int32())

    overload(load_acquire)(lambda array, i: lambda array, i: load(array, i))
    overload(store_release)(lambda array, i, value: lambda array, i, value: store(array, i, value))
    overload(fetch_add)(lambda array, i, amount: lambda array, i, amount: add(array, i, amount))
    overload(exchange_if)(
        lambda array, i, expected, value: (
            lambda array, i, expected, value: exchange(array, i, expected, value)
        )
    )
    overload(larger)(lambda a, b: lambda a, b: maximum(a, b))
    overload(bits_of)(lambda x: lambda x: to_bits(x))
    overload(float_of)(lambda bits: lambda bits: to_float(bits))
    overload(give_way)(lambda: lambda: yield_core())
