"""QMIX's mixer is monotonic by construction, whatever its weights and its condition."""

import itertools

import numpy as np
import torch

from learner.mixers import QmixMixer
from learner.settings import MixerSettings

AGENTS, ACTIONS, CONDITION = 3, 4, 10
SMALL = MixerSettings(embed_size=5, hypernet_size=6)


def _mixer(seed: int) -> QmixMixer:
    torch.manual_seed(seed)
    return QmixMixer(AGENTS, CONDITION, SMALL).double()


def _q_tot_numpy(mixer: QmixMixer, q, condition):
    """Q_tot = W2^T elu(W1^T q + b1) + V(s), with |W| from hypernetworks (Rashid et al. 2018, section 4.2)."""
    weight, bias = (p.detach().numpy() for p in mixer.first.parameters())

    def linear(layer, x):
        return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()

    def relu(x):
        return np.maximum(x, 0)

    out = weight @ condition + bias
    h, e = SMALL.hypernet_size, SMALL.embed_size
    to_w1, to_w2, b1, to_v = np.split(out, [h, 2 * h, 2 * h + e])
    w1 = np.abs(linear(mixer.w1, relu(to_w1))).reshape(AGENTS, e)
    w2 = np.abs(linear(mixer.w2, relu(to_w2)))
    hidden = q @ w1 + b1
    hidden = np.where(hidden > 0, hidden, np.exp(np.minimum(hidden, 0)) - 1)
    return hidden @ w2 + linear(mixer.v, relu(to_v))[0]


def test_it_is_the_papers_formula():
    mixer, rng = _mixer(0), np.random.default_rng(0)
    q, condition = rng.standard_normal((20, AGENTS)), rng.standard_normal((20, CONDITION))
    ours = mixer(torch.from_numpy(q), torch.from_numpy(condition)).detach().numpy()
    expected = [_q_tot_numpy(mixer, *row) for row in zip(q, condition, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


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
