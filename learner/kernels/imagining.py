"""Latent imagination for some rows of a batch, up to what the rollout's GRU reads, without gradients.

learner/imagination.py says what is computed (`imagine`, `Rollout.fuse`). Here it is for the default alone:
GALA, and an action-free branch that is rolled forward. All that is computed stays in the processor's cache.

Arrays are flat, weights [inputs, outputs]; a layer is its weight and its bias. An operator of the graph is
own (I + shared 1 1^T): `own` is in a weight beside it, `shared` has what is left of P, S P and S.
Shapes: R rows (graphs), of which a call takes some, N nodes, Z latent, D hidden, A actions, K moments,
H width of hidden layers.
"""

import numpy as np

from common.kernels.compiled import compiled, part
from learner.kernels.activations import ZERO
from learner.kernels.blas import FLAT, Numbers, multiply
from learner.kernels.gru import Several, add_rows, rectify, repeat
from learner.kernels.latent import mix

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Sizes = tuple[int, int, int, int]
"""R, N, the horizon, and the action of agents that have no other, -1 where all are available."""
Operators = tuple[float, float, float]

EPS = np.float32(1e-5)
"""Layer norm's."""


@part
def _linear(blas: int, rows: int, layer: Several, x: Numbers, x_at: int, out: Numbers, out_at: int) -> None:
    """x W + b."""
    weight, bias = layer
    width = len(bias)
    repeat(bias, 0, width, out, out_at, rows)
    multiply(blas, rows, len(weight) // width, width, x, x_at, weight, 0, out, out_at, 1.0)


@part
def _decode(
    blas: int, graphs: int, nodes: int, operators: tuple[float, float], layers: Several, code: Numbers,
    at: int, out: Numbers,
) -> None:  # fmt: skip
    """Two layers with an operator before each: relu, then linear."""
    first, first_bias, last, last_bias = layers
    width, inputs = len(first_bias), len(first) // len(first_bias)
    mixed = np.empty(graphs * nodes * max(inputs, width), code.dtype)
    hidden = np.empty(graphs * nodes * width, code.dtype)
    mix(graphs, nodes, inputs, operators[0], code, at, mixed, 0)
    _linear(blas, graphs * nodes, (first, first_bias), mixed, 0, hidden, 0)
    rectify(graphs * nodes * width, hidden, 0)
    mix(graphs, nodes, width, operators[1], hidden, 0, mixed, 0)
    _linear(blas, graphs * nodes, (last, last_bias), mixed, 0, out, 0)


@part
def _advance(
    blas: int, graphs: int, statistics: Several, hidden: Numbers, code: Numbers, now: int, later: int
) -> None:
    """The next codes: those of now, and the change that a prior's hidden layer, not yet rectified, gives."""
    number = graphs * len(statistics[1])
    rectify(len(hidden), hidden, 0)
    _linear(blas, graphs, statistics, hidden, 0, code, later)
    before, after = code[now : now + number], code[later : later + number]
    for place in range(number):
        after[place] += before[place]


@part
def _less(remainder: Numbers, source: Numbers, at: int, decoded: Numbers) -> None:
    """What a decoder leaves out."""
    whole = source[at : at + len(remainder)]
    for place in range(len(remainder)):
        remainder[place] = whole[place] - decoded[place]


@part
def _carry(fade: Numbers, remainder: Numbers, decoded: Numbers) -> None:
    """Lets it fade by one step and adds it to what is decoded."""
    width = len(fade)
    for begin in range(0, len(remainder), width):
        rest, out = remainder[begin : begin + width], decoded[begin : begin + width]
        for place in range(width):
            rest[place] *= fade[place]
            out[place] += rest[place]


@part
def _add_branch(
    joint: int,
    weight: float,
    normalise: int,
    code: Numbers,
    at: int,
    fused: Numbers,
    fused_at: int,
    graphs: int,
) -> None:
    """Adds weight * code of every row, each normalised if asked for."""
    for row in range(graphs if weight != ZERO else 0):
        values = code[at + row * joint : at + (row + 1) * joint]
        total = fused[fused_at + row * joint : fused_at + (row + 1) * joint]
        mean, square, scale = ZERO, ZERO, weight
        if normalise:
            for place in range(joint):
                mean += values[place]
            mean /= joint
            for place in range(joint):
                square += (values[place] - mean) * (values[place] - mean)
            scale = weight / np.sqrt(square / joint + EPS)
        for place in range(joint):
            total[place] += scale * (values[place] - mean)


@part
def _add_actions(
    graphs: int, nodes: int, q: Numbers, avail: Flags, table: Numbers, width: int, hidden: Numbers
) -> None:
    """Adds the rows of the table [N * A, H] that belong to the best available actions."""
    actions = len(q) // (graphs * nodes)
    for node in range(graphs * nodes):
        best = -1
        for action in range(actions):
            place = node * actions + action
            if avail[place] and (best < 0 or q[place] > q[node * actions + best]):
                best = action
        row = node % nodes * actions + max(best, 0)
        add_rows(1, width, table, row * width, hidden, node // nodes * width)


@part
def _action_conditioned(
    blas: int, graphs: int, begin: int, sizes: Sizes, operators: Operators, policy: Several, prior: Several,
    decoder: Several, avail_head: Several, fade: Numbers, s_now: Numbers, h_now: Numbers, avail_now: Flags,
    weight: float, normalise: int, fused: Numbers,
) -> None:  # fmt: skip
    """Adds s of all moments. Actions are the greedy ones of `policy`, a linear head."""
    rows, nodes, horizon, fallback = sizes
    embed, embed_bias, table, change, change_bias = prior
    number, joint, actions = graphs * nodes, len(change_bias), len(policy[1])
    size, width = len(fade), len(embed_bias)
    code = np.empty(2 * graphs * joint, s_now.dtype)
    code[: graphs * joint] = s_now[begin * joint : (begin + graphs) * joint]
    decoded, remainder = np.empty(number * size, s_now.dtype), np.empty(number * size, s_now.dtype)
    q, avail = np.empty(number * actions, s_now.dtype), np.empty(number * actions, np.bool_)
    middle, hidden = np.empty(number * len(avail_head[1]), s_now.dtype), np.empty(graphs * width, s_now.dtype)
    avail[:] = avail_now[begin * nodes * actions : (begin * nodes + number) * actions]
    sharpening = (operators[0], operators[0])
    _decode(blas, graphs, nodes, sharpening, decoder, code, 0, decoded)
    _less(remainder, h_now, begin * nodes * size, decoded)
    now, later = 0, graphs * joint
    _add_branch(joint, weight, normalise, code, now, fused, (horizon * rows + begin) * joint, graphs)
    for k in range(1, horizon + 1):
        if k == 1:
            _linear(blas, number, policy, h_now, begin * nodes * size, q, 0)
        else:
            _linear(blas, number, policy, decoded, 0, q, 0)
        _linear(blas, graphs, (embed, embed_bias), code, now, hidden, 0)
        _add_actions(graphs, nodes, q, avail, table, width, hidden)
        _advance(blas, graphs, (change, change_bias), hidden, code, now, later)
        now, later = later, now
        _add_branch(
            joint, weight, normalise, code, now, fused, ((horizon - k) * rows + begin) * joint, graphs
        )
        if k == horizon:
            break
        _decode(blas, graphs, nodes, sharpening, decoder, code, now, decoded)
        _carry(fade, remainder, decoded)
        _linear(blas, number, (avail_head[0], avail_head[1]), code, now, middle, 0)
        rectify(len(middle), middle, 0)
        _linear(blas, number, (avail_head[2], avail_head[3]), middle, 0, q, 0)
        for node in range(number):
            none = True
            for place in range(node * actions, (node + 1) * actions):
                avail[place] = fallback < 0 or q[place] > ZERO
                none = none and not avail[place]
            if none:
                avail[node * actions + fallback] = True


@part
def _observed(
    blas: int, graphs: int, begin: int, sizes: Sizes, operators: Operators, prior: Several,
    projecting: Several, encoder: Several, fade: Numbers, v_now: Numbers, projected_now: Numbers,
    static_now: Numbers, weights: tuple[float, float], normalise: int, fused: Numbers,
) -> None:  # fmt: skip
    """Adds v and the static code of all moments."""
    rows, nodes, horizon, _ = sizes
    embed, embed_bias, change, change_bias = prior
    number, joint, width = graphs * nodes, len(change_bias), len(fade)
    code = np.empty(2 * graphs * joint, v_now.dtype)
    code[: graphs * joint] = v_now[begin * joint : (begin + graphs) * joint]
    projected, remainder = np.empty(number * width, v_now.dtype), np.empty(number * width, v_now.dtype)
    hidden, static = np.empty(graphs * len(embed_bias), v_now.dtype), np.empty(graphs * joint, v_now.dtype)
    _decode(blas, graphs, nodes, operators[:2], projecting, code, 0, projected)
    _less(remainder, projected_now, begin * nodes * width, projected)
    now, later, place = 0, graphs * joint, (horizon * rows + begin) * joint
    _add_branch(joint, weights[0], normalise, code, now, fused, place, graphs)
    _add_branch(joint, weights[1], normalise, static_now, begin * joint, fused, place, graphs)
    for k in range(1, horizon + 1):
        _linear(blas, graphs, (embed, embed_bias), code, now, hidden, 0)
        _advance(blas, graphs, (change, change_bias), hidden, code, now, later)
        now, later = later, now
        _decode(blas, graphs, nodes, operators[:2], projecting, code, now, projected)
        _carry(fade, remainder, projected)
        rectify(number * width, projected, 0)
        _linear(blas, number, encoder, projected, 0, static, 0)
        mix(graphs, nodes, joint // nodes, operators[2], static, 0, static, 0)
        place = ((horizon - k) * rows + begin) * joint
        _add_branch(joint, weights[0], normalise, code, now, fused, place, graphs)
        _add_branch(joint, weights[1], normalise, static, 0, fused, place, graphs)


@compiled(
    *(
        f"void(i8, UniTuple(i8, 2), UniTuple(i8, 4), UniTuple({F[:2]}, 3), UniTuple({F}, 2),"
        f" UniTuple({F}, 5), UniTuple({F}, 4), UniTuple({F}, 4), UniTuple({F}, 4), UniTuple({F}, 4),"
        f" UniTuple({F}, 2), UniTuple({F}, 2), UniTuple({F}, 5), b1[::1], UniTuple({F[:2]}, 3), i8, {F})"
        for F in FLAT
    )
)
def imagine(
    blas: int, share: tuple[int, int], sizes: Sizes, operators: Operators, policy: Several, ac_prior: Several,
    ac_decoder: Several, avail_head: Several, af_prior: Several, projecting: Several, encoder: Several,
    fades: Several, present: Several, avail: Flags, weights: tuple[float, float, float], normalise: int,
    fused: Numbers,
) -> None:  # fmt: skip
    """Adds the branches to `fused` [K, R, N * Z], last moment first, in the rows from share[0] to share[1].

    `present` are s, the hidden states, v, and the static branch's first layer and code; `fades` those of the
    hidden states and of that layer, `weights` the masks of the three branches.
    """
    s, hidden, v, projected, static = present
    begin, graphs = share[0], share[1] - share[0]
    _action_conditioned(
        blas, graphs, begin, sizes, operators, policy, ac_prior, ac_decoder, avail_head, fades[0], s, hidden,
        avail, weights[0], normalise, fused,
    )  # fmt: skip
    _observed(
        blas, graphs, begin, sizes, operators, af_prior, projecting, encoder, fades[1], v, projected, static,
        weights[1:], normalise, fused,
    )  # fmt: skip
