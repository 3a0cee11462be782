"""The configuration of a whole run: every part's settings under one roof."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from actor.settings import ActorSettings, EnvSettings
from common.settings import AgentSettings, MetricsSettings, PositiveFloat, PositiveInt, RpcSettings, Settings
from deploy.address import split_address
from learner.settings import LearnerSettings
from replay.settings import ReplaySettings

ENVIRONMENT_PREFIX = "VDFD_"
"""Of environment variables that hold settings."""


class RunSettings(Settings):
    """What is run, how long, and where its files go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]*$")] = ""
    """Name of the run directory; empty: <preset>-<env>-<map>-seed<seed>-<time>."""
    preset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]*$")] = ""
    """What the run is called in figures and tables. Filled in: the preset that it began with."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Of everything random: network, environments, exploration, sampling."""
    env_steps: PositiveInt = 150_000
    """The run ends when all actors together have played so many environment steps."""
    dataset: str = ""
    """Data set of `vdfd replay export` to train on, with no actors and no evaluator; empty: actors play."""
    actors: PositiveInt = 2
    """Actor processes of the local cluster."""
    out: Annotated[str, Field(min_length=1)] = "runs"
    """Directory under which run directories are made."""


class SupervisorSettings(Settings):
    """How the local cluster treats its processes."""

    restart_delay_s: PositiveFloat = 0.5
    """Pause before the first restart; it doubles with every further failure in a row."""
    restart_delay_max_s: PositiveFloat = 10.0
    """The longest pause before a restart."""
    healthy_after_s: PositiveFloat = 60.0
    """A process that lived this long ends its row of failures."""
    max_failures: PositiveInt = 5
    """Failures in a row after which the run is given up."""
    actor_stop_s: PositiveFloat = 10.0
    """How long actors and the evaluator may take to end. Lost are the episodes being played, and those
    finished but not let in within actor.drain_timeout_s; an unfinished evaluation is handed out again."""
    learner_stop_s: PositiveFloat = 20.0
    """The same for the learner, which writes a checkpoint."""
    replay_stop_s: PositiveFloat = 10.0
    """The same for the replay service, which stops its Redis."""
    status_interval_s: PositiveFloat = 1.0
    """How often the run's state is asked for."""
    log_interval_s: PositiveFloat = 10.0
    """How often a line is printed when there is no terminal."""


class Config(Settings):
    """Everything that decides a run."""

    run: RunSettings = RunSettings()
    env: EnvSettings = EnvSettings()
    actor: ActorSettings = ActorSettings()
    replay: ReplaySettings = ReplaySettings()
    learner: LearnerSettings = LearnerSettings()
    agent: AgentSettings = AgentSettings()
    rpc: RpcSettings = RpcSettings()
    metrics: MetricsSettings = MetricsSettings()
    supervisor: SupervisorSettings = SupervisorSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        split_address(self.rpc.address)
        if self.replay.tokens_file and not self.rpc.encrypted:
            raise ValueError("replay.tokens_file needs rpc.tls_*: a token is never sent in the clear")
        if self.actor.drain_timeout_s >= self.supervisor.actor_stop_s:
            raise ValueError(
                f"supervisor.actor_stop_s ({self.supervisor.actor_stop_s:g}) has to be longer than "
                f"actor.drain_timeout_s ({self.actor.drain_timeout_s:g})"
            )
        self._tables_fit()
        if self.actor.lockstep and not self.run.dataset:  # of a data set nobody plays
            self._lockstep_fits()
        return self

    def _tables_fit(self) -> None:
        tables = self.replay.all_tables
        for key, name in (("actor.table", self.actor.table), ("learner.table", self.learner.table)):
            if name not in tables:
                raise ValueError(f"{key} is {name}, but replay.tables has {', '.join(tables)}")
        for name, table in tables.items():
            if self.learner.batch_size > table.window_episodes:
                raise ValueError(
                    f"learner.batch_size ({self.learner.batch_size}) cannot be larger than "
                    f"replay.window_episodes ({table.window_episodes}, table {name})"
                )
        age, publish = tables[self.learner.table].max_age_versions, self.learner.publish_every_steps
        if age is not None and publish > age + 1:
            raise ValueError(
                f"learner.publish_every_steps is {publish}, so weights grow {publish - 1} versions old, but "
                f"the table {self.learner.table} drops what is older than max_age_versions = {age}"
            )

    def _lockstep_fits(self) -> None:
        """In lockstep an actor waits for step n after episode n: that step has to be due, and published."""
        name, batch_size = self.learner.table, self.learner.batch_size
        table = self.replay.all_tables[name]
        if table.limiter == "queue":
            raise ValueError(
                "actor.lockstep waits for a learner step per episode; limiter=queue has one per batch"
            )
        settled = {
            "run.actors=1": self.run.actors == 1,
            "actor.copies=1": self.actor.copies == 1,
            f"actor.table={name}": self.actor.table == name,
            "learner.publish_every_steps=1": self.learner.publish_every_steps == 1,
            f"replay.tables.{name}.samples_per_insert={batch_size}": table.samples_per_insert == batch_size,
            f"replay.tables.{name}.insert_lead_episodes=0": table.insert_lead_episodes == 0,
            f"replay.tables.{name}.min_episodes=0": table.min_episodes <= batch_size,
            # Episodes that are used up leave; the learner would wait for others while the actor waits for it.
            f"replay.tables.{name}.max_times_sampled=0": table.max_times_sampled == 0,
        }
        if not all(settled.values()):
            missing = ", ".join(setting for setting, is_so in settled.items() if not is_so)
            raise ValueError(f"actor.lockstep waits for a learner step per episode, so set {missing}")
