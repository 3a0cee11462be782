"""Where imagination starts.

Shapes: R rows, N agents, D hidden, O obs, A actions.
"""

from dataclasses import dataclass

from torch import Tensor

from learner.remainders import Fades
from learner.world_model import Beliefs


@dataclass(frozen=True, kw_only=True)
class Present:
    """Where imagination starts: every row of a batch, or some of them."""

    beliefs: Beliefs
    hidden_RND: Tensor
    obs_RNO: Tensor
    avail_RNA: Tensor
    fades: Fades
    """Of the whole batch."""

    def part(self, rows: slice) -> "Present":
        """Of these rows alone."""
        return Present(
            beliefs=self.beliefs.part(rows),
            hidden_RND=self.hidden_RND[rows],
            obs_RNO=self.obs_RNO[rows],
            avail_RNA=self.avail_RNA[rows],
            fades=self.fades,
        )
