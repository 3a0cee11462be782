"""Mixing networks: Q_tot from the agents' Q-values.

Shapes: P rows, N agents, S what the mixer is conditioned on, E embedding, H hypernetwork.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.settings import MixerSettings


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
        to_w1, to_w2, b1, to_v = self.first(condition_PS).split(self.parts, dim=-1)
        w1_PNE = self.w1(torch.relu(to_w1)).abs().view(-1, self.agents, self.embed)
        w2_PE = self.w2(torch.relu(to_w2)).abs()
        hidden_PE = F.elu((q_PN.unsqueeze(-1) * w1_PNE).sum(dim=1) + b1)
        q_tot_P: Tensor = (hidden_PE * w2_PE).sum(dim=-1) + self.v(torch.relu(to_v)).squeeze(-1)
        return q_tot_P
