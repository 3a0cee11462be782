"""`vdfd replay stats`: the figures of a replay service, as a screen or as JSON."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from common import rpc
from common.errors import EXIT_STOPPED, FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy.formatting import duration, sparkline
from deploy.status import no_answer
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

_DISTRIBUTIONS = {
    "age_s": "age in seconds",
    "age_env_steps": "age in environment steps",
    "staleness_versions": "staleness in versions",
    "length": "length in steps",
    "episode_return": "return",
}


Tables = dict[str, pb.GetStatsResponse]
"""An answer by the name of its table; what is not of the table is the same in all but for the moment."""


def show_stats(settings: RpcSettings, stop: StopSignal, *, interval_s: float, as_json: bool) -> None:
    """Asks twice, so that there are rates, and prints. FatalError: the service does not answer."""
    with rpc.channel(settings) as channel:
        stub = ReplayStub(channel)
        before, began_s = _ask(stub, settings), time.monotonic()
        if stop.wait(interval_s):
            raise FatalError("Stopped.", code=EXIT_STOPPED)
        now = _ask(stub, settings)
        seconds = time.monotonic() - began_s
    rates = {name: rates_between(before[name], now[name], seconds) for name in now}
    if as_json:
        print(json.dumps(as_values(now, rates)))
    else:
        Console().print(render(now, rates))


def rates_between(before: pb.GetStatsResponse, now: pb.GetStatsResponse, seconds: float) -> dict[str, float]:
    """Of a table, over all replicas. A learner that came back has set samples back: then there is no rate."""
    counters = {
        "inserts_per_s": now.table.inserts - before.table.inserts,
        "samples_per_s": now.table.samples - before.table.samples,
    }
    return {name: max(0, grown) / seconds for name, grown in counters.items()}


def as_values(tables: Tables, rates: dict[str, dict[str, float]]) -> dict[str, object]:
    """All figures as numbers, also those that are 0."""
    values = {
        name: MessageToDict(
            stats, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, stats in tables.items()
    }
    common = next(iter(values.values()))
    return {
        "tables": {name: {**_numbers(one["table"]), **rates[name]} for name, one in values.items()},
        **{part: _numbers(common[part]) for part in ("replica", "storage", "counters", "total_env_steps")},
    }


def render(tables: Tables, rates: dict[str, dict[str, float]]) -> RenderableType:
    """The screen."""
    stats = next(iter(tables.values()))
    parts: list[RenderableType] = []
    for name, one in tables.items():
        parts += [
            Text(f"table {name}", style="bold cyan"),
            _grid(_table_lines(one.table, rates[name])),
            _distributions(one.table),
            Text(),
        ]
    return Group(*parts, _grid(_service_lines(stats)))


def _grid(lines: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    for name, text in lines:
        grid.add_row(name, text)
    return grid


def _table_lines(table: pb.TableStats, rates: dict[str, float]) -> Iterator[tuple[str, str]]:
    yield (
        "window",
        f"{table.episodes:,} of {table.max_episodes:,} episodes, {_bytes(table.size_bytes, table.max_bytes)}",
    )
    yield "stored", f"{table.inserts:,} episodes, {rates['inserts_per_s']:.1f}/s"
    yield "sampled", f"{table.samples:,} episodes, {rates['samples_per_s']:.1f}/s"
    yield "samples per insert", f"{table.samples_per_insert:.2f} ({table.target_samples_per_insert:g})"


def _service_lines(stats: pb.GetStatsResponse) -> Iterator[tuple[str, str]]:
    replica, storage = stats.replica, stats.storage
    yield "environment steps", f"{stats.counters.env_steps:,} of {stats.total_env_steps:,}"
    yield (
        "waits on average",
        f"insert {_milliseconds(replica.insert_wait_mean_s)}, "
        f"batch {_milliseconds(replica.sample_wait_mean_s)}",
    )
    yield (
        "this service",
        f"up {duration(replica.uptime_s)}, {_bytes(replica.memory_bytes)}; {replica.stored:,} stored, "
        f"{replica.duplicates:,} duplicates, {replica.rejected:,} invalid, {replica.sampled:,} sampled",
    )
    reads = replica.cache_hits + replica.cache_misses
    yield (
        "its memory of episodes",
        f"{replica.cache_episodes:,} episodes, {_bytes(replica.cache_bytes, replica.cache_max_bytes)}, "
        f"{100 * replica.cache_hits / max(1, reads):.1f} % of reads",
    )
    yield (
        "Redis",
        f"{_bytes(storage.memory_bytes, storage.memory_limit_bytes)}, file {_bytes(storage.file_bytes)}, "
        f"round trip {_milliseconds(storage.latency_mean_s)}"
        + ("" if storage.writes_to_disk else ", does not write to disk"),
    )


def _distributions(table: pb.TableStats) -> RenderableType:
    if not table.examined:
        return Text("The window is empty.")
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column(f"of {table.examined:,} episodes, won {100 * table.win_rate:.0f} %")
    for name in ("least", "mean", "median", "90 %", "most"):
        shown.add_column(name, justify="right")
    shown.add_column("histogram")
    for field, name in _DISTRIBUTIONS.items():
        of: pb.Distribution = getattr(table, field)
        highest = max(of.counts)
        shown.add_row(
            name,
            *(
                f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
                for value in (of.min, of.mean, of.p50, of.p90, of.max)
            ),
            Text(sparkline([count / highest for count in of.counts]), style="cyan"),
        )
    return shown


def _ask(stub: ReplayStub, settings: RpcSettings) -> Tables:
    timeout_s = settings.unary_timeout_s
    try:
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=timeout_s)
        return {
            one.table: stub.GetStats(pb.GetStatsRequest(table=one.table), timeout=timeout_s)
            for one in status.tables
        }
    except grpc.RpcError as error:
        raise no_answer(settings, error) from error


def _numbers(value: Any) -> Any:  # noqa: ANN401 - whatever JSON has
    """64-bit integers are strings in protobuf's JSON."""
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _bytes(size: int, limit: int = 0) -> str:
    return f"{size / 2**20:,.1f} MiB" + (f" of {limit / 2**20:,.0f}" if limit else "")


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
