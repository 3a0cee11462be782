"""Ports for game clients. A client takes its port only after it was chosen, seconds later.

Whoever asks the kernel for a free port and lets go of it can be given the same one as somebody else who
asks meanwhile. So a port is reserved first, for all processes of this machine: by a Unix socket with a name
in Linux's abstract namespace, of which only one can exist, and which leaves nothing behind however its
owner ends. Like ports, such names belong to one network namespace.
"""

import contextlib
import random
import socket
from collections.abc import Sequence

from common.errors import FatalError

_LOCAL = "127.0.0.1"
# Below 32768 the kernel takes no ports for outgoing connections, so nothing slips in between.
_PORTS = range(20_000, 32_000)


class PortReservation:
    """A free port of this machine that nobody else reserves while this one is open."""

    def __init__(self, ports: Sequence[int] = _PORTS) -> None:
        for port in random.sample(ports, len(ports)):
            name = _reserve(port)
            if name is not None:
                self.port, self._name = port, name
                return
        raise FatalError(f"No port from {ports[0]} to {ports[-1]} is free for the game: end what uses them.")

    def close(self) -> None:
        """Lets go of it. May be called twice."""
        self._name.close()


def _reserve(port: int) -> socket.socket | None:
    """The socket that stands for the port; None if it is reserved or in use."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0vdfd-sc2-port-{port}")
        with contextlib.closing(socket.socket()) as probe:
            probe.bind((_LOCAL, port))
    except OSError:
        name.close()
        return None
    return name
