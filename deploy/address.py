"""The address of the local replay service: chosen or checked before anything is started."""

import random
import socket
from pathlib import Path

from common.errors import FatalError

_FIRST_PORT = 20_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 100


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port"; ValueError if it is something else."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise ValueError(f"rpc.address must be host:port, for example 127.0.0.1:50051, not {address!r}")
    return host, int(port)


def claim_address(address: str) -> str:
    """The address with a free port in place of port 0; FatalError if it cannot be listened on.

    The port stays the same for the whole run, so that a service that is restarted is found again.
    """
    host, port = split_address(address)
    if port:
        _bind(host, port)
        return address
    last = _first_ephemeral_port() - 1
    for _ in range(_TRIES):
        port = random.randint(_FIRST_PORT, last)
        try:
            _bind(host, port)
        except FatalError:
            continue
        return f"{host}:{port}"
    raise FatalError(
        f"No free port was found on {host} between {_FIRST_PORT} and {last}; give one by --address."
    )


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of a service that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise FatalError(
                f"The replay service cannot listen on {host}:{port} ({error.strerror}): "
                f"end what uses it or choose another by --address HOST:PORT."
            ) from error


def _first_ephemeral_port() -> int:
    """Ports from here on are given to outgoing connections.

    A service must not live there: while it is restarted, a client that tries to connect to its port can
    be given that very port as its own, and would then be connected to itself.
    """
    if not _EPHEMERAL_RANGE.exists():
        return 32_768
    first = int(_EPHEMERAL_RANGE.read_text().split()[0])
    return first if first > _FIRST_PORT + _TRIES else 2**16
