"""The one factory of channels and servers, with the reason for every option."""

from collections.abc import Sequence
from concurrent import futures
from typing import Any

import grpc
import grpc.aio

from common.settings import RpcSettings
from common.tls import channel_credentials, server_credentials
from protos import replay_pb2 as pb

RETRYABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
"""What may succeed when tried again. RESOURCE_EXHAUSTED is not here: a message over the limit stays so."""


def _options(settings: RpcSettings) -> list[tuple[str, int]]:
    return [
        # gRPC's default of 4 MiB rejects one episode of a large map.
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # A proxy is for the way out; with its variable set even 127.0.0.1 would be asked of it.
        ("grpc.enable_http_proxy", 0),
        # A peer whose machine vanished is noticed in 20 s + 10 s, not after TCP's minutes.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A service that restarts is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def channel(settings: RpcSettings) -> grpc.Channel:
    """A channel for synchronous clients. It connects lazily and reconnects by itself."""
    credentials, options = channel_credentials(settings), _options(settings)
    if credentials is None:
        return grpc.insecure_channel(settings.address, options=options)
    return grpc.secure_channel(settings.address, credentials, options=options)


def aio_channel(settings: RpcSettings) -> grpc.aio.Channel:
    """The same for asyncio clients."""
    credentials, options = channel_credentials(settings), _options(settings)
    if credentials is None:
        return grpc.aio.insecure_channel(settings.address, options=options)
    return grpc.aio.secure_channel(settings.address, credentials, options=options)


def aio_server(
    settings: RpcSettings, interceptors: "Sequence[grpc.aio.ServerInterceptor[Any, Any]]" = ()
) -> grpc.aio.Server:
    """A server, not bound yet. asyncio, because a synchronous one pins a thread per open stream."""
    options = [
        *_options(settings),
        # Without this two services on one port would share it in silence.
        ("grpc.so_reuseport", 0),
        # Clients ping every 20 s; the server's default would close them for it.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    workers = futures.ThreadPoolExecutor(max_workers=2, thread_name_prefix="grpc")
    return grpc.aio.server(workers, options=options, interceptors=interceptors)


def bind(server: grpc.aio.Server, settings: RpcSettings) -> int:
    """Has the server listen on the address, encrypted if the settings say so; returns the port.

    Raises RuntimeError if it cannot.
    """
    credentials = server_credentials(settings)
    if credentials is None:
        return server.add_insecure_port(settings.address)
    return server.add_secure_port(settings.address, credentials)


def method(name: str) -> str:
    """The path of a method of the replay service, for callers that deal in bytes in place of messages."""
    return f"/{pb.DESCRIPTOR.services_by_name['Replay'].full_name}/{name}"


def is_retryable(error: BaseException) -> bool:
    """Whether a call that failed like this may succeed when it is tried again."""
    return isinstance(error, grpc.RpcError) and getattr(error, "code", lambda: None)() in RETRYABLE


def describe(error: grpc.RpcError) -> str:
    """Status and sentence of a failed call, for people."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    return f"{code().name}: {details()}" if code is not None and details is not None else str(error)
