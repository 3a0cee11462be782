"""Means of losses and rates of the loop between two records."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from learner.replay_reader import ReaderStats


class Progress:
    """Adds scalars up on the device; reading them is what synchronises."""

    def __init__(self, stats: ReaderStats) -> None:
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0)
        self._begin(stats)

    @property
    def steps(self) -> int:
        """Steps since the last record."""
        return self._steps

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Adds one step's scalars; every step must bring the same names."""
        values = torch.stack(tuple(scalars.values())).detach()
        if self._steps == 0:
            self._names, self._sums = tuple(scalars), values
        elif tuple(scalars) != self._names:
            raise ValueError(f"an algorithm logged {tuple(scalars)} after {self._names}")
        else:
            self._sums += values
        self._steps += 1

    def sums(self) -> dict[str, float]:
        """What has been added up since the last record, by name; waits for the device."""
        return dict(zip(self._names, self._sums.tolist(), strict=True)) if self._steps else {}

    def take(self, stats: ReaderStats) -> dict[str, float]:
        """The means and rates of the steps since the last call, which begins anew."""
        elapsed_s = time.monotonic() - self._began
        means = (self._sums / self._steps).tolist()
        figures = dict(zip(self._names, means, strict=True))
        figures["learner/steps_per_s"] = self._steps / elapsed_s
        figures["learner/data_wait_share"] = (stats.wait_s - self._stats.wait_s) / elapsed_s
        limiter_wait_s = stats.limiter_wait_s - self._stats.limiter_wait_s
        figures["learner/limiter_wait_share"] = limiter_wait_s / elapsed_s
        received = stats.received_bytes - self._stats.received_bytes
        figures["learner/received_mb_per_s"] = received / elapsed_s / 1e6
        self._begin(stats)
        return figures

    def _begin(self, stats: ReaderStats) -> None:
        self._began = time.monotonic()
        self._stats = stats
        self._steps = 0
