"""VDFD: QMIX's mixer, conditioned on the state and on what a disentangled world model imagines (the paper).

Shapes: R rows, P steps, N agents, D hidden, S state, W rollout, K imagined moments, F = N * Z.
"""

import torch
from torch import Tensor, nn

from common.agent import AgentNetwork
from common.labels import label
from learner import health
from learner.algorithms.value_decomposition import ValueDecomposition
from learner.batching import EpisodeBatch
from learner.histories import Histories, histories, values_of
from learner.imagination import Rollout, imagine, imagine_fused
from learner.mixers import QmixMixer
from learner.optimiser import ParameterGroup
from learner.present import Present
from learner.remainders import measure_fades
from learner.world_model import Beliefs, WorldModel


class Vdfd(ValueDecomposition):
    """World model, imagination, mixing. Acting uses the agent network alone."""

    learning_rates = (*ValueDecomposition.learning_rates, "learner.world_model.optimiser.learning_rate")

    def build_networks(self, agent: AgentNetwork) -> dict[str, nn.Module]:
        """Agent, mixer, world model, and the GRU that sums the imagined future up for the mixer."""
        spec, settings = self.spec, self.settings.world_model
        return {
            "agent": agent,
            "mixer": QmixMixer(spec.n_agents, spec.state_size + settings.rollout_size, self.settings.mixer),
            "rollout": Rollout(spec.n_agents, settings),
            "world_model": WorldModel(spec, agent.hidden_size, settings),
        }

    def extra_loss_weights(self) -> dict[str, float]:
        """beta_1 .. beta_5 of the overall loss, and the weight of the predicted available actions."""
        weights = self.settings.world_model.loss_weights.model_dump()
        if not self.settings.world_model.predict_avail_actions:
            del weights["avail"]
        return weights

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The world model is clipped and optimised on its own."""
        value = [p for name in ("agent", "mixer", "rollout") for p in self.online[name].parameters()]
        model = list(self.world_model.parameters())
        return {
            "value": ParameterGroup(value, self.settings.optimiser),
            "world_model": ParameterGroup(model, self.settings.world_model.optimiser),
        }

    @property
    def world_model(self) -> WorldModel:
        """The online world model; it has no target copy in use."""
        model = self.online["world_model"]
        assert isinstance(model, WorldModel)
        return model

    def mixing(self, batch: EpisodeBatch, target: Histories) -> tuple[Tensor, dict[str, Tensor]]:
        """[s_t, O_t^Rollout], and the world model's losses."""
        with label("world model"):
            losses, beliefs = self.world_model.losses(batch, target.hidden_RND, self.generator)
        rollout_RW = self.rollout(batch, beliefs, target)
        return torch.cat((batch.state_RS, rollout_RW), dim=-1), losses

    @property
    def summarise(self) -> Rollout:
        """The fusion of the branches and the GRU that reads it."""
        rollout = self.online["rollout"]
        assert isinstance(rollout, Rollout)
        return rollout

    def rollout(self, batch: EpisodeBatch, beliefs: Beliefs, target: Histories) -> Tensor:
        """O_t^Rollout [R, W] of every row."""
        present = self._present(batch, beliefs, target, of_obs=False)
        networks = (self.world_model, self.target_agent)
        if self.settings.world_model.td_gradient:
            fused = self.summarise.fuse(imagine(*networks, present))
        else:
            fused = imagine_fused(*networks, self.summarise, present)
        with label("rollout GRU"):
            summary: Tensor = self.summarise(fused)
        return summary

    def _present(self, batch: EpisodeBatch, beliefs: Beliefs, target: Histories, *, of_obs: bool) -> Present:
        return Present(
            beliefs=beliefs,
            hidden_RND=target.hidden_RND,
            obs_RNO=batch.obs_RNO,
            avail_RNA=batch.avail_actions_RNA,
            fades=measure_fades(self.world_model, beliefs, target.hidden_RND, batch, of_obs=of_obs),
        )

    def health(self, batch: EpisodeBatch) -> dict[str, float]:
        """How well the world model imagines, and how much the mixer makes of it (learner/health.py)."""
        state = self.generator.get_state()
        figures = {}
        with torch.no_grad():
            target = histories(self.target_agent, batch)
            _, beliefs = self.world_model.losses(batch, target.hidden_RND, self.generator)
            present = self._present(batch, beliefs, target, of_obs=True)
            if self.settings.world_model.prior:
                figures = health.measure(self.world_model, self.target_agent, present, batch)
            imagined = imagine(self.world_model, self.target_agent, present)
            terms_KRF = self.summarise.terms(imagined)
            q_RNA = histories(self.agent, batch).q_RNA
        self.generator.set_state(state)  # measuring must not change what is trained
        return {**figures, **self._mixer_inputs(batch, q_RNA, terms_KRF)}

    def _mixer_inputs(
        self, batch: EpisodeBatch, q_RNA: Tensor, terms_KRF: dict[str, Tensor]
    ) -> dict[str, float]:
        """Shares of the state and of each branch in the gradient of Q_tot, for the actions taken."""
        now = batch.step_rows_P
        inputs = {"state": batch.state_RS[now], **{name: term[:, now] for name, term in terms_KRF.items()}}
        inputs = {name: x.detach().requires_grad_() for name, x in inputs.items()}
        fused_KPF = torch.stack([inputs[name] for name in terms_KRF]).sum(dim=0)
        condition_PS = torch.cat((inputs["state"], self.summarise(fused_KPF)), dim=-1)
        chosen_PN = values_of(q_RNA[now], batch.actions_PN)
        return health.input_shares(self.online["mixer"](chosen_PN, condition_PS), inputs)
