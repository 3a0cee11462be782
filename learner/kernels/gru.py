"""A GRU's time step for some sequences of a packed batch, forward and back.

    r = sigmoid(x W_xr + h W_hr + b_r), z = sigmoid(x W_xz + h W_hz + b_z), m = h W_hn + b_m,
    n = tanh(x W_xn + b_n + r m), h' = n + z (h - n)

Arrays are flat. `weights` are the inputs' [3, X, D] and the hidden state's [3, D, D] of r, z, n, and the
biases [4, D] of r, z, n, m; `gradients` are theirs. `back` are the first two, each gate's matrix transposed.
`gates` are r, z and n. Loops over numbers run over slices of their own: so they become vector instructions.
Shapes: K rows of a step, X input, D hidden.
"""

import numpy as np

from common.kernels.compiled import part
from learner.kernels.activations import ONE, ZERO, sigmoid, tanh
from learner.kernels.blas import Numbers, multiply, multiply_columns

Several = tuple[Numbers, ...]
Places = np.ndarray[tuple[int], np.dtype[np.int64]]
NONE = -1
"""In place of where the states before the first step begin, which are zero."""


@part
def repeat(values: Numbers, at: int, width: int, out: Numbers, out_at: int, rows: int) -> None:
    """Writes the same numbers into every row."""
    repeated = values[at : at + width]
    for row in range(rows):
        target = out[out_at + row * width : out_at + (row + 1) * width]
        for place in range(width):
            target[place] = repeated[place]


@part
def add_rows(rows: int, width: int, values: Numbers, at: int, total: Numbers, total_at: int) -> None:
    """Adds the sum of all rows."""
    sums = total[total_at : total_at + width]
    for row in range(rows):
        added = values[at + row * width : at + (row + 1) * width]
        for place in range(width):
            sums[place] += added[place]


@part
def add(number: int, values: Numbers, at: int, total: Numbers) -> None:
    """Adds `number` values to the first of the total."""
    added = values[at : at + number]
    for place in range(number):
        total[place] += added[place]


@part
def rectify(number: int, values: Numbers, at: int) -> None:
    """relu, in place."""
    rectified = values[at : at + number]
    for place in range(number):
        rectified[place] = ZERO if rectified[place] < ZERO else rectified[place]  # NaN stays


@part
def rectify_back(number: int, outputs: Numbers, at: int, gradient: Numbers, gradient_at: int) -> None:
    """relu's gradient, in place."""
    rectified, passed = outputs[at : at + number], gradient[gradient_at : gradient_at + number]
    for place in range(number):
        passed[place] = ZERO if rectified[place] <= ZERO else passed[place]


@part
def step(
    blas: int, rows: int, widths: tuple[int, int], weights: Several, x: Numbers, gates: Several, at: int,
    m: Numbers, hidden: Numbers, before_at: int, after_at: int,
) -> None:  # fmt: skip
    """From `x` and the states at `before_at` to the gates and the states at `after_at`.

    `at` is where the first row is in an array of D numbers a row.
    """
    (inputs, size), number = widths, rows * widths[1]
    input_weights, hidden_weights, biases = weights
    x_at, square = at // size * inputs, size * size
    for gate in range(3):
        matrix = gate * inputs * size
        repeat(biases, gate * size, size, gates[gate], at, rows)
        multiply(blas, rows, inputs, size, x, x_at, input_weights, matrix, gates[gate], at, 1.0)
    repeat(biases, 3 * size, size, m, 0, rows)
    if before_at != NONE:
        multiply(blas, rows, size, size, hidden, before_at, hidden_weights, 0, gates[0], at, 1.0)
        multiply(blas, rows, size, size, hidden, before_at, hidden_weights, square, gates[1], at, 1.0)
        multiply(blas, rows, size, size, hidden, before_at, hidden_weights, 2 * square, m, 0, 1.0)
    r, z, n = gates[0][at : at + number], gates[1][at : at + number], gates[2][at : at + number]
    after = hidden[after_at : after_at + number]
    for place in range(number):
        r[place] = sigmoid(r[place])
    for place in range(number):
        z[place] = sigmoid(z[place])
    for place in range(number):
        n[place] = tanh(n[place] + r[place] * m[place])
    if before_at == NONE:
        for place in range(number):
            after[place] = n[place] - z[place] * n[place]
    else:
        before = hidden[before_at : before_at + number]
        for place in range(number):
            after[place] = n[place] + z[place] * (before[place] - n[place])


