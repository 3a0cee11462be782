"""What processes of a local cluster tell Prometheus, and what has become of it between two looks."""

import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import psutil
from prometheus_client.parser import text_string_to_metric_families

FIRST_PORT, LAST_PORT = 20_000, 32_000  # below the range of outgoing connections


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(FIRST_PORT, LAST_PORT, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    raise RuntimeError(f"no {count} free ports in a row")


_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Look:
    """A process's figures at a time."""

    at_s: float
    values: dict[tuple[str, ...], float]
    """(metric, *values of its labels) -> value"""

    @classmethod
    def at(cls, port: int) -> "Look":
        """Asks the process; raises OSError while it does not answer."""
        with _DIRECTLY.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return cls(time.monotonic(), {(s.name, *s.labels.values()): s.value for s in samples})

    def rate_since(self, before: "Look", name: str, *labels: str) -> float:
        """How much a counter rose per second; of seconds that is a share of time."""
        key = (name, *labels)
        return (self.values.get(key, 0.0) - before.values.get(key, 0.0)) / (self.at_s - before.at_s)


def busy_s() -> float:
    """Seconds that all cores of this machine have worked, whoever for."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def wait_until(port: int, name: str, at_least: float, timeout_s: float) -> None:
    """Looks every second until a figure is so large; raises TimeoutError."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        try:
            if Look.at(port).values.get((name,), 0.0) >= at_least:
                return
        except (urllib.error.URLError, OSError):
            pass  # it is starting
        time.sleep(1.0)
    raise TimeoutError(f"{name} was not {at_least} within {timeout_s:.0f} s")
