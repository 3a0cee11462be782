"""The training loop: batches in, gradient steps, weights out.

    for batch in reader:
        algorithm.train_step(batch)
        and, each at its own interval: publish weights, record losses, measure health, save a checkpoint

Losses stay on the device until a record is due. Training waits for the device there, and whenever weights are
published or saved or health is measured; a gradient step does not.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from common.agent import pack_weights
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import AgentSettings
from common.types import EnvSpec, Weights
from learner import checkpoint
from learner.algorithms.base import Algorithm
from learner.batching import EpisodeBatch
from learner.checkpoint import Checkpoint
from learner.part_times import PartTimes
from learner.priority_updater import PriorityUpdater
from learner.progress import Progress
from learner.recorder import Recorder, not_finite
from learner.replay_reader import ReplayReader
from learner.run_monitor import RunMonitor
from learner.settings import LearnerSettings
from learner.weights_publisher import WeightsPublisher
from protos import replay_pb2 as pb

log = logging.getLogger(__name__)

FLUSH_TIMEOUT_S = 5.0
"""How long the last weights may take to arrive when training ends."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a checkpoint says about the run it belongs to."""

    run_dir: Path
    session: str
    spec: EnvSpec
    agent: AgentSettings
    settings: LearnerSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerStats:
    """The training loop of this process."""

    step: int
    """Of the run."""
    steps: int
    """Of this process."""
    part_s: Mapping[str, float]
    """Seconds by part: copy, train, publish, record, health, checkpoint."""
    newest: Mapping[str, float]
    """The newest recorded value of every figure, by name."""
    checkpoints: int
    checkpoint_step: int
    """Of the newest checkpoint of this process; 0: none yet."""
    gpu_bytes: int
    gpu_peak_bytes: int


