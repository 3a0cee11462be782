"""Mixing networks: Q_tot from the agents' Q-values.

Shapes: P rows, N agents, A actions, D hidden of an agent, S what the mixer is conditioned on, E embedding,
H hypernetwork.
"""

import torch
from torch import Tensor, nn

from learner.monotonic import mixed_value
from learner.settings import MixerSettings


class SumMixer(nn.Module):
    """VDN's (Sunehag et al. 2017): Q_tot is the sum."""

    def forward(self, q_PN: Tensor, condition_PS: Tensor) -> Tensor:
        """Q_tot [P]; the condition is not looked at."""
        del condition_PS
        return q_PN.sum(dim=-1)


class NoMixer(nn.Module):
    """IQL's (Tan 1993): every agent learns from its own value."""

    def forward(self, q_PN: Tensor, condition_PS: Tensor) -> Tensor:
        """The values as they are, [P, N]."""
        del condition_PS
        return q_PN


class JointValue(nn.Module):
    """QTRAN's joint networks (Son et al. 2019): Q_jt(tau, u) and V_jt.

    Q_jt sees the state and the sum of the agents' encoded hidden states and actions, V_jt the state.
    """

    def __init__(self, hidden_size: int, n_actions: int, state_size: int, embed_size: int) -> None:
        super().__init__()
        width = hidden_size + n_actions
        self.encode = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.q = _three_layers(state_size + width, embed_size)
        self.v = _three_layers(state_size, embed_size)

    def forward(self, hidden_PND: Tensor, actions_PNA: Tensor, state_PS: Tensor) -> Tensor:
        """Q_jt [P] of one-hot joint actions."""
        encoded = self.encode(torch.cat((hidden_PND, actions_PNA), dim=-1)).sum(dim=-2)
        q_P: Tensor = self.q(torch.cat((state_PS, encoded), dim=-1)).squeeze(-1)
        return q_P

    def value(self, state_PS: Tensor) -> Tensor:
        """V_jt [P]."""
        v_P: Tensor = self.v(state_PS).squeeze(-1)
        return v_P


def _three_layers(in_size: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
    )


class QmixMixer(nn.Module):
    """QMIX's monotonic mixing network (Rashid et al. 2018): hypernetworks with absolute weights, so that
    dQ_tot/dQ_i >= 0 and the joint greedy action is the tuple of the agents' own (IGM, paper eq. 1).

    The first layers of the four hypernetworks are one matrix product.
    """

    def __init__(self, agents: int, condition_size: int, settings: MixerSettings) -> None:
        super().__init__()
        self.agents, self.embed = agents, settings.embed_size
        self.parts = (settings.hypernet_size, settings.hypernet_size, self.embed, self.embed)
        self.first = nn.Linear(condition_size, sum(self.parts))
        self.w1 = nn.Linear(settings.hypernet_size, agents * self.embed)
        self.w2 = nn.Linear(settings.hypernet_size, self.embed)
        self.v = nn.Linear(self.embed, 1)

    def forward(self, q_PN: Tensor, condition_PS: Tensor) -> Tensor:
        """Q_tot [P]."""
        layers = (self.first, self.w1, self.w2, self.v)
        return mixed_value(q_PN, condition_PS, [(layer.weight, layer.bias) for layer in layers])
