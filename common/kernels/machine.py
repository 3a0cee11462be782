"""Instructions that Python has no word for, for compiled functions alone.

Each is a function that tells numba the type of its result and how to generate its code. Nothing checks the
places that are loaded and stored: whoever names one has to know that its bytes are there.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 64

Numba = Any
"""Of numba's own classes, which mypy does not know."""


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(_typing: Numba, _bits: Numba) -> Numba:
    """How many zeros stand below the lowest one of 64 bits; at least one bit is set."""

    def generate(_context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def count_ones(_typing: Numba, _bits: Numba) -> Numba:
    """How many of 64 bits are set."""

    def generate(_context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
        return builder.ctpop(values[0])

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def differing(_typing: Numba, words: Numba, _at: Numba, others: Numba, _others_at: Numba) -> Numba:
    """Which of LANES words of two arrays differ, a bit for each; by vector instructions if there are any."""

    def generate(context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
        lanes = ir.VectorType(context.get_value_type(words.dtype), LANES)
        mine = _load(context, builder, words, values[0], values[1], lanes)
        theirs = _load(context, builder, others, values[2], values[3], lanes)
        return builder.bitcast(builder.icmp_unsigned("!=", mine, theirs), ir.IntType(LANES))

    return types.uint64(words, types.int64, others, types.int64), generate


def _loading(kind: Numba) -> Numba:
    @intrinsic  # type: ignore[untyped-decorator]
    def load(_typing: Numba, data: Numba, _at: Numba) -> Numba:
        def generate(context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
            return _load(context, builder, data, values[0], values[1], context.get_value_type(kind))

        return kind(data, types.int64), generate

    return load


def _storing(kind: Numba) -> Numba:
    @intrinsic  # type: ignore[untyped-decorator]
    def store(_typing: Numba, data: Numba, _at: Numba, _value: Numba) -> Numba:
        def generate(context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
            array, at, value = values
            pointer = _pointer(context, builder, data, array, at, context.get_value_type(kind))
            builder.store(value, pointer).align = 1
            return context.get_dummy_value()

        return types.void(data, types.int64, kind), generate

    return store


def _load(context: Numba, builder: Numba, data: Numba, array: Numba, at: Numba, kind: Numba) -> Numba:
    value = builder.load(_pointer(context, builder, data, array, at, kind))
    value.align = 1
    return value


def _pointer(context: Numba, builder: Numba, data: Numba, array: Numba, at: Numba, kind: Numba) -> Numba:
    items = context.make_array(data)(context, builder, array).data
    return builder.bitcast(builder.gep(items, [at]), kind.as_pointer())


# From any place of an array of bytes on.
load_u32, load_f32, load_u64 = _loading(types.uint32), _loading(types.float32), _loading(types.uint64)
store_u32, store_u64 = _storing(types.uint32), _storing(types.uint64)
