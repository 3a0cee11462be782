"""The action-free posterior's recurrence, with its own backward.

    v_t ~ N(mean_t, exp(log_var_t)),   (mean_t, log_var_t) = S relu(x_t + S v_{t-1} W^T) U^T + b

x_t is what the obs add to GALA's first layer. The loop is short of arithmetic and long on calls, so it
is walked back once by hand, and the weights' gradients are one matrix product over all rows (as in
packed_gru.py).

Shapes: R rows in PackedSequence's layout, N nodes, H hidden, Z latent, Y = 2 Z statistics.
"""

from typing import Any

import torch
from torch import Tensor

from learner.gala import GalaEncoder, smooth
from learner.gaussians import LOG_VAR_RANGE, Gaussian
from learner.vae import FullyConnectedEncoder


def unroll_latent(
    encoder: GalaEncoder, from_obs_RNH: Tensor, noise_RNZ: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor]:
    """(statistics [R, N, 2Z], samples [R, N, Z]) after every row, from v = 0 at each episode's start.

    `encoder`'s part 0 is the latent; `from_obs_RNH` is its projection of part 1. Sequences are sorted longest
    first, `sizes` are the rows at each time.
    """
    statistics, samples = _Recurrence.apply(  # type: ignore[no-untyped-call]
        from_obs_RNH,
        encoder.first[0].weight,
        encoder.first[0].bias,
        encoder.last.weight,
        encoder.last.bias,
        noise_RNZ,
        sizes,
    )
    return statistics, samples


def unroll_encoder(
    encoder: GalaEncoder | FullyConnectedEncoder, from_obs: Tensor, noise_RNZ: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor]:
    """The same for any encoder, step by step through autograd: slower, and the reference for the above."""
    statistics, samples = [], []
    v = torch.zeros_like(noise_RNZ[: sizes[0]])
    for from_obs_t, noise_t in zip(from_obs.split(sizes), noise_RNZ.split(sizes), strict=True):
        statistics.append(encoder.finish(from_obs_t + encoder.project(0, v[: len(noise_t)])))
        v = Gaussian.from_statistics(statistics[-1]).sample(noise_t)
        samples.append(v)
    return torch.cat(statistics), torch.cat(samples)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        from_obs_RNH: Tensor,
        weight_HZ: Tensor,
        bias_H: Tensor,
        last_YH: Tensor,
        last_bias_Y: Tensor,
        noise_RNZ: Tensor,
        sizes: list[int],
    ) -> tuple[Tensor, Tensor]:
        hidden_RNH = from_obs_RNH + bias_H
        mixed_RNZ, samples_RNZ = torch.empty_like(noise_RNZ), torch.empty_like(noise_RNZ)
        statistics_RNY = noise_RNZ.new_empty(*noise_RNZ.shape[:2], len(last_YH))
        weight_ZH, last_HY, latent = weight_HZ.t().contiguous(), last_YH.t().contiguous(), weight_HZ.shape[1]
        v, start = torch.zeros_like(noise_RNZ[: sizes[0]]), 0
        for count in sizes:
            block = slice(start, start + count)
            mixed = mixed_RNZ[block].copy_(smooth(v[:count]))
            hidden = hidden_RNH[block].view(-1, len(weight_HZ))
            hidden.addmm_(mixed.view(-1, latent), weight_ZH).relu_()
            statistics = torch.addmm(last_bias_Y, hidden, last_HY).view(count, -1, 2 * latent)
            statistics = statistics_RNY[block].copy_(smooth(statistics))
            deviation = torch.exp(0.5 * statistics[..., latent:].clamp(*LOG_VAR_RANGE))
            v = torch.addcmul(statistics[..., :latent], deviation, noise_RNZ[block], out=samples_RNZ[block])
            start += count
        ctx.save_for_backward(weight_HZ, last_YH, hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ)
        ctx.sizes = sizes
        return statistics_RNY, samples_RNZ

    @staticmethod
    def backward(ctx: Any, to_statistics_RNY: Tensor, to_samples_RNZ: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight_HZ, last_YH, hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ = ctx.saved_tensors
        latent, width = weight_HZ.shape[1], len(weight_HZ)
        from_sample_RNY = _sample_gradient(statistics_RNY, noise_RNZ)
        active_RNH = (hidden_RNH > 0).to(hidden_RNH.dtype)
        to_last_RNY, to_hidden_RNH = torch.empty_like(statistics_RNY), torch.empty_like(hidden_RNH)
        carried, start = to_samples_RNZ[:0], len(to_samples_RNZ)
        for count in reversed(ctx.sizes):
            block = slice(start - count, start)
            to_v = to_samples_RNZ[block].clone()
            to_v[: len(carried)] += carried
            total = torch.addcmul(to_statistics_RNY[block], to_v.repeat(1, 1, 2), from_sample_RNY[block])
            to_last = to_last_RNY[block].copy_(smooth(total)).view(-1, 2 * latent)
            to_hidden = torch.mm(to_last, last_YH, out=to_hidden_RNH[block].view(-1, width))
            to_hidden *= active_RNH[block].view(-1, width)
            carried = smooth((to_hidden @ weight_HZ).view(count, -1, latent))
            start -= count
        to_last, to_hidden = to_last_RNY.view(-1, 2 * latent), to_hidden_RNH.view(-1, width)
        return (
            to_hidden_RNH,
            to_hidden.t() @ mixed_RNZ.view(-1, latent),
            to_hidden.sum(dim=0),
            to_last.t() @ hidden_RNH.view(-1, width),
            to_last.sum(dim=0),
            None,
            None,
        )


def _sample_gradient(statistics_RNY: Tensor, noise_RNZ: Tensor) -> Tensor:
    """dv / d(mean, log_var) side by side, [R, N, 2Z]; 0 where the log-variance is clamped."""
    log_var = statistics_RNY[..., noise_RNZ.shape[-1] :]
    low, high = LOG_VAR_RANGE
    inside = (log_var >= low) & (log_var <= high)
    to_log_var = 0.5 * torch.exp(0.5 * log_var.clamp(low, high)) * noise_RNZ * inside
    return torch.cat((torch.ones_like(noise_RNZ), to_log_var), dim=-1)