class Learner:
    """Trains an algorithm from learner step `step` on."""

    def __init__(
        self,
        context: RunContext,
        algorithm: Algorithm,
        *,
        step: int,
        device: torch.device,
        reader: ReplayReader,
        publisher: WeightsPublisher,
        priorities: PriorityUpdater,
        monitor: RunMonitor,
        recorder: Recorder,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._algorithm = algorithm
        self._first_step = self._step = step
        self._device = device
        self._reader = reader
        self._publisher = publisher
        self._priorities = priorities
        self._monitor = monitor
        self._recorder = recorder
        self._published_version = 0
        self._times = PartTimes("copy", "train", "publish", "record", "health", "checkpoint")
        self._newest: dict[str, float] = {}
        self._checkpoints = self._checkpoint_step = 0
        self._progress = Progress(reader.stats())

    def run(self, stop: StopSignal) -> None:
        """Trains until the run is complete or `stop` is set, then saves.

        When the run is complete, it returns after the last evaluation that was due has been recorded.
        Raises FatalError when training has failed: a loss or gradient that is not finite, a service that
        refuses. Weights that come after it are neither published nor saved.
        """
        stop.call_when_set(self._reader.close)
        self._publish()
        for batch in self._reader:
            with self._times.part("copy"):
                on_device = batch.to(self._device)
            self._train(on_device)
        self._record()
        self._save()
        self._publish_last()
        if self._reader.run_complete:
            log.info("the run is complete after %d learner steps; waiting for evaluations", self._step)
            self._monitor.wait_until_evaluated(stop)

    def stats(self) -> LearnerStats:
        """The loop's figures; may be called from any thread."""
        cuda = self._device.type == "cuda"
        return LearnerStats(
            step=self._step,
            steps=self._step - self._first_step,
            part_s=self._times.stats(),
            newest=self._newest,
            checkpoints=self._checkpoints,
            checkpoint_step=self._checkpoint_step,
            gpu_bytes=torch.cuda.memory_allocated(self._device) if cuda else 0,
            gpu_peak_bytes=torch.cuda.max_memory_allocated(self._device) if cuda else 0,
        )

    def _train(self, batch: EpisodeBatch) -> None:
        with self._times.part("train"):
            self._progress.add(self._algorithm.train_step(batch))
            if batch.sampling is not None and self._algorithm.priorities_B is not None:
                self._priorities.update(self._step, batch.sampling.indices_B, self._algorithm.priorities_B)
        self._step += 1
        if self._due(self._settings.log_every_steps):
            self._record()
        if self._due(self._settings.publish_every_steps):
            self._publish()
        if self._due(self._settings.health_every_steps):
            with self._times.part("health"):
                figures = self._algorithm.health(batch)
            self._write(figures)
        if self._due(self._settings.checkpoint_every_steps):
            self._record()  # a checkpoint of weights that are not finite would be worse than none
            self._save()

    def _due(self, every_steps: int) -> bool:
        return self._step % every_steps == 0

    def _weights(self) -> Weights:
        # Version 0 means that there are no weights yet, so those before the first step are 1 too.
        version = max(1, self._step)
        return pack_weights(self._algorithm.agent, session=self._context.session, version=version)

    def _publish(self) -> None:
        self._check()
        with self._times.part("publish"):
            weights = self._weights()
            if weights.version > self._published_version:  # one version is never two different weights
                self._publisher.publish(weights)
                self._published_version = weights.version

    def _check(self) -> None:
        """Records at once, and raises, if training has failed."""
        with self._times.part("publish"):
            broken = not_finite(self._progress.sums())  # waits for the device, as publishing does anyway
        if broken:
            self._record()

    def _publish_last(self) -> None:
        self._publish()
        if not self._publisher.flush(FLUSH_TIMEOUT_S):
            log.warning("the last weights could not be published within %.0f s", FLUSH_TIMEOUT_S)

    def _record(self) -> None:
        """Records means and rates since the last time; raises FatalError if training has failed in it."""
        steps = self._progress.steps
        if steps == 0:
            return
        with self._times.part("record"):
            figures = self._progress.take(self._reader.stats())
        self._write({**figures, **_run_figures(self._monitor.status)})
        if broken := not_finite(figures):
            raise self._diverged(broken, steps)

    def _diverged(self, broken: list[str], steps: int) -> FatalError:
        """What to do about it; `steps` are those since the record before."""
        newest = checkpoint.latest(self._context.run_dir)
        rates = " or ".join(self._algorithm.learning_rates)
        return FatalError(
            f"{', '.join(broken)} was not finite between learner steps {self._step - steps + 1} and "
            f"{self._step}; the newest checkpoint is {newest or 'not written yet'}: "
            f"resume from it, with a lower {rates} if it happens again"
        )

    def _write(self, figures: Mapping[str, float]) -> None:
        if figures:
            self._newest = {**self._newest, **figures}
            env_steps = self._monitor.status.counters.env_steps
            with self._times.part("record"):
                self._recorder.record(learner_step=self._step, env_steps=env_steps, figures=figures)

    def _save(self) -> None:
        if self._step == 0:
            return
        saved = Checkpoint(
            step=self._step,
            spec=self._context.spec,
            agent=self._context.agent,
            settings=self._settings,
            weights=self._weights(),
            algorithm=self._algorithm.state_dict(),
        )
        with self._times.part("checkpoint"):
            checkpoint.save(self._context.run_dir, saved, keep=self._settings.keep_checkpoints)
        self._checkpoints += 1
        self._checkpoint_step = self._step


def _run_figures(status: pb.GetStatusResponse) -> dict[str, float]:
    if not status.HasField("spec"):  # the service has not been asked yet
        return {}
    return {
        "replay/episodes": status.counters.episodes,
        "replay/samples_per_insert": status.samples_per_insert,
        "replay/window_episodes": status.window_episodes,
        "replay/weights_lag": status.weights_lag,
        "train/return": status.train_return,
        "train/win_rate": status.train_win_rate,
    }
