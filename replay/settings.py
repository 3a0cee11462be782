"""Settings of the replay service."""

from typing import Annotated

from pydantic import Field

from common.settings import PositiveFloat, PositiveInt, Settings


class ReplaySettings(Settings):
    """Window, rate limiter, storage and evaluation points."""

    redis_url: str = ""
    """redis://, rediss:// or unix:// address. Empty: start redis-server or valkey-server from the PATH,
    or else the embedded one. memory:// keeps everything in the service's memory (tests only)."""
    redis_password_file: str = ""
    """File with the password of the user in redis_url. Certificates are named in the address itself:
    rediss://user@host:6379?ssl_ca_certs=...&ssl_certfile=...&ssl_keyfile=..."""
    tokens_file: str = ""
    """Who may do what: a line "ROLE SHA256-OF-TOKEN" per token; roles: actor, evaluator, learner, observer,
    operator. Empty: whoever can connect may do all."""
    redis_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "vdfd"
    """All keys begin with it; runs that share a Redis need different ones."""
    redis_timeout_s: PositiveFloat = 5.0
    """How long Redis may take to answer before it counts as unreachable."""
    redis_connect_timeout_s: PositiveFloat = 15.0
    """How long the service waits for Redis when it starts, loading of the data included."""
    window_episodes: PositiveInt = 5_000
    """The newest episodes, from which batches are drawn."""
    window_bytes: PositiveInt = 8 * 1024**3
    """The same in bytes; whichever bound is reached first removes the oldest, down to one batch."""
    cache_bytes: PositiveInt = 1024**3
    """Memory in which the service keeps episodes so that samples need no storage access."""
    samples_per_insert: PositiveFloat = 32.0
    """Episodes handed out in batches per episode stored: with batches of 32, one learner step each."""
    insert_lead_episodes: Annotated[int, Field(ge=0)] = 32
    """How many episodes actors may be ahead of the learner before inserts wait. 0: lockstep."""
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
