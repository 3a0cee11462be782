"""The replay service as a process: storage, gRPC server, health, and an end that loses nothing."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio  # type: ignore[attr-defined] # the stubs lack it

from common import rpc
from common.errors import BadInputError, FatalError
from common.lifecycle import StopSignal
from common.metrics import serving_metrics
from common.settings import NO_METRICS, MetricsSettings, RpcSettings
from common.tls import read_secret
from replay.access import AccessCheck, read_tokens
from replay.cache import EpisodeCache
from replay.errors import DrainingError, RunMismatchError, UnavailableError
from replay.health import report_health
from replay.inserter import Inserter
from replay.malformed import MessageCheck
from replay.memory_storage import MemoryStorage
from replay.metrics import ReplayMetrics
from replay.redis_link import RedisLink
from replay.redis_server import redis_server
from replay.redis_storage import RedisStorage
from replay.report import Reporter
from replay.sampler import Sampler
from replay.service import ReplayService, add_to_server
from replay.settings import CompleteTableSettings, ReplaySettings
from replay.stats import InsertRecorder, SampleRecorder
from replay.storage import Rules, RunParameters, Storage
from replay.table import LimiterKind, SamplerKind, TableRules

MEMORY_URL = "memory://"


async def serve(
    settings: ReplaySettings,
    rpc_settings: RpcSettings,
    *,
    seed: int,
    total_env_steps: int,
    batch_size: int,
    data_dir: Path,
    stop: StopSignal,
    on_ready: Callable[[str], None],
    metrics_settings: MetricsSettings = NO_METRICS,
) -> None:
    """Serves until `stop` is set; then drains and returns.

    `on_ready` gets the address ("host:port", the port as it really is) once calls are answered. `data_dir` is
    where a Redis that the service starts itself keeps its data. Raises FatalError if the address is taken, if
    Redis cannot be had or is lost for good, or if the storage holds a run with other parameters.
    """
    run = RunParameters(
        total_env_steps=total_env_steps,
        batch_size=batch_size,
        seed=seed,
    )
    rules = rules_of(settings, batch_size)
    ended = _when_set(stop)
    try:
        async with _storage(settings, rules, data_dir, ended) as (storage, lost):
            server = rpc.aio_server(rpc_settings, _interceptors(settings))
            address = _bind(server, rpc_settings)
            await _open_run(storage, run)
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="check") as executor:
                service, metrics = _service(storage, settings, run, executor)
                add_to_server(service, server)
                with serving_metrics(metrics_settings, metrics.collect):
                    async with _running(server, storage, settings.drain_timeout_s):
                        on_ready(address)
                        await asyncio.wait((ended, lost), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise lost.result()
    except DrainingError:
        return  # asked to end before it was ready


def rules_of(settings: ReplaySettings, batch_size: int) -> Rules:
    """The storage's rules. Raises FatalError if no batch could ever be drawn."""
    return Rules(
        tables={name: _table_rules(name, table, batch_size) for name, table in settings.all_tables.items()},
        evaluation_interval=settings.evaluation_interval,
        evaluation_lease_s=settings.evaluation_lease_s,
    )


def _table_rules(name: str, table: CompleteTableSettings, batch_size: int) -> TableRules:
    if table.window_episodes < batch_size:
        raise FatalError(
            f"window_episodes of the table {name} is {table.window_episodes}, less than a batch of "
            f"{batch_size}; give replay.window_episodes or that of the table more, or make batches smaller."
        )
    queue = table.limiter == "queue"
    return TableRules(
        name=name,
        batch_size=batch_size,
        sampler=SamplerKind(table.sampler),
        limiter=LimiterKind(table.limiter),
        samples_per_insert=table.samples_per_insert,
        insert_lead_episodes=table.insert_lead_episodes,
        min_episodes=table.min_episodes,
        window_episodes=table.window_episodes,
        window_bytes=table.window_bytes,
        max_times_sampled=1 if queue else table.max_times_sampled,
        max_age_versions=table.max_age_versions,
        alpha=table.alpha,
        beta=table.beta,
    )


