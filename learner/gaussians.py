"""Diagonal Gaussians: samples and divergences.

Every divergence is a mean over rows, agents and latent dimensions: summed over dimensions it would
outweigh the reconstruction and the posterior would collapse.

Shapes: any leading ones, Z latent last.
"""

from dataclasses import dataclass
from typing import Any

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


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p), mean over all dimensions."""
    return _weighted_kl(q, p, 1.0, 1.0)


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
    return _weighted_kl(posterior, prior, alpha, 1.0 - alpha)


def _weighted_kl(q: Gaussian, p: Gaussian, to_q: float, to_p: float) -> Tensor:
    value: Tensor = _Kl.apply(q.mean, q.log_var, p.mean, p.log_var, to_q, to_p)  # type: ignore[no-untyped-call]
    return value


class _Kl(torch.autograd.Function):
    """KL(q || p), its gradients towards q and p each with a weight: one pass for both sides of a balance."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        q_mean: Tensor,
        q_log_var: Tensor,
        p_mean: Tensor,
        p_log_var: Tensor,
        to_q: float,
        to_p: float,
    ) -> Tensor:
        difference = q_mean - p_mean
        by_variance = difference * torch.exp(-p_log_var)
        squares = difference.mul_(by_variance)
        change = q_log_var - p_log_var
        ratio = torch.exp(change)
        ctx.save_for_backward(by_variance, squares, ratio)
        ctx.weights = to_q, to_p
        return 0.5 * (ratio + squares).sub_(change).mean() - 0.5

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        by_variance, squares, ratio = ctx.saved_tensors
        to_q, to_p = (weight * grad / ratio.numel() for weight in ctx.weights)
        to_p_log_var = (1.0 - ratio).sub_(squares).mul_(0.5 * to_p)
        return (
            by_variance * to_q,
            (ratio - 1.0).mul_(0.5 * to_q),
            by_variance * -to_p,
            to_p_log_var,
            None,
            None,
        )
