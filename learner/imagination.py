"""Latent imagination: j steps ahead from every row at once, and the summary that the mixer sees
(paper section 4, "Combining the Modularized World Model with Value Function Decomposition").

Imagination uses means, not samples: sampling doubled its error (ours). It chooses actions greedily
with the *target* agent's head, because the imagined hidden states live in the target's space.

Shapes: R rows, N agents, Z latent, A actions, D hidden, O obs, K = j + 1 imagined moments, W rollout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.agent import AgentNetwork, greedy_actions
from common.labels import labelled
from learner.compiled_imagination import compiles, imagine_compiled
from learner.packed_gru import packed_gru
from learner.present import Present
from learner.settings import WorldModelSettings
from learner.world_model import Beliefs, WorldModel, one_hot

BLOCK_NODES = 4096
"""Rows times agents of a block on the CPU: 1 MB for 64 features. A GPU takes all rows at once."""


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """Moments t, t+1, .. t+j of every row, as lists of K tensors."""

    s_RNZ: list[Tensor]
    hidden_RND: list[Tensor]
    """The first is the real one; the last moment's only when asked for."""
    actions_RN: list[Tensor]
    """K - 1 of them; the first is chosen on the real hidden state."""
    avail_logits_RNA: list[Tensor]
    """Of the same moments from t+1 on; empty when they are not predicted."""
    v_RNZ: list[Tensor]
    obs_RNO: list[Tensor]
    """The first is the real one. Only when asked for, or when the action-free branch rolls out literally."""
    static_RNZ: list[Tensor]


@labelled("imagination")
def imagine(
    model: WorldModel,
    policy: AgentNetwork,
    present: Present,
    *,
    actions: list[Tensor] | None = None,
    complete: bool = False,
) -> Imagined:
    """Rolls all branches out; `actions` [R, N] per step replace the policy's (to measure the dynamics alone).

    What only the choice of a further action needs is not computed for the last moment, unless `complete`.
    Without prior VAEs there is no transition: only the present moment comes back.
    """
    horizon = model.settings.horizon if model.settings.prior else 0
    s, hidden, chosen, logits = _action_conditioned(model, policy, present, horizon, actions, complete)
    if model.settings.af_rollout == "forward":
        v = _action_free_forward(model, present.beliefs, horizon)
        obs = _imagined_obs(model, present, v) if complete else []
        static = _imagined_static(model, present, v)
    else:
        v, obs = _action_free_literal(model, present.beliefs, present.obs_RNO, horizon)
        static = [present.beliefs.static_RNZ, *(model.st_encoder(z) for z in obs[1:])]
    return Imagined(
        s_RNZ=s,
        hidden_RND=hidden,
        actions_RN=chosen,
        avail_logits_RNA=logits,
        v_RNZ=v,
        obs_RNO=obs,
        static_RNZ=static,
    )


