"""Imagination: what it starts from, whose head chooses, what is always allowed."""

from dataclasses import fields

import pytest
import torch
from torch.nn import functional as F

from common.agent import AgentNetwork, greedy_actions
from learner import compiled_imagination
from learner import imagination as module
from learner.imagination import Rollout, imagine, imagine_fused, predicted_avail
from learner.present import Present
from learner.remainders import measure_fades
from learner.settings import BranchMasks
from learner.world_model import Beliefs, WorldModel, one_hot
from tests.episodes import SPEC
from tests.learner.batches import AGENT, ALONE, WORLD_MODEL, ragged_batch


@pytest.fixture
def batch():
    return ragged_batch()


def _setup(batch, spec=SPEC, **changes):
    torch.manual_seed(0)
    settings = WORLD_MODEL.model_copy(update=changes)
    model, policy = WorldModel(spec, AGENT.hidden_size, settings), AgentNetwork(spec, AGENT)
    hidden = torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size)
    _, beliefs = model.losses(batch, hidden, torch.Generator())
    beliefs = Beliefs(**{f.name: getattr(beliefs, f.name).detach() for f in fields(Beliefs)})
    present = Present(
        beliefs=beliefs,
        hidden_RND=hidden,
        obs_RNO=batch.obs_RNO,
        avail_RNA=batch.avail_actions_RNA,
        fades=measure_fades(model, beliefs, hidden, batch),
    )
    return model, policy, present


def _same_compiled(model, policy, start):
    """In blocks of rows, and compiled where it is compiled, the same is imagined."""
    rollout = Rollout(model.spec.n_agents, model.settings)
    in_blocks = imagine_fused(model, policy, rollout, start)
    torch.testing.assert_close(in_blocks, rollout.fuse(imagine(model, policy, start)).detach())
    assert not in_blocks.requires_grad


def test_the_first_action_is_the_policys_on_the_real_hidden_state_and_available(batch):
    model, policy, start = _setup(batch)
    imagined = imagine(model, policy, start)
    first = imagined.actions_RN[0]
    torch.testing.assert_close(first, greedy_actions(policy.q(start.hidden_RND), batch.avail_actions_RNA))
    assert batch.avail_actions_RNA.gather(-1, first.unsqueeze(-1)).all()


def test_each_step_follows_from_the_one_before(batch):
    model, policy, start = _setup(batch, carry_remainders=False)
    imagined = imagine(model, policy, start, complete=True)
    assert len(imagined.s_RNZ) == WORLD_MODEL.horizon + 1
    for k in range(WORLD_MODEL.horizon):
        action = one_hot(imagined.actions_RN[k], SPEC.n_actions, torch.float32)
        torch.testing.assert_close(imagined.s_RNZ[k + 1], model.ac_prior(imagined.s_RNZ[k], action).mean)
        torch.testing.assert_close(imagined.hidden_RND[k + 1], model.ac_decoder(imagined.s_RNZ[k + 1]))
        torch.testing.assert_close(imagined.v_RNZ[k + 1], model.af_prior(imagined.v_RNZ[k]).mean)
        torch.testing.assert_close(imagined.obs_RNO[k + 1], model.decode_af(imagined.v_RNZ[k + 1])[1])
    torch.testing.assert_close(imagined.obs_RNO[0], batch.obs_RNO)


def test_what_nothing_needs_is_left_out_and_changes_nothing(batch):
    model, policy, start = _setup(batch)
    complete, lean = imagine(model, policy, start, complete=True), imagine(model, policy, start)
    assert len(lean.hidden_RND) == len(lean.actions_RN) == len(complete.hidden_RND) - 1
    for field in ("s_RNZ", "v_RNZ", "static_RNZ", "actions_RN"):
        torch.testing.assert_close(getattr(lean, field), getattr(complete, field), rtol=0, atol=0)


def test_later_actions_obey_the_predicted_mask(batch):
    model, policy, start = _setup(batch)
    with torch.no_grad():
        model.avail_head[2].bias.fill_(-100.0)  # predicts that nothing is available
    imagined = imagine(model, policy, start)
    for actions in imagined.actions_RN[1:]:
        assert (actions == SPEC.fallback_action).all()
    assert predicted_avail(torch.full((2, 3, SPEC.n_actions), -9.0), 4).sum() == 6
    _same_compiled(model, policy, start)


