"""The action-free posterior's recurrence for some episodes of a packed batch, all time steps in one call.

learner/latent_recurrence.py has the equations. With S = own (I + shared 1 1^T), `own` is in the weights, and
what is left of S adds `shared` times the sum over the nodes.

Arrays are flat. `weights` are own W^T [Z, H], own U^T [H, Y] and own b [Y]; `back` are own W [H, Z] and own
U [Y, H]. `limits` are those of a log-variance. `share` is the first episode and the last, not included.
Shapes: T times with `sizes` rows each, R rows in PackedSequence's layout, N nodes, H hidden, Z latent,
Y = 2 Z statistics.
"""

import numpy as np

from common.kernels.compiled import compiled, part
from learner.kernels.activations import ZERO, exp
from learner.kernels.blas import FLAT, Numbers, multiply, multiply_columns
from learner.kernels.gru import NONE, Places, Several, add, add_rows, rectify, rectify_back, repeat

HALF = np.float32(0.5)


@part
def mix(
    rows: int, nodes: int, width: int, shared: float, x: Numbers, at: int, out: Numbers, out_at: int
) -> None:
    """x + shared * (sum over nodes); `out` may be `x`."""
    sums = np.empty(width, x.dtype)
    for row in range(rows):
        begin = at + row * nodes * width
        sums[:] = ZERO
        add_rows(nodes, width, x, begin, sums, 0)
        for place in range(width):
            sums[place] *= shared
        for node in range(nodes):
            source = x[begin + node * width : begin + (node + 1) * width]
            target_at = out_at + (row * nodes + node) * width
            target = out[target_at : target_at + width]
            for place in range(width):
                target[place] = source[place] + sums[place]


@part
def _limited(log_var: float, limits: tuple[float, float]) -> float:
    """NaN stays."""
    low, high = limits
    log_var = low if log_var < low else log_var
    return high if log_var > high else log_var


@part
def _sample(
    number: int, latent: int, limits: tuple[float, float], statistics: Numbers, noise: Numbers,
    samples: Numbers, first: int,
) -> None:  # fmt: skip
    """mean + exp(log_var / 2) noise of `number` nodes from `first` on."""
    for node in range(first, first + number):
        mean = statistics[2 * node * latent : (2 * node + 1) * latent]
        log_var = statistics[(2 * node + 1) * latent : 2 * (node + 1) * latent]
        random, out = noise[node * latent : (node + 1) * latent], samples[node * latent : (node + 1) * latent]
        for place in range(latent):
            out[place] = mean[place] + exp(HALF * _limited(log_var[place], limits)) * random[place]


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), i8[::1], i8, {F[:2]}, UniTuple({F[:2]}, 2), UniTuple({F}, 3),"
        f" UniTuple({F}, 5))"
        for F in FLAT
    )
)
def unroll(
    blas: int, share: tuple[int, int], sizes: Places, nodes: int, shared: float,
    limits: tuple[float, float], weights: Several, kept: Several,
) -> None:  # fmt: skip
    """`kept` are hidden layer, mixed v, statistics, noise and samples of every row.

    The first comes as what the obs add to it, with the bias; the noise is read; the others are written.
    """
    to_hidden, to_statistics, bias = weights
    hidden, mixed, statistics, noise, samples = kept
    outputs, (first, last) = len(bias), share
    latent, width = outputs // 2, len(to_statistics) // outputs
    begin, before = 0, NONE
    for time in range(len(sizes)):
        rows = min(last, sizes[time]) - first
        if rows <= 0:
            break
        row, number = (begin + first) * nodes, rows * nodes
        if before == NONE:
            mixed[row * latent : (row + number) * latent] = ZERO
        else:
            mix(rows, nodes, latent, shared, samples, before * latent, mixed, row * latent)
            multiply(blas, number, latent, width, mixed, row * latent, to_hidden, 0, hidden, row * width, 1.0)
        rectify(number * width, hidden, row * width)
        at = row * outputs
        repeat(bias, 0, outputs, statistics, at, number)
        multiply(blas, number, width, outputs, hidden, row * width, to_statistics, 0, statistics, at, 1.0)
        mix(rows, nodes, outputs, shared, statistics, at, statistics, at)
        _sample(number, latent, limits, statistics, noise, samples, row)
        before = row
        begin += sizes[time]


