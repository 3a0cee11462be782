"""IQL (Tan 1993; Tampuu et al. 2017): every agent learns by itself, with shared weights."""

from torch import nn

from common.agent import AgentNetwork
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.mixers import NoMixer


class Iql(ValueDecomposition):
    """The learner with nothing in place of the mixing network."""

    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """Agent and mixer."""
        return {"agent": agent, "mixer": NoMixer()}
