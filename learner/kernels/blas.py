"""Matrix products for compiled functions: the BLAS that scipy brings, called without Python's lock.

A product runs in the thread that asks for it, since the callers are already one for each core.

A matrix is part of a flat array: it begins at number `at`, and its rows lie one behind the other.
"""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic
from threadpoolctl import ThreadpoolController

from common.kernels.compiled import part

Numba = Any
"""Of numba's own classes, which mypy does not know."""
Numbers = np.ndarray[tuple[int], Any]
"""Flat, of float32 or float64."""
FLAT = ("f4[::1]", "f8[::1]")
"""The same for signatures."""

AS_IT_IS, TRANSPOSED = ord("N"), ord("T")
_ROUTINES = {np.dtype(np.float32): "sgemm", np.dtype(np.float64): "dgemm"}


@cache
def product_routine(dtype: np.dtype[Any]) -> int:
    """Where the routine for such numbers lies: compiled functions take it as `blas`."""
    address: int = get_cython_function_address("scipy.linalg.cython_blas", _ROUTINES[dtype])
    ThreadpoolController().select(user_api="blas").limit(limits=1)
    return address


@intrinsic  # type: ignore[untyped-decorator]
def _gemm(
    _typing: Numba,
    _blas: Numba,
    _m: Numba,
    _n: Numba,
    _k: Numba,
    a: Numba,
    _a_at: Numba,
    _a_width: Numba,
    _a_letter: Numba,
    b: Numba,
    _b_at: Numba,
    _b_width: Numba,
    _b_letter: Numba,
    c: Numba,
    _c_at: Numba,
    _beta: Numba,
) -> Numba:
    """C = A B + beta C in the routine's own order, which is that of columns."""

    def generate(context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
        blas, m, n, k, a_data, a_at, a_width, a_t, b_data, b_at, b_width, b_t, c_data, c_at, beta = values
        byte, integer, number = ir.IntType(8), ir.IntType(32), context.get_value_type(c.dtype)

        def stored(value: Numba) -> Numba:
            return cgutils.alloca_once_value(builder, value)

        def size(value: Numba) -> Numba:
            return stored(builder.trunc(value, integer))

        def letter(value: Numba) -> Numba:
            return stored(builder.trunc(value, byte))

        def begin(kind: Numba, data: Numba, at: Numba) -> Numba:
            return builder.gep(context.make_array(kind)(context, builder, data).data, [at])

        one = stored(ir.Constant(number, 1.0))
        arguments = [
            *(letter(a_t), letter(b_t), size(m), size(n), size(k), one),
            *(begin(a, a_data, a_at), size(a_width), begin(b, b_data, b_at), size(b_width)),
            *(stored(context.cast(builder, beta, types.float64, c.dtype)), begin(c, c_data, c_at), size(m)),
        ]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(builder.inttoptr(blas, kind.as_pointer()), arguments)
        return context.get_dummy_value()

    place, flag = types.int64, types.int64
    matrix = (place, place, flag)
    return types.void(place, place, place, place, a, *matrix, b, *matrix, c, place, types.float64), generate


@part
def multiply(
    blas: int, rows: int, inner: int, columns: int,
    a: Numbers, a_at: int, b: Numbers, b_at: int, c: Numbers, c_at: int, beta: float,
) -> None:  # fmt: skip
    """C[rows, columns] = A[rows, inner] B[inner, columns] + beta C."""
    _gemm(blas, columns, rows, inner, b, b_at, columns, AS_IT_IS, a, a_at, inner, AS_IT_IS, c, c_at, beta)


@part
def multiply_columns(
    blas: int, rows: int, inner: int, columns: int,
    a: Numbers, a_at: int, b: Numbers, b_at: int, c: Numbers, c_at: int, beta: float,
) -> None:  # fmt: skip
    """C[rows, columns] = A^T B + beta C, of A[inner, rows] and B[inner, columns]."""
    _gemm(blas, columns, rows, inner, b, b_at, columns, AS_IT_IS, a, a_at, rows, TRANSPOSED, c, c_at, beta)
