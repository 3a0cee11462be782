"""The agent network: the joint policy, one set of weights for all agents (paper section 4; QMIX's DRQN).

    x_t^i = [z_t^i, onehot(a_{t-1}^i), onehot(i)] -> Linear -> ReLU -> GRU -> Linear -> Q_i(tau_t^i, .)

Shapes: T time, B copies of the environment, N agents, I input, D hidden, A actions.
"""

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from common.settings import AgentSettings
from common.types import EnvSpec, Weights


class AgentNetwork(nn.Module):
    """Per-agent Q-values from the agent's own history. Hidden state goes in and comes out."""

    def __init__(self, spec: EnvSpec, settings: AgentSettings) -> None:
        super().__init__()
        self.spec = spec
        self.hidden_size = settings.hidden_size
        self.embed = nn.Linear(input_size(spec), settings.hidden_size)
        self.gru = nn.GRU(settings.hidden_size, settings.hidden_size)
        self.head = nn.Linear(settings.hidden_size, spec.n_actions)

    def initial_hidden(self, batch_size: int) -> Tensor:
        """Zeros [B, N, D]."""
        weight = self.head.weight
        return torch.zeros(
            batch_size, self.spec.n_agents, self.hidden_size, device=weight.device, dtype=weight.dtype
        )

    def unroll(self, inputs_TBNI: Tensor, hidden_BND: Tensor) -> Tensor:
        """Hidden states [T, B, N, D] after every step."""
        steps, batch, agents, _ = inputs_TBNI.shape
        embedded = torch.relu(self.embed(inputs_TBNI)).reshape(steps, batch * agents, -1)
        hidden, _ = self.gru(embedded, hidden_BND.reshape(1, batch * agents, -1))
        states: Tensor = hidden.view(steps, batch, agents, self.hidden_size)
        return states

    def q(self, hidden: Tensor) -> Tensor:
        """Q-values [..., A] of hidden states [..., D]: the head alone, as imagination needs it."""
        values: Tensor = self.head(hidden)
        return values


def input_size(spec: EnvSpec) -> int:
    """I: obs, one-hot last action, one-hot agent id."""
    return spec.obs_size + spec.n_actions + spec.n_agents


def agent_inputs(spec: EnvSpec, obs: Tensor, last_actions: Tensor) -> Tensor:
    """Inputs [..., N, I] from obs [..., N, O] and last actions [..., N] (int64; -1 where there is none)."""
    inputs = obs.new_zeros(*obs.shape[:-1], input_size(spec))
    inputs[..., : spec.obs_size] = obs
    # An agent without a last action writes a 0 into the first action's column.
    column = spec.obs_size + last_actions.clamp(min=0)
    inputs.scatter_(-1, column.unsqueeze(-1), (last_actions >= 0).to(inputs.dtype).unsqueeze(-1))
    agent = torch.arange(spec.n_agents, device=obs.device)
    inputs[..., agent, spec.obs_size + spec.n_actions + agent] = 1.0
    return inputs


def greedy_actions(q: Tensor, avail_actions: Tensor) -> Tensor:
    """The best available action (int64 [..., N]) by Q-values [..., N, A] and a mask [..., N, A]."""
    return q.masked_fill(~avail_actions, -torch.inf).argmax(dim=-1)


def pack_weights(network: AgentNetwork, *, session: str, version: int) -> Weights:
    """The network's parameters as they are published."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return Weights(session=session, version=version, data=save(tensors))


def load_weights(network: AgentNetwork, weights: Weights) -> None:
    """Puts published parameters into a network; raises if names or shapes differ."""
    network.load_state_dict(load(weights.data))
