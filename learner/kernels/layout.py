"""Weights, as torch has them, in the layout of compiled functions, and gradients on their way back.

Shapes: X input, D hidden, G = 3 D gates in torch's order r, z, n; O obs, A actions, V codes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from learner.kernels.blas import Numbers
from learner.kernels.gru import Several


def flat(tensor: Tensor) -> Numbers:
    """A tensor's numbers; its own if they are contiguous."""
    return tensor.detach().contiguous().view(-1).numpy()


def flat_output(tensor: Tensor) -> Numbers:
    """The same of one that is to be written: never a copy. Raises RuntimeError if it is not contiguous."""
    return tensor.detach().view(-1).numpy()


def zeros_like(arrays: Several) -> Several:
    """To add gradients up."""
    return tuple(np.zeros_like(array) for array in arrays)


def summed(gradients: Iterable[Several]) -> tuple[Tensor, ...]:
    """Over the shares."""
    return tuple(torch.from_numpy(np.sum(parts, axis=0)) for parts in zip(*gradients, strict=True))


def gru_weights(weights: Sequence[Tensor]) -> tuple[Numbers, Numbers, Numbers]:
    """`weights` of gru.py, from torch's four: the inputs', the hidden state's, and a bias of each."""
    weight_GX, weight_GD, bias_G, hidden_bias_G = weights
    size = weight_GD.shape[1]
    biases = torch.cat((bias_G, hidden_bias_G[2 * size :]))
    biases[: 2 * size] += hidden_bias_G[: 2 * size]
    return flat(_gates(weight_GX)), flat(_gates(weight_GD)), flat(biases)


def gru_weights_back(weights: Sequence[Tensor]) -> tuple[Numbers, Numbers]:
    """`back` of gru.py: as torch keeps them, they are transposed."""
    return flat(weights[0]), flat(weights[1])


def gru_gradients(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of torch's four, from those of gru.py's three."""
    to_input, to_hidden, to_biases = gradients
    size = weights[1].shape[1]
    return (
        _from_gates(to_input, weights[0]),
        _from_gates(to_hidden, weights[1]),
        to_biases[: 3 * size],
        torch.cat((to_biases[: 2 * size], to_biases[3 * size :])),
    )


def agent_weights(weights: Sequence[Tensor]) -> Several:
    """`weights` of agent.py.

    From what the obs are multiplied with [D, O], the table, the GRU's four, and the head's [A, D] and bias.
    """
    from_obs_DO, table_VD, *gru, head_AD, head_bias_A = weights
    return flat(from_obs_DO.t()), flat(table_VD), *gru_weights(gru), flat(head_AD.t()), flat(head_bias_A)


def agent_weights_back(weights: Sequence[Tensor]) -> Several:
    """`back` of agent.py."""
    return *gru_weights_back(weights[2:6]), flat(weights[6])


def agent_gradients(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of those that `agent_weights` takes, from those of agent.py's."""
    to_from_obs, to_table, *to_gru, to_head, to_head_bias = gradients
    from_obs_DO, table_VD, *gru, head_AD, _ = weights
    return (
        to_from_obs.view(from_obs_DO.t().shape).t(),
        to_table.view(table_VD.shape),
        *gru_gradients(to_gru, gru),
        to_head.view(head_AD.t().shape).t(),
        to_head_bias,
    )


def _gates(weight_GX: Tensor) -> Tensor:
    """A matrix [X, D] for each gate."""
    return weight_GX.view(3, -1, weight_GX.shape[1]).transpose(1, 2)


def _from_gates(gradient: Tensor, weight_GX: Tensor) -> Tensor:
    return gradient.view(_gates(weight_GX).shape).transpose(1, 2).reshape(weight_GX.shape)
