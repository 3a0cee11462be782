"""The optimiser, with its state as named tensors so that it can be saved without pickle."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from common.labels import label
from learner.settings import OptimiserSettings


class Optimiser:
    """Clips each group's gradient by its own norm, then steps all of them.

    Groups are clipped apart, so that a large gradient of the world model can't shrink the step of the
    agents and the mixer (ours).
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]], settings: OptimiserSettings) -> None:
        self._groups = {name: list(parameters) for name, parameters in groups.items()}
        self._max_norm = settings.max_grad_norm
        self._optimiser = _build([p for group in self._groups.values() for p in group], settings)

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Descends the loss; returns each group's gradient norm before clipping."""
        self._optimiser.zero_grad(set_to_none=True)
        with label("backward"):
            loss.backward()
        with label("optimiser"):
            norms = {
                name: nn.utils.clip_grad_norm_(parameters, self._max_norm)
                for name, parameters in self._groups.items()
            }
            self._optimiser.step()
        return norms

    def state_dict(self) -> dict[str, Tensor]:
        """ "<parameter index>/<name>" -> tensor."""
        state = self._optimiser.state_dict()["state"]
        return {f"{index}/{name}": value for index, entry in state.items() for name, value in entry.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up a saved state of the same optimiser over the same parameters."""
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, name = key.split("/", 1)
            entries.setdefault(int(index), {})[name] = value
        current = self._optimiser.state_dict()
        self._optimiser.load_state_dict({"state": entries, "param_groups": current["param_groups"]})


def _build(parameters: list[nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    if settings.name == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)
    return torch.optim.RMSprop(
        parameters, lr=settings.learning_rate, alpha=settings.rmsprop_alpha, eps=settings.rmsprop_eps
    )
