"""Divergences against the textbook, and the balance on the right side."""

import numpy as np
import pytest
import torch

from learner.gaussians import Gaussian, kl, kl_balanced, kl_to_standard


def _pair():
    rng = np.random.default_rng(0)
    q, p = (Gaussian(*(torch.from_numpy(rng.standard_normal((7, 3, 4))) for _ in range(2))) for _ in range(2))
    return q, p


def _kl_numpy(q, p):
    """KL(N(m, s^2) || N(m', s'^2)) = log s'/s + (s^2 + (m - m')^2) / 2 s'^2 - 1/2, element by element."""
    total, count = 0.0, 0
    for index in np.ndindex(q.mean.shape):
        m, mp = float(q.mean[index]), float(p.mean[index])
        s, sp = np.exp(float(q.log_var[index]) / 2), np.exp(float(p.log_var[index]) / 2)
        total += np.log(sp / s) + (s**2 + (m - mp) ** 2) / (2 * sp**2) - 0.5
        count += 1
    return total / count


def test_kl_is_the_mean_over_all_dimensions():
    q, p = _pair()
    standard = Gaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    np.testing.assert_allclose(float(kl(q, p)), _kl_numpy(q, p))
    np.testing.assert_allclose(float(kl_to_standard(q)), _kl_numpy(q, standard))
    assert float(kl(q, q)) == pytest.approx(0.0)


@pytest.mark.parametrize("alpha", [0.2, 0.8])
def test_alpha_weighs_the_posteriors_side(alpha):
    q, p = _pair()
    for tensor in (q.mean, q.log_var, p.mean, p.log_var):
        tensor.requires_grad_()
    plain = torch.autograd.grad(kl(q, p), (q.mean, p.mean))
    balanced = torch.autograd.grad(kl_balanced(q, p, alpha), (q.mean, p.mean))
    torch.testing.assert_close(balanced[0], alpha * plain[0])
    torch.testing.assert_close(balanced[1], (1 - alpha) * plain[1])
    torch.testing.assert_close(kl_balanced(q, p, alpha), kl(q, p))
    torch.testing.assert_close(kl_balanced(q, p, None), kl(q, p))


def test_samples_have_the_stated_moments():
    gaussian = Gaussian(torch.full((200_000,), 3.0), torch.full((200_000,), np.log(4.0)))
    sample = gaussian.sample(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert float(sample.mean()) == pytest.approx(3.0, abs=0.03)
    assert float(sample.std()) == pytest.approx(2.0, abs=0.03)


def test_statistics_are_clamped_where_they_would_overflow():
    gaussian = Gaussian.from_statistics(torch.tensor([[1.0, 1e9], [2.0, -1e9]]))
    assert gaussian.mean.tolist() == [[1.0], [2.0]]
    assert torch.isfinite(gaussian.log_var.exp()).all()