@part
def _factors(
    blas: int, rows: int, size: int, weights: Several, gates: Several, at: int, hidden: Numbers,
    before_at: int, carried: Numbers, to_gates: Several,
) -> None:  # fmt: skip
    """The gradients of what enters r, z, n and m; leaves of `carried` what z lets through."""
    number, (to_r, to_z, to_n, m) = rows * size, to_gates
    r, z, n = gates[0][at : at + number], gates[1][at : at + number], gates[2][at : at + number]
    repeat(weights[2], 3 * size, size, m, 0, rows)
    if before_at != NONE:  # cheaper than to keep m
        multiply(blas, rows, size, size, hidden, before_at, weights[1], 2 * size * size, m, 0, 1.0)
    for place in range(number):
        to_n[place] = carried[place] * (ONE - z[place]) * (ONE - n[place] * n[place])
    for place in range(number):
        to_r[place] = to_n[place] * m[place] * r[place] * (ONE - r[place])
    for place in range(number):
        m[place] = to_n[place] * r[place]
    if before_at == NONE:
        for place in range(number):
            to_z[place] = -carried[place] * n[place] * z[place] * (ONE - z[place])
    else:
        before = hidden[before_at : before_at + number]
        for place in range(number):
            to_z[place] = carried[place] * (before[place] - n[place]) * z[place] * (ONE - z[place])
    for place in range(number):
        carried[place] *= z[place]


@part
def step_back(
    blas: int, rows: int, widths: tuple[int, int], weights: Several, back: Several, x: Numbers,
    gates: Several, at: int, hidden: Numbers, before_at: int, carried: Numbers, to_gates: Several,
    gradients: Several,
) -> None:  # fmt: skip
    """From the gradient of the states after the step, `carried`, to that of the states before, in its place.

    Leaves the gradients of what enters r, z, n and m, and adds to the weights'.
    """
    (inputs, size), square = widths, widths[1] * widths[1]
    _factors(blas, rows, size, weights, gates, at, hidden, before_at, carried, to_gates)
    to_input_weights, to_hidden_weights, to_biases = gradients
    for gate in range(4):
        add_rows(rows, size, to_gates[gate], 0, to_biases, gate * size)
    x_at = at // size * inputs
    for gate in range(3):
        matrix = gate * inputs * size
        multiply_columns(
            blas, inputs, rows, size, x, x_at, to_gates[gate], 0, to_input_weights, matrix, 1.0
        )  # fmt: skip
    if before_at == NONE:
        return
    for gate in range(3):
        matrix, entering = gate * square, to_gates[gate] if gate < 2 else to_gates[3]
        multiply_columns(
            blas, size, rows, size, hidden, before_at, entering, 0, to_hidden_weights, matrix, 1.0
        )  # fmt: skip
        multiply(blas, rows, size, size, entering, 0, back[1], matrix, carried, 0, 1.0)


@part
def inputs_gradient(
    blas: int,
    rows: int,
    widths: tuple[int, int],
    back: Several,
    to_gates: Several,
    to_x: Numbers,
    to_x_at: int,
) -> None:
    """Writes the gradient of the step's inputs."""
    inputs, size = widths
    for gate in range(3):
        matrix, beta = gate * inputs * size, 0.0 if gate == 0 else 1.0
        multiply(blas, rows, size, inputs, to_gates[gate], 0, back[0], matrix, to_x, to_x_at, beta)


@part
def room_for_gates(number: int, like: Numbers) -> Several:
    """Four arrays."""
    kind = like.dtype
    return np.empty(number, kind), np.empty(number, kind), np.empty(number, kind), np.empty(number, kind)
