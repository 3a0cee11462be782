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
        return cls(*_Split.apply(statistics))  # type: ignore[no-untyped-call]

    def sample(self, noise: Tensor) -> Tensor:
        """Reparametrised: mean + standard deviation * noise."""
        drawn: Tensor = _Sample.apply(self.mean, self.log_var, noise)  # type: ignore[no-untyped-call]
        return drawn


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p), mean over all dimensions."""
    return _weighted_kl(q, p, 1.0, 1.0)


def kl_to_standard(q: Gaussian) -> Tensor:
    """KL(q || N(0, I)), mean over all dimensions."""
    value: Tensor = _KlToStandard.apply(q.mean, q.log_var)  # type: ignore[no-untyped-call]
    return value


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


# What follows has backwards of its own: over tensors as large as a batch every pass counts, and a graph of
# the same terms makes two to four times as many.


class _Split(torch.autograd.Function):
    """[.., 2Z] into the mean and the clamped log-variance."""

    @staticmethod
    def forward(ctx: Any, statistics: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        mean, log_var = statistics.chunk(2, dim=-1)
        clamped = log_var.clamp(*LOG_VAR_RANGE)
        ctx.save_for_backward(clamped == log_var)
        return mean.clone(), clamped

    @staticmethod
    def backward(ctx: Any, to_mean: Tensor, to_log_var: Tensor) -> Tensor:  # noqa: ANN401
        (inside,) = ctx.saved_tensors
        return torch.cat((to_mean, to_log_var * inside), dim=-1)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:  # noqa: ANN401
        change = torch.mul(log_var, 0.5).exp_().mul_(noise)
        ctx.save_for_backward(change)
        return mean + change

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        (change,) = ctx.saved_tensors
        return grad, (grad * change).mul_(0.5), None


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


class _KlToStandard(torch.autograd.Function):
    """KL(q || N(0, I)) with half the passes over memory that a graph of its terms takes."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_var: Tensor) -> Tensor:  # noqa: ANN401
        variance = torch.exp(log_var)
        ctx.save_for_backward(mean, variance)
        return 0.5 * torch.addcmul(variance, mean, mean).sub_(log_var).mean() - 0.5

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        mean, variance = ctx.saved_tensors
        share = grad / mean.numel()
        return mean * share, (variance - 1.0).mul_(0.5 * share)
