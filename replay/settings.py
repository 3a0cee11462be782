"""Settings of the replay service."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.settings import Fraction, PositiveFloat, PositiveInt, Settings

DEFAULT_TABLE = "default"
"""The table that an empty name means; every service has it."""
TableName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]


class TableSettings(Settings):
    """One table: who is drawn, how often, and who waits for whom. Its oldest episodes leave first."""

    sampler: Literal["uniform", "prioritised", "fifo"] = "uniform"
    """uniform; prioritised: by priority^alpha, with importance weights; fifo: the oldest."""
    limiter: Literal["ratio", "queue"] = "ratio"
    """ratio: samples_per_insert is kept. queue: every episode once, inserts wait while the table is full."""
    window_episodes: PositiveInt | None = None
    """Size; null: replay.window_episodes."""
    window_bytes: PositiveInt | None = None
    """The same in bytes; null: replay.window_bytes."""
    samples_per_insert: PositiveFloat | None = None
    """Of the ratio limiter; null: replay.samples_per_insert."""
    insert_lead_episodes: Annotated[int, Field(ge=0)] | None = None
    """Of the ratio limiter; null: replay.insert_lead_episodes."""
    min_episodes: Annotated[int, Field(ge=0)] = 0
    """Of the ratio limiter: no batch before so many episodes can be drawn; at least a batch in any case."""
    max_times_sampled: Annotated[int, Field(ge=0)] = 0
    """After so many times an episode leaves the table. 0: no limit."""
    max_age_versions: Annotated[int, Field(ge=0)] | None = None
    """Of the queue limiter: older weights than so many learner steps make an episode useless; it is dropped
    and counted. null: any age will do."""
    alpha: Fraction = 0.6
    """Of the prioritised sampler: 0 is uniform, 1 proportional to the priority."""
    beta: Fraction = 0.4
    """Of the prioritised sampler: how much the importance weights make up for it when the run begins. Rises
    linearly to 1 at its end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.limiter == "queue" and self.sampler != "fifo":
            raise ValueError(f"a table with limiter=queue needs sampler=fifo, not {self.sampler}")
        if self.limiter == "queue" and self.max_times_sampled > 1:
            raise ValueError(
                "a table with limiter=queue hands out every episode once: leave max_times_sampled"
            )
        if self.limiter != "queue" and self.max_age_versions is not None:
            raise ValueError("max_age_versions is for tables with limiter=queue")
        return self


class CompleteTableSettings(TableSettings):
    """A table with nothing left open."""

    window_episodes: PositiveInt
    window_bytes: PositiveInt
    samples_per_insert: PositiveFloat
    insert_lead_episodes: Annotated[int, Field(ge=0)]


class ReplaySettings(Settings):
    """Window, rate limiter, storage and evaluation points."""

    redis_url: str = ""
    """redis://, rediss:// or unix:// address. Empty: start redis-server or valkey-server from the PATH,
    or else the embedded one. memory:// keeps everything in the service's memory (tests only)."""
    redis_password_file: str = ""
    """File with the password of the user in redis_url. Certificates are named in the address itself:
    rediss://user@host:6379?ssl_ca_certs=...&ssl_certfile=...&ssl_keyfile=..."""
    redis_appendfsync: Literal["no", "everysec", "always"] = "no"
    """When a Redis that the service starts itself has the disk sync its append-only file: when the kernel
    likes, every second, or before every answer. docs/operations.md says what each can lose."""
    tokens_file: str = ""
    """Who may do what: a line "ROLE SHA256-OF-TOKEN" per token; roles: actor, evaluator, learner, observer,
    operator. Empty: whoever can connect may do all."""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "vdfd"
    """All keys begin with it; runs that share a Redis need different ones."""
    redis_timeout_s: PositiveFloat = 5.0
    """How long Redis may take to answer before it counts as unreachable."""
    redis_connect_timeout_s: PositiveFloat = 15.0
    """How long the service waits for Redis when it starts; begins anew as long as Redis loads its data."""
    window_episodes: PositiveInt = 5_000
    """The newest episodes, from which batches are drawn."""
    window_bytes: PositiveInt = 8 * 1024**3
    """The same in bytes; whichever bound is reached first removes the oldest, down to one batch."""
    cache_bytes: PositiveInt = 1024**3
    """Memory in which the service keeps episodes so that samples need no storage access; tables share it
    equally."""
    samples_per_insert: PositiveFloat = 32.0
    """Episodes handed out in batches per episode stored: with batches of 32, one learner step each."""
    insert_lead_episodes: Annotated[int, Field(ge=0)] = 32
    """How many episodes actors may be ahead of the learner before inserts wait. 0: lockstep."""
    tables: dict[TableName, TableSettings] = Field(default_factory=dict)
    """Tables by name. There is always one called default, which is used when no table is named; whatever a
    table leaves open is as above."""
    evaluation_interval: PositiveInt = 10_000
    """Environment steps between evaluations."""
    evaluation_episodes: PositiveInt = 32
    """Greedy test episodes per evaluation."""
    evaluation_lease_s: PositiveInt = 120
    """After this long an evaluation that was not reported is handed out again."""
    max_episode_bytes: PositiveInt = 32 * 1024 * 1024
    """A larger payload is INVALID."""
    drain_timeout_s: PositiveFloat = 5.0
    """How long SIGTERM waits for open calls."""

    @property
    def all_tables(self) -> dict[str, CompleteTableSettings]:
        """Every table, the default one first, with nothing left open."""
        named = {DEFAULT_TABLE: self.tables.get(DEFAULT_TABLE, TableSettings()), **self.tables}
        return {name: self._filled_in(table) for name, table in named.items()}

    def _filled_in(self, table: TableSettings) -> CompleteTableSettings:
        shared = ("window_episodes", "window_bytes", "samples_per_insert", "insert_lead_episodes")
        open_ = {name: getattr(self, name) for name in shared if getattr(table, name) is None}
        return CompleteTableSettings(**table.model_dump() | open_)

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        for name, table in self.all_tables.items():
            if 0 < table.max_times_sampled < table.samples_per_insert and table.limiter == "ratio":
                raise ValueError(
                    f"replay.tables.{name}: samples_per_insert is {table.samples_per_insert:g}, but no "
                    f"episode is sampled more than max_times_sampled = {table.max_times_sampled} times"
                )
            if table.min_episodes > table.window_episodes:
                raise ValueError(
                    f"replay.tables.{name}: min_episodes ({table.min_episodes}) is more than window_episodes "
                    f"({table.window_episodes})"
                )
        return self
