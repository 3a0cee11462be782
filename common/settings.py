"""Settings that more than one part needs, and the base class of all settings."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ActionChoice: TypeAlias = Literal["greedy", "softmax"]


class Settings(BaseModel):
    """Frozen, checked when constructed; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class RpcSettings(Settings):
    """How processes talk to the replay service."""

    address: str = "127.0.0.1:50051"
    """host:port of the replay service; port 0 lets the service choose one."""
    max_message_bytes: PositiveInt = 64 * 1024 * 1024
    """Larger messages are refused. A 27m_vs_30m episode has 6.6 MB before compression."""
    unary_timeout_s: PositiveFloat = 10.0
    """Deadline of a call that does not wait for anything."""
    stream_timeout_s: PositiveFloat = 600.0
    """Deadline of a stream; the client opens a new one when it runs out."""
    connect_timeout_s: PositiveFloat = 60.0
    """How long a part waits for the service to come up before it gives up with an error."""
    tls_ca_file: str = ""
    """PEM certificate of the authority whose certificates are believed. With the next two, connections are
    encrypted and both sides show a certificate; without, they are in the clear."""
    tls_certificate_file: str = ""
    """PEM certificate of this process; the replay service's must name the host of `address`."""
    tls_key_file: str = ""
    """PEM key of that certificate."""
    token_file: str = ""
    """File with the token that says what this process may do (see replay.tokens_file)."""

    @property
    def encrypted(self) -> bool:
        """Whether connections are."""
        return bool(self.tls_ca_file)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        files = (self.tls_ca_file, self.tls_certificate_file, self.tls_key_file)
        if any(files) != all(files):
            raise ValueError(
                "rpc.tls_ca_file, rpc.tls_certificate_file and rpc.tls_key_file belong together: "
                "set all of them or none"
            )
        if self.token_file and not self.encrypted:
            raise ValueError("rpc.token_file needs rpc.tls_*: a token is never sent in the clear")
        return self


class MetricsSettings(Settings):
    """Where a process answers Prometheus."""

    serve: bool = False
    """Whether it does. The local cluster gives its processes the port and the ones after it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all, which only a network of trust should reach."""
    port: Annotated[int, Field(ge=0, lt=2**16)] = 9100
    """0 lets the system choose one."""


NO_METRICS = MetricsSettings()


class AgentSettings(Settings):
    """The agent network, which actors and learner share."""

    hidden_size: PositiveInt = 64
    """Width of the GRU."""
    action_choice: ActionChoice = "greedy"
    """What an actor does when it does not explore: take the best action, or draw one from the softmax of
    the network's outputs (COMA). Tests always take the best."""
