"""The agent network unrolled over a batch.

Shapes: R rows and P steps of a packed batch (learner/batching.py), N agents, D hidden, A actions.
"""

from dataclasses import dataclass

from torch import Tensor

from common.agent import AgentNetwork
from learner.batching import EpisodeBatch
from learner.packed_gru import packed_gru


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What the agent network makes of every row."""

    hidden_RND: Tensor
    q_RNA: Tensor
    """The head's outputs: Q-values, or a policy's logits."""


def histories(network: AgentNetwork, batch: EpisodeBatch) -> Histories:
    """Every episode from its start."""
    rows, agents, _ = batch.obs_RNO.shape
    embedded = network.embedded(batch.obs_RNO, batch.last_actions()).view(rows * agents, -1)
    hidden = packed_gru(network.gru, embedded, batch.row_sizes_T * agents).view(rows, agents, -1)
    return Histories(hidden_RND=hidden, q_RNA=network.q(hidden))


def values_of(q_PNA: Tensor, actions_PN: Tensor) -> Tensor:
    """The values [P, N] of these actions."""
    return q_PNA.gather(-1, actions_PN.unsqueeze(-1)).squeeze(-1)