@part
def _to_statistics(
    number: int, latent: int, limits: tuple[float, float], to_v: Numbers, statistics: Numbers, noise: Numbers,
    to_statistics: Numbers, total: Numbers, first: int,
) -> None:  # fmt: skip
    """The gradient of the statistics: their own, and that of v through mean and log-variance."""
    for k in range(number):
        node = first + k
        mean, log_var, end = 2 * node * latent, (2 * node + 1) * latent, 2 * (node + 1) * latent
        v, random = to_v[k * latent : (k + 1) * latent], noise[node * latent : (node + 1) * latent]
        out, own = total[2 * k * latent : (2 * k + 1) * latent], to_statistics[mean:log_var]
        for place in range(latent):
            out[place] = own[place] + v[place]
        out, own = total[(2 * k + 1) * latent : 2 * (k + 1) * latent], to_statistics[log_var:end]
        value = statistics[log_var:end]
        for place in range(latent):
            inside = limits[0] <= value[place] <= limits[1]
            factor = HALF * exp(HALF * _limited(value[place], limits)) * random[place]
            out[place] = own[place] + (v[place] * factor if inside else ZERO)


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), i8[::1], i8, {F[:2]}, UniTuple({F[:2]}, 2), UniTuple({F}, 2),"
        f" UniTuple({F}, 5), UniTuple({F}, 2), {F}, UniTuple({F}, 4))"
        for F in FLAT
    )
)
def walk_back(
    blas: int, share: tuple[int, int], sizes: Places, nodes: int, shared: float,
    limits: tuple[float, float], back: Several, kept: Several, to_outputs: Several, to_hidden: Numbers,
    gradients: Several,
) -> None:  # fmt: skip
    """Writes the hidden layer's gradient and adds to those of W^T, its bias, U^T and b, without `own`.

    `to_outputs` are the gradients of statistics and samples.
    """
    hidden, mixed, statistics, noise, _ = kept
    to_statistics, to_samples = to_outputs
    to_first, to_first_bias, to_last, to_last_bias = gradients
    outputs, width, (first, last) = len(to_last_bias), len(to_first_bias), share
    latent = outputs // 2
    carried = np.zeros((last - first) * nodes * latent, hidden.dtype)
    total = np.empty((last - first) * nodes * outputs, hidden.dtype)
    begin = len(hidden) // (width * nodes)
    for time in range(len(sizes) - 1, -1, -1):
        begin -= sizes[time]
        rows = min(last, sizes[time]) - first
        if rows <= 0:
            continue
        row, number = (begin + first) * nodes, rows * nodes
        add(number * latent, to_samples, row * latent, carried)
        _to_statistics(number, latent, limits, carried, statistics, noise, to_statistics, total, row)
        mix(rows, nodes, outputs, shared, total, 0, total, 0)
        add_rows(number, outputs, total, 0, to_last_bias, 0)
        multiply_columns(blas, width, number, outputs, hidden, row * width, total, 0, to_last, 0, 1.0)
        multiply(blas, number, outputs, width, total, 0, back[1], 0, to_hidden, row * width, 0.0)
        rectify_back(number * width, hidden, row * width, to_hidden, row * width)
        add_rows(number, width, to_hidden, row * width, to_first_bias, 0)
        multiply_columns(
            blas, latent, number, width, mixed, row * latent, to_hidden, row * width, to_first, 0, 1.0
        )  # fmt: skip
        multiply(blas, number, width, latent, to_hidden, row * width, back[0], 0, carried, 0, 0.0)
        mix(rows, nodes, latent, shared, carried, 0, carried, 0)
