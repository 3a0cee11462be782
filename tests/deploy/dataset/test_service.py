"""Export from and import into real services: nothing is lost, changed or doubled, whatever is killed."""

import asyncio
import dataclasses
import json
import signal
import sys

import pytest

from common import codec, payload
from common.errors import BadInputError, FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy.dataset import export as exporting
from deploy.dataset.export import export
from deploy.dataset.importing import import_dataset
from deploy.dataset.reader import open_dataset
from deploy.dataset.table import episode_of
from deploy.run_dir import RunDir
from protos import replay_pb2 as pb
from replay.inserter import Inserter
from tests.deploy.dataset.made import rows, same, travelled, write
from tests.episodes import SPEC
from tests.replay.running import TIMEOUT_S, message, serving

LIMIT = 10**6


@pytest.fixture
def target(redis_url, prefix):
    """A second service, where the limiter lets nothing in by itself beyond the first batch."""
    return lambda **changes: serving(
        redis_url=redis_url, redis_prefix=f"{prefix}-2", insert_lead_episodes=0, **changes
    )


async def exported(client, root, stop=None):
    settings = RpcSettings(address=client.address)
    return await asyncio.to_thread(export, root, settings, stop or StopSignal())


async def imported(client, root, stop=None):
    settings = RpcSettings(address=client.address)
    return await asyncio.to_thread(
        import_dataset, root, settings, stop or StopSignal(), max_episode_bytes=LIMIT
    )


async def window(client):
    responses = [r async for r in client.stub.ReadWindow(pb.ReadWindowRequest(), timeout=TIMEOUT_S)]
    encoded = [codec.episode_from_proto(stored.episode) for r in responses for stored in r.episodes]
    return [episode_of(one.meta, payload.decode_episode(one, SPEC)) for one in encoded]


async def test_there_and_back_and_twice(replay, target, tmp_path):
    async with replay(insert_lead_episodes=10**6, window_episodes=30) as source, target() as other:
        await source.register()
        await source.insert(
            *(message(seq, session=f"s{seq % 3}", length=1 + seq % 9) for seq in range(1, 41))
        )
        assert "30 episodes" in await exported(source, tmp_path / "set")
        assert "30 episodes imported, 0 were there" in await imported(other, tmp_path / "set")
        before, after = await window(source), await window(other)
        assert len(before) == 30
        assert all(same(one, copy) for one, copy in zip(before, after, strict=True))
        assert "0 episodes imported, 30 were there" in await imported(other, tmp_path / "set")
        status = await other.status()
        assert (status.counters.episodes, status.counters.samples, status.evaluations_pending) == (30, 0, 0)
        await exported(other, tmp_path / "again")
        again = list(open_dataset(tmp_path / "again", max_episode_bytes=LIMIT).episodes())
        assert all(same(one, copy) for one, copy in zip(before, again, strict=True))


async def test_another_environment_is_refused_with_the_field(target, tmp_path):
    write(tmp_path / "set", rows(5))
    async with target() as client:
        await client.register(dataclasses.replace(SPEC, state_size=99))
        with pytest.raises(FatalError, match="state_size: 13 differs"):
            await imported(client, tmp_path / "set")
        assert (await client.status()).counters.episodes == 0


async def test_damage_changes_nothing(target, tmp_path):
    write(tmp_path / "set", rows(40), shard_bytes=10_000)
    last = sorted((tmp_path / "set").glob("*.parquet"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    async with target() as client:
        with pytest.raises(BadInputError, match="is damaged"):
            await imported(client, tmp_path / "set")
        status = await client.status()
        assert (status.counters.episodes, status.HasField("spec")) == (0, False)


async def test_a_run_that_has_all_its_steps(target, tmp_path):
    made = write(tmp_path / "set", rows(10))
    async with target(total_env_steps=made.env_steps - 15) as client:
        with pytest.raises(FatalError, match="9 episodes imported, 0 were there already, 1 were not taken"):
            await imported(client, tmp_path / "set")


async def test_nothing_to_export(replay, tmp_path):
    async with replay() as client:
        with pytest.raises(FatalError, match="no episodes yet"):
            await exported(client, tmp_path / "set")
        assert list(tmp_path.iterdir()) == []


async def test_a_stop_leaves_no_half_data_set(replay, tmp_path, monkeypatch):
    async with replay(insert_lead_episodes=10**6) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 11)))
        stop = StopSignal()
        row = exporting._row

        def stopping(stored, spec):
            if stored.number == 5:
                stop.set()
            return row(stored, spec)

        monkeypatch.setattr(exporting, "_row", stopping)
        with pytest.raises(FatalError, match="Stopped: nothing was written") as raised:
            await exported(client, tmp_path / "set", stop)
        assert raised.value.code == 130
        assert list(tmp_path.iterdir()) == []


