"""GALA, the symmetric graph auto-encoder (Park et al. 2019; paper section 4, "Using Generative Models").

    encoder, Laplacian smoothing:   X' = relu(S X W + b)
    decoder, Laplacian sharpening:  X' = relu(P X W + b)

S and P (learner/graph.py) commute with W. S is applied on the narrower side of it: its rows sum to 1, so a
bias is the same before and after. P's rows do not, and it is always applied first.

Shapes: any leading ones, N nodes, F features, Z code, H hidden.
"""

import torch
from torch import Tensor, nn

from learner.graph import (
    mixed_linear,
    sharpening_smoothing_weights,
    sharpening_weights,
    smooth,
    smoothing_weights,
)
from learner.reconstruction import decoder_error


class GalaEncoder(nn.Module):
    """Two smoothing layers over node features that may come in several parts.

    The first layer's product with a concatenation is the sum of products with its parts, so a part that
    is known for all times (an obs) can be projected at once while another (a latent) recurs.
    """

    def __init__(self, part_sizes: tuple[int, ...], hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(
            nn.Linear(size, hidden_size, bias=i == 0) for i, size in enumerate(part_sizes)
        )
        self.last = nn.Linear(hidden_size, out_size)

    def project(self, part: int, x_NF: Tensor) -> Tensor:
        """What one part adds to the first layer."""
        first = self.first[part]
        assert isinstance(first, nn.Linear)
        if first.in_features > first.out_features:
            return smooth(first(x_NF))
        bias = first.weight.new_zeros(first.out_features) if first.bias is None else first.bias
        operator = smoothing_weights(x_NF.shape[-2])
        return mixed_linear(x_NF, first.weight, bias, operator).view(*x_NF.shape[:-1], -1)

    def finish(self, projected_NH: Tensor) -> Tensor:
        """The code [.., N, Z] from the sum of the projected parts."""
        return smooth(self.last(torch.relu(projected_NH)))

    def forward(self, *parts_NF: Tensor) -> Tensor:
        """The code [.., N, Z]."""
        projected = self.project(0, parts_NF[0])
        for i, part in enumerate(parts_NF[1:], start=1):
            projected = projected + self.project(i, part)
        return self.finish(projected)

    def project_decoded(self, decoder: "GalaDecoder", code_NZ: Tensor, part: slice) -> Tensor:
        """What these features of what `decoder` makes of another code add to the first layer.

        The decoder's last and this encoder's first layer are linear, so their product stands for both, and
        the features in between, which may be many, are never computed.
        """
        weight, bias = decoder.last_layer(part)
        both = compose(self.first[0], weight, bias)
        operator = sharpening_smoothing_weights(code_NZ.shape[-2])
        projected = mixed_linear(decoder.hidden(code_NZ), *both, operator)
        return projected.view(*code_NZ.shape[:-1], -1)


class GalaDecoder(nn.Module):
    """Two sharpening layers, the last one linear."""

    def __init__(self, code_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(code_size, hidden_size)
        self.last = nn.Linear(hidden_size, out_size)

    def hidden(self, code_NZ: Tensor) -> Tensor:
        """The first layer [.., N, H]."""
        operator = sharpening_weights(code_NZ.shape[-2])
        hidden = torch.relu_(mixed_linear(code_NZ, self.first.weight, self.first.bias, operator))
        return hidden.view(*code_NZ.shape[:-1], -1)

    def last_layer(self, part: slice) -> tuple[Tensor, Tensor]:
        """Weight and bias of these features; P comes before them."""
        return self.last.weight[part], self.last.bias[part]

    def error(self, code_NZ: Tensor, target_NF: Tensor, latent_target_NK: Tensor | None = None) -> Tensor:
        """The mean squared error of the features against data, the first K of them against a latent."""
        parameters = (self.first.weight, self.first.bias, self.last.weight, self.last.bias)
        return decoder_error(code_NZ, parameters, target_NF, latent_target_NK)

    def forward(self, code_NZ: Tensor) -> Tensor:
        """All features [.., N, F]."""
        operator = sharpening_weights(code_NZ.shape[-2])
        features = mixed_linear(self.hidden(code_NZ), self.last.weight, self.last.bias, operator)
        return features.view(*code_NZ.shape[:-1], -1)


def compose(first: nn.Module, weight_FH: Tensor, bias_F: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that does first(weight x + bias)."""
    assert isinstance(first, nn.Linear)
    return first.weight @ weight_FH, first.bias + first.weight @ bias_F
