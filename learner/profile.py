"""A profile of the learner's step, on episodes that are at hand: no cluster is needed."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from common.labels import label
from common.profile import Profiled, recorded
from common.types import EncodedEpisode, EnvSpec
from learner.algorithms.base import Algorithm
from learner.batching import EpisodeBatch, decode_batch

STEP = "learner step"
WARM_UP_STEPS = 3


class Training:
    """Trains as a run does: the next batch is unpacked in a thread beside the present step."""

    def __init__(
        self,
        algorithm: Algorithm,
        episodes: Sequence[EncodedEpisode],
        spec: EnvSpec,
        pool: ThreadPoolExecutor,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.rows = 0
        """Slots of all batches so far."""
        self._algorithm, self._episodes, self._spec = algorithm, episodes, spec
        self._batch_size, self._device, self._pool = batch_size, device, pool
        self._rng = np.random.default_rng(0)
        self._next = self._decode()

    def step(self) -> None:
        """One step, on a batch drawn from the episodes."""
        with label("wait for the batch"):
            batch = self._next.result()
        self._next = self._decode()
        self.rows += len(batch.state_RS)
        self._algorithm.train_step(batch.to(self._device))

    def _decode(self) -> "Future[EpisodeBatch]":
        drawn = self._rng.choice(len(self._episodes), self._batch_size, replace=False)
        episodes = [self._episodes[number] for number in drawn]
        return self._pool.submit(decode_batch, episodes, self._spec, pin_memory=self._device.type == "cuda")


def profile_learner(
    algorithm: Algorithm,
    episodes: Sequence[EncodedEpisode],
    spec: EnvSpec,
    *,
    batch_size: int,
    device: torch.device,
    steps: int,
) -> Profiled:
    """Times `steps` steps without and then as many with the profiler, after a few that warm up.

    `episodes` are at least `batch_size`.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="decoder") as pool:
        training = Training(algorithm, episodes, spec, pool, batch_size=batch_size, device=device)
        for _ in range(WARM_UP_STEPS):
            training.step()
        _synchronise(device)
        began = time.perf_counter()
        for _ in range(steps):
            training.step()
        _synchronise(device)
        plain_ms = 1e3 * (time.perf_counter() - began) / steps
        with recorded(STEP, device) as recording:
            for _ in range(steps):
                with recording.step():
                    training.step()
    return Profiled(
        recording=recording,
        plain_ms=plain_ms,
        steps=steps,
        step=STEP,
        load=f"batches of {batch_size} episodes with {training.rows / (WARM_UP_STEPS + 2 * steps):.0f} slots",
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