async def test_an_export_goes_on_at_another_service_where_the_first_broke_off(replay, tmp_path, monkeypatch):
    """The deadline of a stream is no end: the next one begins behind what has come."""
    monkeypatch.setattr("replay.window_reader.CHUNK_BYTES", 2000)
    monkeypatch.setattr("replay.window_reader.MAX_EPISODES_AT_ONCE", 2)
    async with replay(insert_lead_episodes=10**6) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 31)))
        broken = []
        row = exporting._row

        def breaking(stored, spec):
            if stored.number in (7, 20) and stored.number not in broken:
                broken.append(stored.number)
                raise _Broken
            return row(stored, spec)

        class _Broken(exporting.grpc.RpcError):
            def code(self):
                return exporting.grpc.StatusCode.UNAVAILABLE

            def details(self):
                return "the connection broke"

        monkeypatch.setattr(exporting, "_row", breaking)
        assert "30 episodes" in await exported(client, tmp_path / "set")
    seqs = [e.meta.seq for e in open_dataset(tmp_path / "set", max_episode_bytes=LIMIT).episodes()]
    assert (seqs, broken) == (list(range(1, 31)), [7, 20])


async def test_an_import_that_is_killed_is_done_again(target, tmp_path, monkeypatch):
    write(tmp_path / "set", rows(200))
    waiting, released, commits = asyncio.Event(), asyncio.Event(), 0
    commit = Inserter._commit

    async def halting(self, group):
        nonlocal commits
        commits += 1
        if commits == 4:
            waiting.set()
            await released.wait()
        return await commit(self, group)

    monkeypatch.setattr(Inserter, "_commit", halting)
    async with target() as client:
        command = (sys.executable, "-m", "deploy.cli", "replay", "import", str(tmp_path / "set"))
        command += ("--address", client.address)
        process = await asyncio.create_subprocess_exec(*command)
        await waiting.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        released.set()
        stored = (await client.status()).counters.episodes
        assert 0 < stored < 200
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0
        assert "were there already" in output and " 0 were" not in output
        assert (await client.status()).counters.episodes == 200
        after = await window(client)
        assert all(same(travelled(seq), one) for seq, one in enumerate(after, 1))


async def test_the_service_of_a_stopped_run(tmp_path):
    """As `vdfd train` leaves it: its directory is enough."""
    settings = ("run.seed=1", "learner.batch_size=4", "replay.samples_per_insert=1")
    run = tmp_path / "run"

    async def vdfd(*words):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", *words), stdout=-1, stderr=-1, cwd=tmp_path
        )
        output, errors = await process.communicate()
        return process.returncode, output.decode(), errors.decode()

    run.mkdir()
    (run / "config.yaml").write_text((await vdfd("config", *settings))[1])
    async with serving(redis_url="", data_dir=run / "redis", insert_lead_episodes=10**6) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 8)))
    with RunDir(run).locked():
        code, _, errors = await vdfd("replay", "export", "set", "--run-dir", "run")
        assert code == 1
        assert "Another vdfd train is at work in run" in errors
    code, output, errors = await vdfd("replay", "export", "set", "--run-dir", "run")
    assert code == 0, errors
    assert "7 episodes" in output
    code, output, errors = await vdfd(
        *("replay", "stats", "--run-dir", "run", "--json", "--interval", "0.1", "run.env_steps=2000000000")
    )
    assert code == 0, errors
    told = json.loads(output)
    assert told["tables"]["default"]["inserts"] == 7
    # What is given holds for the service that was started, as it must for an import that needs room.
    assert told["total_env_steps"] == 2 * 10**9
