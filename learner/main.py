"""The learner process."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from common import rpc as rpc_factory
from common.errors import FatalError
from common.exploration import ExplorationSettings
from common.lifecycle import StopSignal
from common.metrics import Figure, serving_metrics
from common.settings import NO_METRICS, AgentSettings, MetricsSettings, RpcSettings
from learner.algorithms.registry import build_algorithm
from learner.learner import Learner, RunContext
from learner.metrics import learner_figures
from learner.priority_updater import PriorityUpdater
from learner.recorder import Recorder
from learner.replay_reader import ReplayReader
from learner.run_monitor import RunMonitor
from learner.settings import LearnerSettings
from learner.startup import choose_device, prepare_torch, resume, wait_for_spec
from learner.weights_publisher import WeightsPublisher

log = logging.getLogger(__name__)


def run_learner(
    *,
    settings: LearnerSettings,
    agent: AgentSettings,
    exploration: ExplorationSettings,
    rpc: RpcSettings,
    seed: int,
    run_dir: Path,
    stop: StopSignal,
    metrics: MetricsSettings = NO_METRICS,
) -> None:
    """Trains until the run is complete or `stop` is set; goes on from the newest checkpoint in `run_dir`.

    Raises FatalError, in one sentence, for whatever a person has to know.
    """
    device = choose_device(settings.device)
    prepare_torch(settings, seed)
    try:
        _train(
            settings, agent, exploration, rpc, metrics, seed=seed, device=device, run_dir=run_dir, stop=stop
        )
    except OSError as error:
        raise FatalError(f"the learner cannot write to {run_dir} or read from it: {error}") from error
    except torch.OutOfMemoryError as error:
        raise FatalError(
            f"{device} has too little memory for a training step: lower learner.batch_size, "
            "or set learner.device=cpu"
        ) from error


def _train(
    settings: LearnerSettings,
    agent: AgentSettings,
    exploration: ExplorationSettings,
    rpc: RpcSettings,
    metrics: MetricsSettings,
    *,
    seed: int,
    device: torch.device,
    run_dir: Path,
    stop: StopSignal,
) -> None:
    with ExitStack() as stack:
        channel = stack.enter_context(rpc_factory.channel(rpc))
        spec = wait_for_spec(channel, rpc, stop)
        if spec is None:
            return
        algorithm = build_algorithm(spec, agent, settings, exploration=exploration, device=device, seed=seed)
        step = resume(run_dir, algorithm, spec, agent, settings)
        log.info("training %s on %s %s with %s", settings.algorithm, spec.env, spec.map, device)
        title = f"{settings.algorithm} on {spec.env} {spec.map}"
        recorder = stack.enter_context(closing(Recorder(run_dir, title=title)))
        monitor = stack.enter_context(closing(RunMonitor(channel, rpc, recorder)))
        publisher = stack.enter_context(closing(WeightsPublisher(channel, rpc)))
        priorities = stack.enter_context(closing(PriorityUpdater(channel, rpc, table=settings.table)))
        reader = ReplayReader(
            channel,
            rpc,
            spec,
            batch_size=settings.batch_size,
            prefetch_batches=settings.prefetch_batches,
            consumed_batches=step,
            table=settings.table,
            pin_memory=device.type == "cuda",
        )
        stack.enter_context(closing(reader))
        context = RunContext(
            run_dir=run_dir, session=secrets.token_hex(8), spec=spec, agent=agent, settings=settings
        )
        learner = Learner(
            context,
            algorithm,
            step=step,
            device=device,
            reader=reader,
            publisher=publisher,
            priorities=priorities,
            monitor=monitor,
            recorder=recorder,
        )

        def collect() -> Iterator[Figure]:
            return learner_figures(learner.stats(), reader.stats(), publisher.stats(), recorder.stats())

        with serving_metrics(metrics, collect):
            learner.run(stop)