def _action_conditioned(
    model: WorldModel,
    policy: AgentNetwork,
    present: Present,
    horizon: int,
    actions: list[Tensor] | None,
    complete: bool,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    s, hidden, chosen, logits = [present.beliefs.s_RNZ], [present.hidden_RND], [], []
    avail_RNA, remainder = present.avail_RNA, present.hidden_RND - model.ac_decoder(s[0])
    for k in range(horizon):
        assert model.ac_prior is not None
        chosen.append(actions[k] if actions else greedy_actions(policy.q(hidden[k]).detach(), avail_RNA))
        s.append(model.ac_prior(s[k], one_hot(chosen[k], model.spec.n_actions, s[k].dtype)).mean)
        if k + 1 == horizon and not complete:
            break
        fade_D = present.fades.hidden_D ** (k + 1)
        hidden.append(torch.addcmul(model.ac_decoder(s[k + 1]), remainder, fade_D))
        if model.settings.predict_avail_actions:
            logits.append(model.avail_head(s[k + 1]))
            avail_RNA = predicted_avail(logits[k], model.spec.fallback_action)
        else:
            avail_RNA = torch.ones_like(avail_RNA)
    return s, hidden, chosen, logits


def predicted_avail(logits_RNA: Tensor, fallback_action: int) -> Tensor:
    """Actions more likely available than not; the fallback where there is none.

    Not the fallback always: SMAC's is no-op, which only the dead have, so its value for the living was never
    trained.
    """
    avail = logits_RNA.detach() > 0.0
    avail[..., fallback_action] |= ~avail.any(dim=-1)
    return avail


def _action_free_forward(model: WorldModel, beliefs: Beliefs, horizon: int) -> list[Tensor]:
    """v_{t+k+1} ~ p(. | v_{t+k}); z' is decoded from the advanced v (ours)."""
    v = [beliefs.v_RNZ]
    for k in range(horizon):
        assert model.af_prior is not None
        v.append(model.af_prior(v[k]).mean)
    return v


def _imagined_static(model: WorldModel, present: Present, v: list[Tensor]) -> list[Tensor]:
    """The static codes of the obs that the action-free branch imagined, without those obs."""
    beliefs, static = present.beliefs, [present.beliefs.static_RNZ]
    if len(v) > 1:
        remainder = beliefs.static_projected_RNH - model.project_decoded(v[0])
        for k, later in enumerate(v[1:], start=1):
            projected = torch.addcmul(model.project_decoded(later), remainder, present.fades.static_H**k)
            static.append(model.st_encoder.finish(projected))
    return static


def _imagined_obs(model: WorldModel, present: Present, v: list[Tensor]) -> list[Tensor]:
    """The same for the obs themselves, with factors of their own."""
    decoded = [model.decode_af(moment)[1] for moment in v]
    remainder, fade_O = present.obs_RNO - decoded[0], present.fades.obs_O
    later = (torch.addcmul(z, remainder, fade_O**k) for k, z in enumerate(decoded[1:], start=1))
    return [present.obs_RNO, *later]


def _action_free_literal(
    model: WorldModel, beliefs: Beliefs, obs_RNO: Tensor, horizon: int
) -> tuple[list[Tensor], list[Tensor]]:
    """As the paper writes it: (v_{t-1}, z_t) -> GALA -> (v'_{t-1}, z'_t), v_t ~ p(. | v'_{t-1}), repeat."""
    v_in, obs_in = beliefs.v_previous_RNZ, obs_RNO
    v, obs = [beliefs.v_RNZ], [obs_RNO]
    for _ in range(horizon):
        assert model.af_prior is not None
        code = model.af_encoder(v_in, obs_in).chunk(2, dim=-1)[0]
        v_back, obs_in = model.decode_af(code)
        v_in = model.af_prior(v_back).mean
        v.append(v_in)
        obs.append(obs_in)
    return v, obs


@torch.no_grad()
def imagine_fused(model: WorldModel, policy: AgentNetwork, summarise: "Rollout", present: Present) -> Tensor:
    """`Rollout.fuse` without gradients, imagined for a block of rows at a time."""
    if compiles(model) and not present.obs_RNO.is_cuda:
        return imagine_compiled(model, policy, present)
    rows, agents, _ = present.obs_RNO.shape
    size = rows if present.obs_RNO.is_cuda else max(1, BLOCK_NODES // agents)
    blocks = (slice(start, start + size) for start in range(0, rows, size))
    fused = [summarise.fuse(imagine(model, policy, present.part(block))) for block in blocks]
    return torch.cat(fused, dim=1)


class Rollout(nn.Module):
    """O_t^Rollout: the masked sum of the branches at each moment, read from the last to the first by a GRU.

    Branches are normalised before the sum, because their codes differ in scale by up to six times and the
    largest would drown the others (ours).
    """

    def __init__(self, agents: int, settings: WorldModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.gru = nn.GRU(agents * settings.latent_size, settings.rollout_size)

    def terms(self, imagined: Imagined) -> dict[str, Tensor]:
        """What each branch adds to O_{t+k}, [K, R, N * Z], last moment first; zeros where its mask is 0."""
        return {
            name: torch.stack([self._masked(code, mask) for code in codes])
            for name, (mask, codes) in self._branches(imagined).items()
        }

    def fuse(self, imagined: Imagined) -> Tensor:
        """O_{t+k} = M_ac s + M_af v + M_st z_static, [K, R, N * Z], last moment first."""
        branches = self._branches(imagined).values()
        moments = zip(*(codes for _, codes in branches), strict=True)
        masks = [mask for mask, _ in branches]
        fused = []
        for codes in moments:
            ac, af, st = (self._masked(code, mask) for code, mask in zip(codes, masks, strict=True))
            fused.append(ac + af + st)
        return torch.stack(fused)

    def _branches(self, imagined: Imagined) -> dict[str, tuple[float, list[Tensor]]]:
        masks = self.settings.masks
        return {
            "ac": (masks.ac, imagined.s_RNZ[::-1]),
            "af": (masks.af, imagined.v_RNZ[::-1]),
            "st": (masks.st, imagined.static_RNZ[::-1]),
        }

    def forward(self, fused_KRF: Tensor) -> Tensor:
        """O_t^Rollout [R, W], from the last moment to the present."""
        moments, rows, _ = fused_KRF.shape
        return packed_gru(self.gru, fused_KRF.flatten(0, 1), torch.full((moments,), rows))[-rows:]

    def _masked(self, code_RNZ: Tensor, mask: float) -> Tensor:
        code_RF = code_RNZ.flatten(-2)
        if mask == 0:
            return torch.zeros_like(code_RF)
        if self.settings.normalise_branches:
            code_RF = F.layer_norm(code_RF, code_RF.shape[-1:])
        return code_RF if mask == 1 else mask * code_RF
