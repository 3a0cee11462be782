"""The action-free posterior's recurrence, with its own backward.

    v_t ~ N(mean_t, exp(log_var_t)),   (mean_t, log_var_t) = S relu(x_t + S v_{t-1} W^T) U^T + b

x_t is what the obs add to GALA's first layer. The loop is short of arithmetic and long on calls: on the CPU
it is compiled (learner/kernels/latent.py), on a GPU it is walked back by hand, and the weights' gradients are
one matrix product over all rows.

Shapes: R rows in PackedSequence's layout, N nodes, H hidden, Z latent, Y = 2 Z statistics.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.gala import GalaEncoder
from learner.gaussians import LOG_VAR_RANGE, Gaussian
from learner.graph import smoothing_weights
from learner.kernels import latent
from learner.kernels.blas import product_routine
from learner.kernels.layout import flat, flat_output, summed
from learner.shares import Share, in_parallel, shares_of
from learner.vae import FullyConnectedEncoder


def unroll_latent(
    encoder: GalaEncoder, from_obs_RNH: Tensor, noise_RNZ: Tensor, sizes: list[int]
) -> tuple[Tensor, Tensor]:
    """(statistics [R, N, 2Z], samples [R, N, Z]) after every row, from v = 0 at each episode's start.

    `encoder`'s part 0 is the latent; `from_obs_RNH` is its projection of part 1. Sequences are sorted longest
    first, `sizes` are the rows at each time.
    """
    recurrence = _Recurrence if noise_RNZ.is_cuda else _CompiledRecurrence
    statistics, samples = recurrence.apply(  # type: ignore[no-untyped-call]
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


class _CompiledRecurrence(torch.autograd.Function):
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
        own, shared = smoothing_weights(noise_RNZ.shape[1])
        hidden_RNH = from_obs_RNH + bias_H
        mixed_RNZ, samples_RNZ = torch.empty_like(noise_RNZ), torch.empty_like(noise_RNZ)
        statistics_RNY = noise_RNZ.new_empty(*noise_RNZ.shape[:2], len(last_YH))
        rows = (hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ, samples_RNZ)
        weights = tuple(flat(own * x) for x in (weight_HZ.t(), last_YH.t(), last_bias_Y))
        sizes_T, kept = np.array(sizes), tuple(map(flat_output, rows))
        blas = product_routine(kept[0].dtype)
        nodes, mixing = noise_RNZ.shape[1], shared / own

        def work(share: Share) -> None:
            latent.unroll(blas, share, sizes_T, nodes, mixing, LOG_VAR_RANGE, weights, kept)

        in_parallel(work, shares_of(sizes_T))
        ctx.save_for_backward(weight_HZ, last_YH, *rows)
        ctx.sizes_T = sizes_T
        return statistics_RNY, samples_RNZ

    @staticmethod
    def backward(ctx: Any, to_statistics_RNY: Tensor, to_samples_RNZ: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight_HZ, last_YH, *rows = ctx.saved_tensors
        nodes = rows[0].shape[1]
        own, shared = smoothing_weights(nodes)
        back, mixing = (flat(own * weight_HZ), flat(own * last_YH)), shared / own
        kept = tuple(map(flat, rows))
        to_outputs = flat(to_statistics_RNY), flat(to_samples_RNZ)
        to_hidden_RNH = torch.empty_like(rows[0])
        to_hidden, blas, shares = (
            flat_output(to_hidden_RNH),
            product_routine(kept[0].dtype),
            shares_of(ctx.sizes_T),
        )
        sizes = (weight_HZ.numel(), len(weight_HZ), last_YH.numel(), len(last_YH))
        gradients = {share: tuple(np.zeros(size, to_hidden.dtype) for size in sizes) for share in shares}

        def work(share: Share) -> None:
            latent.walk_back(
                *(blas, share, ctx.sizes_T, nodes, mixing, LOG_VAR_RANGE),
                *(back, kept, to_outputs, to_hidden, gradients[share]),
            )

        in_parallel(work, shares)
        to_weight, to_bias, to_last, to_last_bias = summed(gradients.values())
        return (
            to_hidden_RNH,
            own * to_weight.view(weight_HZ.t().shape).t(),
            to_bias,
            own * to_last.view(last_YH.t().shape).t(),
            own * to_last_bias,
            None,
            None,
        )


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
        latent, width = weight_HZ.shape[1], len(weight_HZ)
        own, shared = smoothing_weights(noise_RNZ.shape[1])
        hidden_RNH = from_obs_RNH + bias_H
        mixed_RNZ, samples_RNZ = torch.empty_like(noise_RNZ), torch.empty_like(noise_RNZ)
        statistics_RNY = noise_RNZ.new_empty(*noise_RNZ.shape[:2], 2 * latent)
        first_ZH, last_HY, last_bias_Y = (own * weight_HZ).t(), (own * last_YH).t(), own * last_bias_Y
        tensors = (hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ, samples_RNZ)
        v = torch.zeros_like(noise_RNZ[: sizes[0]])
        for hidden_t, mixed_t, statistics_t, noise_t, samples_t in zip(
            *(x.split(sizes) for x in tensors), strict=True
        ):
            v = v[: len(noise_t)]
            _mix_nodes(v, shared / own, out=mixed_t)
            hidden = hidden_t.view(-1, width).addmm_(mixed_t.view(-1, latent), first_ZH).relu_()
            statistics = torch.addmm(last_bias_Y, hidden, last_HY).view(statistics_t.shape)
            _mix_nodes(statistics, shared / own, out=statistics_t)
            deviation = statistics_t[..., latent:].clamp(*LOG_VAR_RANGE).mul_(0.5).exp_()
            v = torch.addcmul(statistics_t[..., :latent], deviation, noise_t, out=samples_t)
        ctx.save_for_backward(weight_HZ, last_YH, hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ)
        ctx.sizes = sizes
        return statistics_RNY, samples_RNZ

    @staticmethod
    def backward(ctx: Any, to_statistics_RNY: Tensor, to_samples_RNZ: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        weight_HZ, last_YH, hidden_RNH, mixed_RNZ, statistics_RNY, noise_RNZ = ctx.saved_tensors
        latent, width = weight_HZ.shape[1], len(weight_HZ)
        from_sample_RNY = _sample_gradient(statistics_RNY, noise_RNZ)
        own, shared = smoothing_weights(noise_RNZ.shape[1])
        to_last_RNY, to_hidden_RNH = torch.empty_like(statistics_RNY), torch.empty_like(hidden_RNH)
        last_YH_own, first_HZ_own = own * last_YH, own * weight_HZ
        to_v_RNZ = to_samples_RNZ.clone()
        carried = to_samples_RNZ[:0]
        tensors = (to_v_RNZ, to_statistics_RNY, from_sample_RNY, to_last_RNY, to_hidden_RNH, hidden_RNH)
        for to_v, to_statistics, from_sample, to_last_t, to_hidden_t, hidden_t in reversed(
            list(zip(*(x.split(ctx.sizes) for x in tensors), strict=True))
        ):
            to_v[: len(carried)].add_(carried)
            total = torch.addcmul(to_statistics, torch.cat((to_v, to_v), dim=-1), from_sample)
            to_last = _mix_nodes(total, shared / own, out=to_last_t).view(-1, 2 * latent)
            to_hidden = torch.mm(to_last, last_YH_own).view(hidden_t.shape)
            torch.ops.aten.threshold_backward.grad_input(to_hidden, hidden_t, 0, grad_input=to_hidden_t)
            to_mixed = (to_hidden_t.view(-1, width) @ first_HZ_own).view(to_v.shape)
            carried = _mix_nodes(to_mixed, shared / own, out=to_mixed)
        to_last, to_hidden = to_last_RNY.view(-1, 2 * latent).mul_(own), to_hidden_RNH.view(-1, width)
        return (
            to_hidden_RNH,
            to_hidden.t() @ mixed_RNZ.view(-1, latent).mul(own),
            to_hidden.sum(dim=0),
            to_last.t() @ hidden_RNH.view(-1, width),
            to_last.sum(dim=0),
            None,
            None,
        )


def _mix_nodes(x_BNF: Tensor, shared: float, *, out: Tensor) -> Tensor:
    """x + shared * (sum over nodes): S X but for a factor, which is put into the weights."""
    return torch.add(x_BNF, x_BNF.sum(dim=1, keepdim=True), alpha=shared, out=out)


def _sample_gradient(statistics_RNY: Tensor, noise_RNZ: Tensor) -> Tensor:
    """dv / d(mean, log_var) side by side, [R, N, 2Z]; 0 where the log-variance is clamped."""
    log_var = statistics_RNY[..., noise_RNZ.shape[-1] :]
    low, high = LOG_VAR_RANGE
    inside = (log_var >= low) & (log_var <= high)
    to_log_var = 0.5 * torch.exp(0.5 * log_var.clamp(low, high)) * noise_RNZ * inside
    return torch.cat((torch.ones_like(noise_RNZ), to_log_var), dim=-1)
