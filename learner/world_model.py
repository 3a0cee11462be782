"""The disentangled world model: action-conditioned, action-free and static branch (paper section 4).

What the losses see as *data* are the obs and the hidden states of the target agent network, detached, so
that reconstruction can't shrink the policy's own features (ours, after MBVD). Inside the
reconstruction terms nothing is detached.

Shapes: R rows of a packed batch (learner/batching.py), B episodes, N agents, O obs, D hidden of the agent,
Z latent per agent and branch, A actions. The row before row B + p is step_rows_P[p].
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.labels import label, labelled
from common.types import EnvSpec
from learner.batching import EpisodeBatch
from learner.gala import GalaDecoder, GalaEncoder
from learner.gaussians import Gaussian, kl_balanced, kl_to_standard
from learner.latent_recurrence import unroll_encoder, unroll_latent
from learner.settings import WorldModelSettings
from learner.vae import FullyConnectedDecoder, FullyConnectedEncoder, PriorVae

Encoder = GalaEncoder | FullyConnectedEncoder
Decoder = GalaDecoder | FullyConnectedDecoder


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """What the posteriors say about every row: means, without samples, as imagination starts from them."""

    s_RNZ: Tensor
    v_RNZ: Tensor
    v_previous_RNZ: Tensor
    """v_{t-1}, where the literal action-free rollout starts."""
    static_projected_RNH: Tensor
    """The obs in the first layer of the static branch's encoder; [R, H] in vdf-sv."""
    static_RNZ: Tensor

    def part(self, rows: slice | Tensor) -> "Beliefs":
        """Of these rows alone."""
        return Beliefs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class WorldModel(nn.Module):
    """The networks of the three branches, the verbs observe and losses; imagination.py has imagine."""

    def __init__(self, spec: EnvSpec, agent_hidden_size: int, settings: WorldModelSettings) -> None:
        super().__init__()
        self.spec, self.settings = spec, settings
        hidden, latent, agents = settings.hidden_size, settings.latent_size, spec.n_agents
        self.ac_encoder = self._encoder((agent_hidden_size,), 2 * latent)
        self.ac_decoder = self._decoder(agent_hidden_size)
        self.af_encoder = self._encoder((latent, spec.obs_size), 2 * latent)
        self.af_decoder = self._decoder(latent + spec.obs_size)
        self.st_encoder = self._encoder((spec.obs_size,), latent)
        self.st_decoder = self._decoder(spec.obs_size)
        self.ac_prior = PriorVae(agents, latent, hidden, spec.n_actions) if settings.prior else None
        self.af_prior = PriorVae(agents, latent, hidden) if settings.prior else None
        self.avail_head = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, spec.n_actions)
        )

    def _encoder(self, part_sizes: tuple[int, ...], out_size: int) -> Encoder:
        hidden = self.settings.hidden_size
        if self.settings.posterior == "gala":
            return GalaEncoder(part_sizes, hidden, out_size)
        return FullyConnectedEncoder(self.spec.n_agents, part_sizes, hidden, out_size)

    def _decoder(self, out_size: int) -> Decoder:
        latent, hidden = self.settings.latent_size, self.settings.hidden_size
        if self.settings.posterior == "gala":
            return GalaDecoder(latent, hidden, out_size)
        return FullyConnectedDecoder(self.spec.n_agents, latent, hidden, out_size)

    def project_decoded(self, v_RNZ: Tensor) -> Tensor:
        """The obs that v decodes to in the first layer of the static branch's encoder, without those obs."""
        obs = slice(self.settings.latent_size, None)
        projected: Tensor = self.st_encoder.project_decoded(self.af_decoder, v_RNZ, obs)  # type: ignore[arg-type]
        return projected

    def decode_af(self, v_RNZ: Tensor) -> tuple[Tensor, Tensor]:
        """(v'_{t-1} [R, N, Z], z'_t [R, N, O]) from v_t."""
        previous, obs = self.af_decoder(v_RNZ).split((self.settings.latent_size, self.spec.obs_size), dim=-1)
        return previous, obs

    def losses(
        self, batch: EpisodeBatch, hidden_RND: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Beliefs]:
        """The branches' losses by name, each a mean over real rows, and the beliefs to imagine from.

        `hidden_RND` is data: it must carry no gradient.
        """
        assert hidden_RND.shape[:2] == batch.obs_RNO.shape[:2] and not hidden_RND.requires_grad
        kl_ac, rec_ac, ac, s = self._action_conditioned(batch, hidden_RND, generator)
        kl_af, rec_af, af, v = self._action_free(batch, generator)
        with label("static branch"):
            projected = self.st_encoder.project(0, batch.obs_RNO)
            static = self.st_encoder.finish(projected)
            st = self.st_decoder.error(static, batch.obs_RNO)
        losses = {"kl_ac": kl_ac, "rec_ac": rec_ac, "kl_af": kl_af, "rec_af": rec_af, "st": st}
        if self.settings.predict_avail_actions:
            losses["avail"] = F.binary_cross_entropy_with_logits(
                self.avail_head(s), batch.avail_actions_RNA.to(s.dtype)
            )
        return losses, Beliefs(
            s_RNZ=ac.mean,
            v_RNZ=af.mean,
            v_previous_RNZ=previous_rows(v, batch),
            static_projected_RNH=projected,
            static_RNZ=static,
        )

    @labelled("action-conditioned branch")
    def _action_conditioned(
        self, batch: EpisodeBatch, hidden_RND: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Gaussian, Tensor]:
        """KL_ac, REC_ac, q(s_t | h_t) and a sample of it. Parallel over time: s_{t-1} is the row before."""
        posterior = Gaussian.from_statistics(self.ac_encoder(hidden_RND))
        s = posterior.sample(standard_noise(posterior.mean, generator))
        rec = self.ac_decoder.error(s, hidden_RND)
        if self.ac_prior is None:
            return self.settings.prior_weight * kl_to_standard(posterior), rec, posterior, s
        s_previous = previous_rows(s, batch)
        a_previous = one_hot(batch.last_actions(), self.spec.n_actions, s.dtype)
        prior = self.ac_prior(s_previous, a_previous)
        s_back, a_back = self.ac_prior.reconstruct(prior.sample(standard_noise(s, generator)))
        rec = rec + F.mse_loss(s_back, s_previous) + F.mse_loss(a_back, a_previous)
        return self._kl(posterior, prior), rec, posterior, s

    @labelled("action-free branch")
    def _action_free(
        self, batch: EpisodeBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Gaussian, Tensor]:
        """KL_af, REC_af, q(v_t | v_{t-1}, z_t) and a sample of it."""
        posterior, v = self._unroll_action_free(batch, generator)
        v_previous = previous_rows(v, batch)
        rec = self.af_decoder.error(v, batch.obs_RNO, v_previous)
        if self.af_prior is None:
            return self.settings.prior_weight * kl_to_standard(posterior), rec, posterior, v
        prior = self.af_prior(v_previous)
        v_again, _ = self.af_prior.reconstruct(prior.sample(standard_noise(v, generator)))
        return self._kl(posterior, prior), rec + F.mse_loss(v_again, v_previous), posterior, v

    def _unroll_action_free(self, batch: EpisodeBatch, generator: torch.Generator) -> tuple[Gaussian, Tensor]:
        """The one recurrence of the world model. What the obs add is projected for all times at once."""
        from_obs = self.af_encoder.project(1, batch.obs_RNO)
        noise = standard_noise(
            batch.obs_RNO.new_empty(*batch.obs_RNO.shape[:2], self.settings.latent_size), generator
        )
        sizes = batch.row_sizes_T.tolist()
        if isinstance(self.af_encoder, GalaEncoder):
            statistics, samples = unroll_latent(self.af_encoder, from_obs, noise, sizes)
        else:
            statistics, samples = unroll_encoder(self.af_encoder, from_obs, noise, sizes)
        return Gaussian.from_statistics(statistics), samples

    def _kl(self, posterior: Gaussian, prior: Gaussian) -> Tensor:
        """L^KL of a branch; prior_weight is ours, the paper's is 1."""
        balanced = kl_balanced(posterior, prior, self.settings.kl_balance)
        return self.settings.prior_weight * kl_to_standard(prior) + balanced


def previous_rows(x: Tensor, batch: EpisodeBatch) -> Tensor:
    """x_{t-1} of every row; zero in the first slot of an episode."""
    return torch.cat((x.new_zeros(batch.batch_size, *x.shape[1:]), x[batch.step_rows_P]))


def one_hot(actions_RN: Tensor, n_actions: int, dtype: torch.dtype) -> Tensor:
    """[R, N, A]; all zero for action -1."""
    encoded = torch.zeros(*actions_RN.shape, n_actions, device=actions_RN.device, dtype=dtype)
    present = (actions_RN >= 0).unsqueeze(-1).to(dtype)
    return encoded.scatter_(-1, actions_RN.clamp(min=0).unsqueeze(-1), present)


def standard_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Samples of N(0, 1) in the shape of a tensor."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
