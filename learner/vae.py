"""Fully connected parts: the prior VAE, and the auto-encoder that stands in for GALA in vdf-sv.

Shapes: R rows, N agents, F features, Z latent per agent, A actions, H hidden.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.gala import compose
from learner.gaussians import Gaussian


def per_agent(flat: Tensor, agents: int) -> Tensor:
    """[.., N * F] as [.., N, F]."""
    return flat.view(*flat.shape[:-1], agents, flat.shape[-1] // agents)


class FullyConnectedEncoder(nn.Module):
    """GalaEncoder's interface on the agents' features as one flat vector (the paper's VDF-SV)."""

    def __init__(self, agents: int, part_sizes: tuple[int, ...], hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.agents = agents
        self.first = nn.ModuleList(
            nn.Linear(agents * size, hidden_size, bias=i == 0) for i, size in enumerate(part_sizes)
        )
        self.last = nn.Linear(hidden_size, agents * out_size)

    def project(self, part: int, x_NF: Tensor) -> Tensor:
        """What one part adds to the first layer."""
        projected: Tensor = self.first[part](x_NF.flatten(-2))
        return projected

    def finish(self, projected_H: Tensor) -> Tensor:
        """The code [.., N, Z] from the sum of the projected parts."""
        code: Tensor = self.last(torch.relu(projected_H))
        return per_agent(code, self.agents)

    def forward(self, *parts_NF: Tensor) -> Tensor:
        """The code [.., N, Z]."""
        projected = self.project(0, parts_NF[0])
        for i, part in enumerate(parts_NF[1:], start=1):
            projected = projected + self.project(i, part)
        return self.finish(projected)

    def project_decoded(self, decoder: "FullyConnectedDecoder", code_NZ: Tensor, part: slice) -> Tensor:
        """What these features of what `decoder` makes of another code add to the first layer [.., H]."""
        both = compose(self.first[0], *decoder.last_layer(part))
        return F.linear(decoder.before_last(code_NZ), *both)


class FullyConnectedDecoder(nn.Module):
    """GalaDecoder's interface on the agents' codes as one flat vector."""

    def __init__(self, agents: int, code_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.agents = agents
        self.first = nn.Linear(agents * code_size, hidden_size)
        self.last = nn.Linear(hidden_size, agents * out_size)

    def before_last(self, code_NZ: Tensor) -> Tensor:
        """What the last layer sees [.., H]."""
        return torch.relu_(self.first(code_NZ.flatten(-2)))

    def last_layer(self, part: slice) -> tuple[Tensor, Tensor]:
        """Weight and bias of these features of all agents."""
        weight, bias = (
            x.unflatten(0, (self.agents, -1))[:, part] for x in (self.last.weight, self.last.bias)
        )
        return weight.flatten(0, 1), bias.flatten()

    def error(self, code_NZ: Tensor, target_NF: Tensor, latent_target_NK: Tensor | None = None) -> Tensor:
        """The mean squared error of the features against data, the first K of them against a latent."""
        if latent_target_NK is not None:
            target_NF = torch.cat((latent_target_NK, target_NF), dim=-1)
        return F.mse_loss(self(code_NZ), target_NF)

    def forward(self, code_NZ: Tensor) -> Tensor:
        """All features [.., N, F]."""
        return per_agent(self.last(self.before_last(code_NZ)), self.agents)


class PriorVae(nn.Module):
    """p(latent_t | latent_{t-1} [, a_{t-1}]) and the reconstruction of what it was conditioned on.

    The network gives the *change* of the latent (ours): that nothing changes need not be learned.

    The encoder's Gaussian *is* the prior; the decoder gives (latent'_{t-1}, a'_{t-1}) back from a sample of
    it (paper section 4, "Components of the Learning Objective").
    """

    def __init__(self, agents: int, latent_size: int, hidden_size: int, n_actions: int = 0) -> None:
        super().__init__()
        self.agents, self.latent_size, self.n_actions = agents, latent_size, n_actions
        joint = agents * latent_size
        self.embed_latent = nn.Linear(joint, hidden_size)
        self.embed_actions = nn.Linear(agents * n_actions, hidden_size, bias=False) if n_actions else None
        self.statistics = nn.Linear(hidden_size, 2 * joint)
        self.decode_first = nn.Linear(joint, hidden_size)
        self.decode_last = nn.Linear(hidden_size, joint + agents * n_actions)

    def forward(self, latent_RNZ: Tensor, actions_RNA: Tensor | None = None) -> Gaussian:
        """The prior of the next latent [R, N, Z] from the present one and the joint one-hot actions."""
        hidden = self.embed_latent(latent_RNZ.flatten(-2))
        if self.embed_actions is not None:
            if actions_RNA is None:
                raise ValueError("this prior is conditioned on actions, and none were given")
            hidden = hidden + self.embed_actions(actions_RNA.flatten(-2))
        change = Gaussian.from_statistics(per_agent(self.statistics(torch.relu_(hidden)), self.agents))
        return Gaussian(latent_RNZ + change.mean, change.log_var)

    def reconstruct(self, next_latent_RNZ: Tensor) -> tuple[Tensor, Tensor]:
        """(latent'_{t-1} [R, N, Z], a'_{t-1} [R, N, A]) from the prior's sample; A is 0 without actions."""
        joint = self.agents * self.latent_size
        flat = self.decode_last(torch.relu_(self.decode_first(next_latent_RNZ.flatten(-2))))
        latent, actions = flat.split((joint, self.agents * self.n_actions), dim=-1)
        return per_agent(latent, self.agents), per_agent(actions, self.agents)
