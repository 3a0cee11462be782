"""A GRU alone over some sequences of a packed batch, all time steps in one call.

Arrays are flat. `weights`, `back`, `gates` and `gradients` are gru.py's. `share` is the first sequence and
the last, not included.
Shapes: T times with `sizes` rows each, R rows in PackedSequence's layout, X input, D hidden.
"""

import numpy as np

from common.kernels.compiled import compiled
from learner.kernels.blas import FLAT, Numbers
from learner.kernels.gru import NONE, Places, Several, add, inputs_gradient, room_for_gates, step, step_back


@compiled(
    *(f"void(i8, UniTuple(i8, 2), i8[::1], UniTuple({F}, 3), {F}, UniTuple({F}, 3), {F})" for F in FLAT)
)
def unroll(
    blas: int, share: tuple[int, int], sizes: Places, weights: Several, x: Numbers, gates: Several,
    hidden: Numbers,
) -> None:  # fmt: skip
    """Writes r, z and n and hidden states [R, D] of the inputs [R, X]."""
    size, (first, last) = len(weights[2]) // 4, share
    widths = len(weights[0]) // (3 * size), size
    m = np.empty((last - first) * size, x.dtype)
    begin, before = 0, NONE
    for time in range(len(sizes)):
        rows = min(last, sizes[time]) - first
        if rows <= 0:
            break
        at = (begin + first) * size
        step(blas, rows, widths, weights, x, gates, at, m, hidden, before, at)
        before = at
        begin += sizes[time]


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), i8[::1], UniTuple({F}, 3), UniTuple({F}, 2), {F}, UniTuple({F}, 3),"
        f" {F}, {F}, {F}, UniTuple({F}, 3))"
        for F in FLAT
    )
)
def walk_back(
    blas: int, share: tuple[int, int], sizes: Places, weights: Several, back: Several, x: Numbers,
    gates: Several, hidden: Numbers, to_hidden: Numbers, to_x: Numbers, gradients: Several,
) -> None:  # fmt: skip
    """Adds the weights' gradients to `gradients`; writes the inputs' to `to_x`, unless it is empty."""
    size, (first, last) = len(weights[2]) // 4, share
    widths = len(weights[0]) // (3 * size), size
    to_gates = room_for_gates((last - first) * size, x)
    carried = np.zeros((last - first) * size, x.dtype)
    begin = len(hidden) // size
    for time in range(len(sizes) - 1, -1, -1):
        begin -= sizes[time]
        rows, row = min(last, sizes[time]) - first, begin + first
        if rows <= 0:
            continue
        at, before = row * size, NONE if time == 0 else (row - sizes[time - 1]) * size
        add(rows * size, to_hidden, at, carried)
        step_back(
            blas, rows, widths, weights, back, x, gates, at, hidden, before, carried, to_gates, gradients
        )  # fmt: skip
        if len(to_x) > 0:
            inputs_gradient(blas, rows, widths, back, to_gates, to_x, row * widths[0])
