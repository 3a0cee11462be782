"""QMIX's mixer is monotonic by construction, whatever its weights and its condition."""

import itertools

import numpy as np
import torch

from learner import monotonic
from learner.mixers import QmixMixer
from learner.settings import MixerSettings
from tests.learner.equations import qmix_mixer

AGENTS, ACTIONS, CONDITION = 3, 4, 10
SMALL = MixerSettings(embed_size=5, hypernet_size=6)


def _mixer(seed: int) -> QmixMixer:
    torch.manual_seed(seed)
    return QmixMixer(AGENTS, CONDITION, SMALL).double()


def test_it_is_the_papers_formula():
    mixer, rng = _mixer(0), np.random.default_rng(0)
    q, condition = rng.standard_normal((20, AGENTS)), rng.standard_normal((20, CONDITION))
    ours = mixer(torch.from_numpy(q), torch.from_numpy(condition)).detach().numpy()
    parameters = {f"mixer.{name}": value.numpy() for name, value in mixer.state_dict().items()}
    expected = [qmix_mixer(parameters, *row) for row in zip(q, condition, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_its_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.setattr(monotonic, "BLOCK_ROWS", 3)
    mixer = _mixer(2)
    q, condition = (torch.randn(7, size, dtype=torch.float64) for size in (AGENTS, CONDITION))
    names, values = zip(*mixer.named_parameters(), strict=True)

    def q_tot(q_PN, condition_PS, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(mixer, given, (q_PN, condition_PS))

    torch.autograd.gradcheck(q_tot, (q.requires_grad_(), condition.requires_grad_(), *values))


def test_q_tot_never_falls_when_an_agents_q_rises():
    for seed in range(5):
        mixer = _mixer(seed)
        q = (torch.randn(200, AGENTS, dtype=torch.float64) * 10).requires_grad_()
        q_tot = mixer(q, torch.randn(200, CONDITION, dtype=torch.float64) * 10)
        (slope,) = torch.autograd.grad(q_tot.sum(), q)
        assert (slope >= 0).all()


def test_the_joint_greedy_action_is_the_tuple_of_the_agents_own():
    mixer = _mixer(1)
    q_NA = torch.randn(AGENTS, ACTIONS, dtype=torch.float64)
    condition = torch.randn(1, CONDITION, dtype=torch.float64)
    joint = list(itertools.product(range(ACTIONS), repeat=AGENTS))
    q = torch.stack([q_NA[range(AGENTS), list(actions)] for actions in joint])
    best = joint[int(mixer(q, condition.expand(len(q), -1)).argmax())]
    assert list(best) == q_NA.argmax(dim=1).tolist()