def test_the_fallback_is_there_for_those_alone_who_have_nothing_else(batch):
    """SMAC's is no-op: a living agent's value of it is of nothing that was ever played."""
    model, policy, start = _setup(batch)
    others = torch.arange(SPEC.n_actions) != SPEC.fallback_action
    with torch.no_grad():
        model.avail_head[2].bias.copy_(torch.where(others, 100.0, -100.0))
        policy.head.bias[SPEC.fallback_action] = 100.0  # it would always be chosen
    for actions in imagine(model, policy, start).actions_RN[1:]:
        assert (actions != SPEC.fallback_action).all()
    logits = torch.where(others, 9.0, -9.0).repeat(2, 3, 1)
    logits[1, 2] = -9.0
    fallback = predicted_avail(logits, SPEC.fallback_action)[..., SPEC.fallback_action]
    assert fallback.nonzero().tolist() == [[1, 2]]
    _same_compiled(model, policy, start)


def test_the_literal_rollout_is_the_papers(batch):
    model, policy, start = _setup(batch, af_rollout="literal")
    imagined = imagine(model, policy, start)
    beliefs = start.beliefs
    v_in, obs_in = beliefs.v_previous_RNZ, batch.obs_RNO
    for k in range(1, WORLD_MODEL.horizon + 1):
        v_back, obs_in = model.decode_af(model.af_encoder(v_in, obs_in)[..., : WORLD_MODEL.latent_size])
        v_in = model.af_prior(v_back).mean
        torch.testing.assert_close(imagined.v_RNZ[k], v_in)
        torch.testing.assert_close(imagined.obs_RNO[k], obs_in)


VARIANTS = {
    "default": {},
    "literal": {"af_rollout": "literal"},
    "vae": {"posterior": "vae"},
    "no prior": {"prior": False},
    "all actions": {"predict_avail_actions": False},
    "nothing carried": {"carry_remainders": False},
    "not normalised": {"normalise_branches": False},
    "masks": {"masks": BranchMasks(ac=0.5, af=-2.0, st=0.0)},
    "one step": {"horizon": 1},
}


@pytest.mark.parametrize("spec", [SPEC, ALONE], ids=["team", "alone"])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_blocks_of_rows_are_imagined_as_the_whole(monkeypatch, changes, spec):
    """And compiled as by torch, where it is compiled."""
    for where in (module, compiled_imagination):
        monkeypatch.setattr(where, "BLOCK_NODES", 4 * spec.n_agents)
    model, policy, start = _setup(ragged_batch(spec=spec), spec, **changes)
    _same_compiled(model, policy, start)


@pytest.mark.parametrize("branch", ["ac", "af", "st"])
def test_a_mask_of_zero_keeps_a_branch_from_the_mixer(batch, branch):
    model, policy, start = _setup(batch)
    imagined = imagine(model, policy, start)
    masked = Rollout(SPEC.n_agents, WORLD_MODEL.model_copy(update={"masks": BranchMasks(**{branch: 0.0})}))
    field = {"ac": "s_RNZ", "af": "v_RNZ", "st": "static_RNZ"}[branch]
    garbage = {
        **{name: getattr(imagined, name) for name in imagined.__dataclass_fields__},
        field: [torch.full_like(code, torch.nan) for code in getattr(imagined, field)],
    }
    torch.testing.assert_close(masked.fuse(type(imagined)(**garbage)), masked.fuse(imagined))


def test_branches_weigh_the_same_after_normalisation(batch):
    model, policy, start = _setup(batch)
    imagined = imagine(model, policy, start)
    louder = type(imagined)(
        **{
            **{name: getattr(imagined, name) for name in imagined.__dataclass_fields__},
            "static_RNZ": [1000.0 * code for code in imagined.static_RNZ],
        }
    )
    rollout = Rollout(SPEC.n_agents, WORLD_MODEL)
    torch.testing.assert_close(rollout.fuse(louder), rollout.fuse(imagined), rtol=0.05, atol=0.05)


def test_the_summary_reads_from_the_last_moment_to_the_first(batch):
    model, policy, start = _setup(batch)
    rollout = Rollout(SPEC.n_agents, WORLD_MODEL)
    imagined = imagine(model, policy, start)
    fused = rollout.fuse(imagined)
    branches = (imagined.s_RNZ[-1], imagined.v_RNZ[-1], imagined.static_RNZ[-1])
    last = sum(F.layer_norm(code.flatten(-2), code.flatten(-2).shape[-1:]) for code in branches)
    torch.testing.assert_close(fused[0], last)
    expected, _ = rollout.gru(fused)
    torch.testing.assert_close(rollout(fused), expected[-1])
