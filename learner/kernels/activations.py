"""sigmoid and tanh, in a form that compiles to vector instructions for float32."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from common.kernels.compiled import part

Numba = Any
"""Of numba's own classes, which mypy does not know."""

ZERO, ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LARGEST = np.float32(87.0)
_ROUND = np.float32(1.5 * 2**23)
"""Added to a small number it leaves the nearest integer in the lowest bits."""
_C2, _C3, _C4 = np.float32(5.0000001201e-1), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
_C5, _C6, _C7 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)


@intrinsic  # type: ignore[untyped-decorator]
def _times_power_of_two(_typing: Numba, _value: Numba, _rounded: Numba) -> Numba:
    """value * 2^k for a normal result, k being in the lowest bits of a float."""

    def generate(_context: Numba, builder: Numba, _signature: Numba, values: Numba) -> Numba:
        integer = ir.IntType(32)
        bits = [builder.bitcast(value, integer) for value in values]
        shifted = builder.shl(bits[1], ir.Constant(integer, 23))
        return builder.bitcast(builder.add(bits[0], shifted), ir.FloatType())

    return types.float32(types.float32, types.float32), generate


@part
def _exp(x: Any) -> Any:  # noqa: ANN401
    """e^x of a float32, within 2 units of its last place. |x| counts as 87 at most; NaN stays."""
    x = _LARGEST if x > _LARGEST else x
    x = -_LARGEST if x < -_LARGEST else x
    rounded = x * _LOG2_E + _ROUND
    k = rounded - _ROUND
    x = x - k * _LN2_HIGH - k * _LN2_LOW
    series = ((((_C7 * x + _C6) * x + _C5) * x + _C4) * x + _C3) * x + _C2
    return _times_power_of_two(series * x * x + x + ONE, rounded)


def exp(x: Any) -> Any:  # noqa: ANN401
    """e^x; for float64 (which tests use) the library's."""
    raise NotImplementedError("only compiled functions call it")


@overload(exp)  # type: ignore[untyped-decorator]
def _choose_exp(x: Numba) -> Any:  # noqa: ANN401
    def own(x: Any) -> Any:  # noqa: ANN401
        return _exp(x)

    def library(x: Any) -> Any:  # noqa: ANN401
        return math.exp(x)

    return own if x == types.float32 else library


@part
def sigmoid(x: Any) -> Any:  # noqa: ANN401
    """1 / (1 + e^-x)."""
    return ONE / (ONE + exp(-x))


@part
def tanh(x: Any) -> Any:  # noqa: ANN401
    """1 - 2 / (1 + e^2x): exact to 1e-7, not relative to a small x."""
    return ONE - _TWO / (ONE + exp(x + x))
