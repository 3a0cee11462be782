"""COMA's centralised critic (Foerster et al. 2018, section 4).

Shapes: any leading ones (steps or rows), N agents, A actions, O obs, S state, H hidden.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.types import EnvSpec


class CentralCritic(nn.Module):
    """Q(s_t, z_t^i, u_t^{-i}, u_{t-1}, i, .): the value of every action of agent i, the others' being fixed.

    The first layer is the sum of what the team adds (state, all actions, last actions), less the agent's own
    action, and of what the agent adds (obs, id): the joint action need not be laid out once per agent.
    """

    def __init__(self, spec: EnvSpec, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        joint = spec.n_agents * spec.n_actions
        self.team = nn.Linear(spec.state_size + 2 * joint, hidden_size)
        self.own = nn.Linear(spec.obs_size + spec.n_agents, hidden_size, bias=False)
        self.middle = nn.Linear(hidden_size, hidden_size)
        self.last = nn.Linear(hidden_size, spec.n_actions)

    def forward(self, state_S: Tensor, obs_NO: Tensor, actions_N: Tensor, last_actions_N: Tensor) -> Tensor:
        """Q-values [.., N, A]; `last_actions_N` is -1 where there is none."""
        spec = self.spec
        joint = [self._joint(actions, state_S.dtype) for actions in (actions_N, last_actions_N)]
        team_H = self.team(torch.cat((state_S, *joint), dim=-1))
        first = spec.state_size + spec.n_actions * torch.arange(spec.n_agents, device=actions_N.device)
        own_action_NH = F.embedding(first + actions_N, self.team.weight.t())
        identity = torch.eye(spec.n_agents, device=obs_NO.device, dtype=obs_NO.dtype)
        identity = identity.expand(*obs_NO.shape[:-1], spec.n_agents)
        own_NH = self.own(torch.cat((obs_NO, identity), dim=-1))
        hidden_NH = torch.relu(team_H.unsqueeze(-2) - own_action_NH + own_NH)
        q_NA: Tensor = self.last(torch.relu(self.middle(hidden_NH)))
        return q_NA

    def _joint(self, actions_N: Tensor, dtype: torch.dtype) -> Tensor:
        """[.., N * A]; zeros for an action -1."""
        # Class 0 of A + 1 stands for none.
        return F.one_hot(actions_N + 1, self.spec.n_actions + 1)[..., 1:].flatten(-2).to(dtype)
