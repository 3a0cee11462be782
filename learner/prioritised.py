"""How a batch of a prioritised table was drawn, and what training makes of it.

Its episodes are not drawn alike, so each has a weight that makes up for it in the loss, and training says
what each is worth from now on: the mean of its absolute TD errors.

Shapes: B episodes by rank (longest first), P steps, N agents.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

PRIORITY_RANGE = (1e-6, 1e6)
"""What the protocol allows."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The draws of a batch."""

    indices_B: tuple[int, ...]
    """Of the episodes in their table."""
    importance_P: Tensor
    """float32; the weight of each step's episode"""
    episode_P: Tensor
    """int64; the rank of each step's episode"""
    steps_B: Tensor
    """int64; how many each episode has"""

    @classmethod
    def of(cls, indices_B: tuple[int, ...], importance_B: Tensor, row_sizes_T: Tensor) -> "Sampling":
        """Of episodes in the order of their rank."""
        episode_P = torch.cat([torch.arange(int(size)) for size in row_sizes_T[1:]])
        return cls(
            indices_B=indices_B,
            importance_P=importance_B[episode_P],
            episode_P=episode_P,
            steps_B=torch.bincount(episode_P),  # here on the CPU: on a GPU it waits for the largest number
        )

    def to(self, device: torch.device) -> "Sampling":
        """The same on a device; copies do not block."""

        def moved(tensor: Tensor) -> Tensor:
            pinned = tensor.pin_memory() if device.type == "cuda" else tensor
            return pinned.to(device, non_blocking=True)

        return replace(
            self,
            importance_P=moved(self.importance_P),
            episode_P=moved(self.episode_P),
            steps_B=moved(self.steps_B),
        )

    def priorities(self, error: Tensor) -> Tensor:
        """New priorities [B] from TD errors [P] of the team, or [P, N] of each agent."""
        assert error.shape[0] == self.episode_P.shape[0]
        error_P = error.detach().abs().reshape(error.shape[0], -1).mean(dim=-1)
        total_B = error_P.new_zeros(len(self.indices_B)).index_add(0, self.episode_P, error_P)
        return (total_B / self.steps_B).clamp(*PRIORITY_RANGE)


def mean_square(error: Tensor, sampling: Sampling | None) -> Tensor:
    """The mean square of errors [P] or [P, N]; where they were not drawn alike, each with its weight."""
    if sampling is None:
        return error.square().mean()
    weight = sampling.importance_P.view(-1, *[1] * (error.dim() - 1))
    return (weight * error.square()).mean()
