"""The learner with the replay service itself: the ratio is exact and everything ends by itself."""

import asyncio
import contextlib
import json

import pytest
import torch

from common.exploration import ExplorationSettings
from common.lifecycle import StopSignal
from common.settings import AgentSettings, RpcSettings
from learner import checkpoint
from learner.main import run_learner
from learner.settings import LearnerSettings
from replay.server import serve
from replay.settings import ReplaySettings
from tests.replay.running import BATCH_SIZE, Client, message

EPISODES, LENGTH = 12, 5
BATCHES_PER_EPISODE = 2
STEPS = EPISODES * BATCHES_PER_EPISODE
SETTINGS = LearnerSettings(
    algorithm="qmix", batch_size=BATCH_SIZE, publish_every_steps=1, checkpoint_every_steps=5, device="cpu"
)


@pytest.fixture(autouse=True)
def torch_as_it_was():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@contextlib.asynccontextmanager
async def serving(data_dir, address="127.0.0.1:0", **changes):
    """A service over a Redis of its own, and a client."""
    settings = ReplaySettings(
        samples_per_insert=BATCHES_PER_EPISODE * BATCH_SIZE, evaluation_interval=20, **changes
    )
    stop, ready = StopSignal(), asyncio.get_running_loop().create_future()
    service = asyncio.create_task(
        serve(
            settings,
            RpcSettings(address=address),
            seed=1,
            total_env_steps=EPISODES * LENGTH,
            batch_size=BATCH_SIZE,
            data_dir=data_dir,
            stop=stop,
            on_ready=ready.set_result,
        )
    )
    await asyncio.wait((service, ready), return_when=asyncio.FIRST_COMPLETED)
    client = Client(ready.result() if ready.done() else await service)
    try:
        yield client
    finally:
        await client.channel.close()
        stop.set()
        await service


@contextlib.asynccontextmanager
async def learning(address, run_dir, settings=SETTINGS):
    """A learner in a thread and its stop signal; it ends with the block even if the test has failed."""
    stop = StopSignal()
    learner = asyncio.create_task(
        asyncio.to_thread(
            run_learner,
            settings=settings,
            agent=AgentSettings(hidden_size=8),
            exploration=ExplorationSettings(),
            rpc=RpcSettings(address=address),
            seed=1,
            run_dir=run_dir,
            stop=stop,
        )
    )
    try:
        yield learner, stop
    finally:
        stop.set()
        await learner


async def until_weights(client, version):
    """Waits for weights of at least this version."""
    newest = 0
    while newest < version:
        response = await client.fetch(min_version=version, wait_ms=20_000)
        newest = response.weights.version


async def evaluate_all(client):
    """Reports every evaluation that falls due."""
    while True:
        claim = await client.claim(wait_ms=20_000)
        if claim.due:
            await client.report(claim.env_steps, episodes=32, wins=8, weights_version=claim.weights.version)
        elif claim.run_complete:
            return


def episodes(first, last):
    return [message(seq, length=LENGTH) for seq in range(first, last + 1)]


async def assert_trained_to_the_end(client, run_dir):
    status = await client.status()
    assert status.counters.episodes == EPISODES
    assert status.counters.samples == EPISODES * BATCHES_PER_EPISODE * BATCH_SIZE
    assert status.counters.weights_version == STEPS
    assert checkpoint.load(checkpoint.latest(run_dir)).step == STEPS
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [record["env_steps"] for record in records if "test/win_rate" in record] == [20, 40, 60]


async def test_a_run_ends_when_all_is_trained_and_evaluated(tmp_path):
    run_dir = tmp_path / "run"
    async with (
        serving(tmp_path, redis_url="memory://") as client,
        learning(client.address, run_dir) as (learner, _),
    ):
        await client.register()
        await until_weights(client, 1)
        await client.insert(*episodes(1, EPISODES))
        await evaluate_all(client)
        await learner
        await assert_trained_to_the_end(client, run_dir)


async def test_training_says_what_the_episodes_of_a_prioritised_table_are_worth(tmp_path):
    tables = {"default": {"sampler": "prioritised", "alpha": 1.0, "beta": 1.0}}
    async with (
        serving(tmp_path, redis_url="memory://", tables=tables) as client,
        learning(client.address, tmp_path / "run") as (learner, _),
    ):
        await client.register()
        await until_weights(client, 1)
        await client.insert(*episodes(1, EPISODES))
        await evaluate_all(client)
        await learner
        await assert_trained_to_the_end(client, tmp_path / "run")
        sampling = client.sampling()
        await sampling.open(credits=2, consumed=STEPS - 1)
        parts = (await sampling.batch()).responses
        importance = [weight for part in parts for weight in part.importance]
        assert len({round(weight, 6) for weight in importance}) > 1, "they are not alike any more"
        assert all(0 < weight <= 1 for weight in importance)


async def test_a_queue_is_trained_on_to_its_end(tmp_path):
    tables = {"recent": {"sampler": "fifo", "limiter": "queue", "window_episodes": BATCH_SIZE}}
    settings = SETTINGS.model_copy(update={"table": "recent"})
    async with (
        serving(tmp_path, redis_url="memory://", tables=tables) as client,
        learning(client.address, tmp_path / "run", settings) as (learner, _),
    ):
        await client.register()
        inserting = client.inserting()
        for seq in range(1, EPISODES + 1):
            await inserting.send(message(seq, length=LENGTH), table="recent")
        for _ in range(EPISODES):
            await inserting.receive()
        await until_weights(client, EPISODES // BATCH_SIZE)
        await evaluate_all(client)
        await learner
        default, recent = (await client.status()).tables
    assert (default.inserts, recent.inserts, recent.samples) == (0, EPISODES, EPISODES)
    assert checkpoint.load(checkpoint.latest(tmp_path / "run")).step == EPISODES // BATCH_SIZE


async def test_learner_and_service_both_restart_and_the_ratio_stays_exact(tmp_path):
    run_dir = tmp_path / "run"
    async with contextlib.AsyncExitStack() as later:
        async with serving(tmp_path / "redis") as client:
            async with learning(client.address, run_dir) as (learner, stop):
                await client.register()
                await until_weights(client, 1)
                await client.insert(*episodes(1, 6))
                await until_weights(client, 7)
                stop.set()
                await learner
            learner, _ = await later.enter_async_context(learning(client.address, run_dir))
            await until_weights(client, 6 * BATCHES_PER_EPISODE)
        again = await later.enter_async_context(serving(tmp_path / "redis", client.address))
        await again.insert(*episodes(1, EPISODES))  # the first half is known already
        await evaluate_all(again)
        await learner
        await assert_trained_to_the_end(again, run_dir)
