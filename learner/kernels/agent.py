"""The agent network from embedding to head for some sequences of a packed batch, all time steps in one call.

A time step of all layers stays in the processor's cache.

Arrays are flat. `weights` are what the obs are multiplied with [O, D], the table of one-hot codes [V, D],
the GRU's three (gru.py), and the head's [D, A] and bias. `share` is the first sequence and the last, not
included.
Shapes: T times with `sizes` rows each, M agent rows in PackedSequence's layout, O obs, D hidden, A actions.
"""

import numpy as np

from common.kernels.compiled import compiled, part
from learner.kernels.blas import FLAT, Numbers, multiply, multiply_columns
from learner.kernels.gru import (
    NONE,
    Places,
    Several,
    add,
    add_rows,
    inputs_gradient,
    rectify,
    rectify_back,
    repeat,
    room_for_gates,
    step,
    step_back,
)


@part
def _embed(
    blas: int, rows: int, row: int, size: int, obs: Numbers, codes: Places,
    from_obs: Numbers, table: Numbers, x: Numbers, at: int,
) -> None:  # fmt: skip
    width = len(from_obs) // size
    for k in range(rows):
        repeat(table, codes[row + k] * size, size, x, at + k * size, 1)
    multiply(blas, rows, width, size, obs, row * width, from_obs, 0, x, at, 1.0)
    rectify(rows * size, x, at)


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), i8[::1], {F}, i8[::1], UniTuple({F}, 7), UniTuple({F}, 4), {F}, {F})"
        for F in FLAT
    )
)
def unroll(
    blas: int, share: tuple[int, int], sizes: Places, obs: Numbers, codes: Places,
    weights: Several, saved: Several, hidden: Numbers, q: Numbers,
) -> None:  # fmt: skip
    """Writes hidden states [M, D] and the head's outputs [M, A].

    `saved`, the embedded inputs and r, z and n, has every row if it is as long as `hidden`, else a step's.
    """
    from_obs, table, input_weights, hidden_weights, biases, head, head_bias = weights
    x, r, z, n = saved
    size, actions, (first, last) = len(biases) // 4, len(head_bias), share
    gru, kept = (input_weights, hidden_weights, biases), len(x) == len(hidden)
    m = np.empty((last - first) * size, x.dtype)
    begin, before = 0, NONE
    for time in range(len(sizes)):
        rows = min(last, sizes[time]) - first
        if rows <= 0:
            break
        row = begin + first
        at = row * size if kept else 0
        _embed(blas, rows, row, size, obs, codes, from_obs, table, x, at)
        step(blas, rows, (size, size), gru, x, (r, z, n), at, m, hidden, before, row * size)
        repeat(head_bias, 0, actions, q, row * actions, rows)
        multiply(blas, rows, size, actions, hidden, row * size, head, 0, q, row * actions, 1.0)
        before = row * size
        begin += sizes[time]


@part
def _head_back(
    blas: int, rows: int, row: int, size: int, head_back: Numbers, hidden: Numbers, to_q: Numbers,
    to_hidden: Numbers, to_head: Numbers, to_head_bias: Numbers,
) -> None:  # fmt: skip
    actions = len(to_head_bias)
    multiply(blas, rows, actions, size, to_q, row * actions, head_back, 0, to_hidden, 0, 1.0)
    multiply_columns(blas, size, rows, actions, hidden, row * size, to_q, row * actions, to_head, 0, 1.0)
    add_rows(rows, actions, to_q, row * actions, to_head_bias, 0)


@part
def _embed_back(
    blas: int, rows: int, row: int, size: int, obs: Numbers, codes: Places, x: Numbers, to_x: Numbers,
    to_from_obs: Numbers, to_table: Numbers,
) -> None:  # fmt: skip
    width = len(to_from_obs) // size
    rectify_back(rows * size, x, row * size, to_x, 0)
    multiply_columns(blas, width, rows, size, obs, row * width, to_x, 0, to_from_obs, 0, 1.0)
    for k in range(rows):
        add_rows(1, size, to_x, k * size, to_table, codes[row + k] * size)


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), i8[::1], {F}, i8[::1], UniTuple({F}, 7), UniTuple({F}, 3),"
        f" UniTuple({F}, 4), {F}, {F}, {F}, UniTuple({F}, 7))"
        for F in FLAT
    )
)
def walk_back(
    blas: int, share: tuple[int, int], sizes: Places, obs: Numbers, codes: Places, weights: Several,
    back: Several, saved: Several, hidden: Numbers, to_hidden: Numbers, to_q: Numbers, gradients: Several,
) -> None:  # fmt: skip
    """Adds the weights' gradients to `gradients`. `to_hidden` or `to_q` is empty: it has no gradient.

    `back` are the GRU's inputs' and hidden state's weights and the head's, each matrix transposed.
    """
    to_from_obs, to_table, to_input_weights, to_hidden_weights, to_biases, to_head, to_head_bias = gradients
    gru, to_gru = (weights[2], weights[3], weights[4]), (to_input_weights, to_hidden_weights, to_biases)
    x, r, z, n = saved
    size, (first, last) = len(to_biases) // 4, share
    to_gates = room_for_gates((last - first) * size, x)
    carried, to_x = np.zeros((last - first) * size, x.dtype), np.empty((last - first) * size, x.dtype)
    begin = len(hidden) // size
    for time in range(len(sizes) - 1, -1, -1):
        begin -= sizes[time]
        rows, row = min(last, sizes[time]) - first, begin + first
        if rows <= 0:
            continue
        at, before = row * size, NONE if time == 0 else (row - sizes[time - 1]) * size
        if len(to_q) > 0:
            _head_back(blas, rows, row, size, back[2], hidden, to_q, carried, to_head, to_head_bias)
        if len(to_hidden) > 0:
            add(rows * size, to_hidden, at, carried)
        step_back(
            blas, rows, (size, size), gru, back[:2], x, (r, z, n), at, hidden, before,
            carried, to_gates, to_gru,
        )  # fmt: skip
        inputs_gradient(blas, rows, (size, size), back[:2], to_gates, to_x, 0)
        _embed_back(blas, rows, row, size, obs, codes, x, to_x, to_from_obs, to_table)
