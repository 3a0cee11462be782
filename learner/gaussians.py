"""Diagonal Gaussians: samples and divergences.

Every divergence is a mean over rows, agents and latent dimensions: summed over dimensions it would
outweigh the reconstruction and the posterior would collapse.

Shapes: any leading ones, Z latent last.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_VAR_RANGE = (-10.0, 4.0)
"""Beyond these the exponentials of the divergence lose all meaning."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """N(mean, exp(log_var))."""

    mean: Tensor
    log_var: Tensor

    @classmethod
    def from_statistics(cls, statistics: Tensor) -> "Gaussian":
        """Splits a network's last dimension [.., 2Z] into mean and log-variance."""
        mean, log_var = statistics.chunk(2, dim=-1)
        return cls(mean, log_var.clamp(*LOG_VAR_RANGE))

    def sample(self, noise: Tensor) -> Tensor:
        """Reparametrised: mean + standard deviation * noise."""
        return torch.addcmul(self.mean, torch.exp(0.5 * self.log_var), noise)

    def detach(self) -> "Gaussian":
        """stop_grad of the paper."""
        return Gaussian(self.mean.detach(), self.log_var.detach())


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p), mean over all dimensions."""
    difference = q.mean - p.mean
    ratio = torch.exp(q.log_var - p.log_var) + difference.square() * torch.exp(-p.log_var)
    return 0.5 * (ratio - 1.0 + p.log_var - q.log_var).mean()


def kl_to_standard(q: Gaussian) -> Tensor:
    """KL(q || N(0, I)), mean over all dimensions."""
    return 0.5 * (torch.exp(q.log_var) + q.mean.square() - 1.0 - q.log_var).mean()


def kl_balanced(posterior: Gaussian, prior: Gaussian, alpha: float | None) -> Tensor:
    """D_KLB of the paper: alpha KL(q || sg(p)) + (1 - alpha) KL(sg(q) || p).

    alpha weighs the *posterior's* side; below one half the prior moves faster towards the posterior than
    the other way round. None: the plain divergence.
    """
    if alpha is None:
        return kl(posterior, prior)
    return alpha * kl(posterior, prior.detach()) + (1.0 - alpha) * kl(posterior.detach(), prior)
