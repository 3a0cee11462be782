"""VDN (Sunehag et al. 2017): Q_tot is the sum of the agents' Q-values."""

from torch import nn

from common.agent import AgentNetwork
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.mixers import SumMixer


class Vdn(ValueDecomposition):
    """The learner with a sum in place of the mixing network."""

    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """Agent and mixer."""
        return {"agent": agent, "mixer": SumMixer()}