@contextlib.asynccontextmanager
async def _storage(
    settings: ReplaySettings, rules: Rules, data_dir: Path, ended: asyncio.Future[None]
) -> AsyncIterator[tuple[Storage, asyncio.Future[FatalError]]]:
    """The storage that the settings name, and what will be done if it is lost for good."""
    never: asyncio.Future[FatalError] = asyncio.get_running_loop().create_future()
    if settings.redis_url == MEMORY_URL:
        yield MemoryStorage(rules), never
    elif settings.redis_url:
        async with _redis_storage(settings.redis_url, settings, rules, never, ended) as storage:
            yield storage, never
    else:
        async with redis_server(data_dir, appendfsync=settings.redis_appendfsync) as server:
            lost = asyncio.ensure_future(server.died())
            try:
                async with _redis_storage(server.url, settings, rules, lost, ended) as storage:
                    yield storage, lost
            finally:
                lost.cancel()


@contextlib.asynccontextmanager
async def _redis_storage(
    url: str,
    settings: ReplaySettings,
    rules: Rules,
    lost: asyncio.Future[FatalError],
    ended: asyncio.Future[None],
) -> AsyncIterator[RedisStorage]:
    try:
        link = RedisLink(
            url,
            prefix=settings.redis_prefix,
            timeout_s=settings.redis_timeout_s,
            password=_redis_password(settings),
        )
    except ValueError as error:
        raise BadInputError(f"replay.redis_url: {error}.") from error
    ended.add_done_callback(lambda _: link.changes.drain())
    try:
        connecting = asyncio.ensure_future(link.connect(settings.redis_connect_timeout_s))
        await asyncio.wait((connecting, lost), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            raise lost.result()
        connecting.result()
        yield RedisStorage(link, rules)
    except DrainingError:
        raise
    except UnavailableError as error:
        raise FatalError(f"{error}. Start it or correct replay.redis_url.") from error
    finally:
        await link.close()


def _redis_password(settings: ReplaySettings) -> str | None:
    path = settings.redis_password_file
    return read_secret("replay.redis_password_file", path).decode().strip() if path else None


def _when_set(stop: StopSignal) -> asyncio.Future[None]:
    """Done once the process is asked to drain, by a thread or by a signal."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve)

    stop.call_when_set(wake)
    return future


def _interceptors(settings: ReplaySettings) -> "list[grpc.aio.ServerInterceptor[Any, Any]]":
    access = [AccessCheck(read_tokens(settings.tokens_file))] if settings.tokens_file else []
    return [*access, MessageCheck()]  # whoever may not call is told so, whatever was sent


def _bind(server: grpc.aio.Server, settings: RpcSettings) -> str:
    host, _, _ = settings.address.rpartition(":")
    try:
        return f"{host}:{rpc.bind(server, settings)}"
    except RuntimeError as error:
        raise FatalError(
            f"Cannot listen on {settings.address}: the port is taken, or this machine has no such address; "
            "stop what uses it or set another rpc.address."
        ) from error


async def _open_run(storage: Storage, run: RunParameters) -> None:
    try:
        await storage.open_run(run)
    except RunMismatchError as error:
        raise FatalError(
            f"{error}; give the same value, or begin another run in another directory or redis_prefix."
        ) from error


def _service(
    storage: Storage, settings: ReplaySettings, run: RunParameters, executor: ThreadPoolExecutor
) -> tuple[ReplayService, ReplayMetrics]:
    names, inserts, samples = settings.all_tables.keys(), InsertRecorder(), SampleRecorder()
    caches = {name: EpisodeCache(settings.cache_bytes // len(names)) for name in names}
    inserter = Inserter(storage, caches, inserts, executor, max_episode_bytes=settings.max_episode_bytes)
    sampler = Sampler(storage, caches, samples, seed=run.seed)
    reporter = Reporter(storage, caches, inserts, samples, settings)
    service = ReplayService(storage, inserter, sampler, inserts, reporter, settings)
    return service, ReplayMetrics(storage, caches, inserts, samples)


@contextlib.asynccontextmanager
async def _running(server: grpc.aio.Server, storage: Storage, drain_timeout_s: float) -> AsyncIterator[None]:
    """Answers calls. At the end what waits is told to come again, and what is being stored is finished."""
    health = aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await server.start()
    reporting = asyncio.ensure_future(report_health(storage, health))
    try:
        yield
    finally:
        storage.changes.drain()
        await server.stop(drain_timeout_s)
        await reporting
