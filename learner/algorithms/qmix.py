"""QMIX (Rashid et al. 2018): a monotonic mixer conditioned on the state."""

from torch import nn

from common.agent import AgentNetwork
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.mixers import QmixMixer


class Qmix(ValueDecomposition):
    """The learner with the world model off."""

    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """Agent and mixer."""
        mixer = QmixMixer(self.spec.n_agents, self.spec.state_size, self.settings.mixer)
        return {"agent": agent, "mixer": mixer}
