"""The state of a run, put together from the replay service, the learner's metrics and the supervisor."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc.aio

from common.codec import counters_from_proto, evaluation_from_proto
from common.types import Counters, Evaluation
from deploy.metrics_tail import MetricsTail
from deploy.process_usage import ProcessUsage
from deploy.rate import Rate
from deploy.run_dir import Elapsed, RunDir
from deploy.settings import Config
from deploy.snapshot import ProcessRow, Snapshot
from deploy.supervisor import Process
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

if TYPE_CHECKING:
    from protos.replay_pb2_grpc import ReplayAsyncStub

_DEADLINE_S = 3.0


class RunStatus:
    """Asks now and then; keeps the last answers while the service is being restarted."""

    def __init__(self, channel: grpc.aio.Channel, config: Config, run_dir: RunDir, before: Elapsed) -> None:
        self._stub: ReplayAsyncStub = ReplayStub(channel)
        self._config = config
        self._run_dir = run_dir
        self._before = before
        self._began = time.monotonic()
        self._metrics = MetricsTail(run_dir.metrics)
        self._usage = ProcessUsage()
        self._steps, self._episodes, self._learner = Rate(), Rate(), Rate()
        self.status = pb.GetStatusResponse()
        self.evaluations: tuple[Evaluation, ...] = ()

    @property
    def counters(self) -> Counters:
        """The run's counters, as of the last answer."""
        return counters_from_proto(self.status.counters)

    @property
    def learner_steps(self) -> int:
        """How far training has come, as of the newest sign of it."""
        return max(self._metrics.learner_step, self.status.counters.weights_version)

    async def refresh(self) -> bool:
        """Asks for everything anew; false if the service did not answer."""
        try:
            # The status first: an evaluation that it no longer calls pending is then in the list.
            status = await self._stub.GetStatus(pb.GetStatusRequest(), timeout=_DEADLINE_S)
            listed = await self._stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=_DEADLINE_S)
        except grpc.aio.AioRpcError:
            return False
        self.status = status
        self.evaluations = tuple(evaluation_from_proto(message) for message in listed.evaluations)
        self._metrics.refresh()
        now = time.monotonic()
        self._steps.note(now, status.counters.env_steps)
        self._episodes.note(now, status.counters.episodes)
        self._learner.note(now, self.learner_steps)
        return True

    async def actors_done(self) -> bool:
        """Whether all environment steps have been played."""
        return await self.refresh() and self.status.counters.run_complete

    async def learner_done(self) -> bool:
        """Whether, besides, no batch is left to train on."""
        if not await self.actors_done():
            return False
        trained = self._config.learner.table
        return not any(table.batch_due for table in self.status.tables if table.table == trained)

    async def evaluator_done(self) -> bool:
        """Whether, besides, every evaluation has been reported."""
        return await self.actors_done() and self.status.evaluations_pending == 0

    def elapsed(self, processes: Sequence[Process]) -> Elapsed:
        """What the run has taken, with the time before --resume."""
        return Elapsed(
            wall_s=self._before.wall_s + time.monotonic() - self._began,
            restarts=self._before.restarts + sum(process.restarts for process in processes),
        )

    def snapshot(self, phase: str, processes: Sequence[Process], events: Sequence[str]) -> Snapshot:
        """All that is known now."""
        config, elapsed = self._config, self.elapsed(processes)
        game = f"{config.env.name} {config.env.map}"
        return Snapshot(
            title=f"{config.run.preset} on {game}, seed {config.run.seed}",
            run_dir=str(self._run_dir.root),
            phase=phase,
            wall_s=elapsed.wall_s,
            restarts=elapsed.restarts,
            total_env_steps=config.run.env_steps,
            counters=self.counters,
            learner_steps=self.learner_steps,
            env_steps_per_s=self._steps.per_s,
            episodes_per_s=self._episodes.per_s,
            learner_steps_per_s=self._learner.per_s,
            target_samples_per_insert=self._target_samples_per_insert(),
            weights_lag=self.status.weights_lag,
            train_return=self.status.train_return,
            train_win_rate=self.status.train_win_rate,
            losses=self._metrics.losses,
            evaluations=self.evaluations,
            evaluations_pending=self.status.evaluations_pending,
            processes=tuple(self._row(process) for process in processes),
            events=tuple(events),
        )

    def _target_samples_per_insert(self) -> float:
        table = self._config.replay.all_tables[self._config.learner.table]
        return 1.0 if table.limiter == "queue" else table.samples_per_insert

    def _row(self, process: Process) -> ProcessRow:
        cpu_percent, memory_bytes = self._usage.of(process.pid)
        return ProcessRow(
            name=process.spec.name,
            state=process.state.value,
            pid=process.pid,
            uptime_s=time.monotonic() - process.started_at,
            restarts=process.restarts,
            cpu_percent=cpu_percent,
            memory_bytes=memory_bytes,
        )
