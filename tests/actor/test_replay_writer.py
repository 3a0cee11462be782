"""Every episode arrives once and in order, whatever happens to the connection to a real service."""

import contextlib
import dataclasses
import threading

import numpy as np
import pytest

from actor.outbox import GROUP_EPISODES, GROUPS_IN_FLIGHT, Outbox
from actor.replay_writer import ReplayWriter
from actor.settings import ActorSettings
from common import rpc
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import EnvSpec
from protos import replay_pb2 as pb
from tests.actor.service import proxy_to, replay_service, unused_address
from tests.episodes import SPEC, make_episode

DRAIN_S = 60


@contextlib.contextmanager
def writing(rpc_settings, *, stop=None, **settings):
    with rpc.channel(rpc_settings) as channel:
        writer = ReplayWriter(channel, ActorSettings(**settings), rpc_settings, stop=stop or StopSignal())
        try:
            yield writer
        finally:
            writer.close()
            writer.close()  # harmless


@pytest.fixture
def service():
    with replay_service() as service:
        service.register(SPEC)
        yield service


def put_all(writer, seqs):
    for seq in seqs:
        assert writer.put(make_episode(seq=seq, length=5))


def test_all_episodes_arrive_and_the_counters_come_back(service):
    with writing(service.settings) as writer:
        put_all(writer, range(1, 101))
        assert writer.drain(DRAIN_S)
        stats, counters = writer.stats(), writer.counters
    assert (stats.stored, stats.duplicates, stats.invalid, stats.held, stats.held_bytes) == (100, 0, 0, 0, 0)
    assert (counters.episodes, counters.env_steps) == (100, 500)
    assert service.status().window_bytes > stats.sent_bytes > 0
    assert not writer.run_complete


def test_episodes_enter_the_table_that_the_settings_name():
    with replay_service(tables={"recent": {}}) as service:
        service.register(SPEC)
        for table in ("recent", "default"):
            with writing(service.settings, table=table) as writer:
                writer.put(make_episode(seq=1, session=table))
                assert writer.drain(DRAIN_S)
        assert {table.table: table.inserts for table in service.status().tables} == {
            "default": 1,
            "recent": 1,
        }
        with writing(service.settings, table="other") as writer:
            writer.put(make_episode(seq=1, session="other"))
            with pytest.raises(FatalError, match="NOT_FOUND: table: there is no 'other'"):
                writer.drain(DRAIN_S)


def test_lost_acknowledgements_lead_to_duplicates_not_to_double_episodes(service):
    with proxy_to(service) as proxy, writing(proxy.settings) as writer:
        put_all(writer, range(1, 4))
        assert writer.drain(DRAIN_S)
        proxy.deaf = True
        put_all(writer, range(4, 7))
        service.until(lambda status: status.counters.episodes == 6)
        proxy.sever()
        assert writer.drain(DRAIN_S)
        stats, status = writer.stats(), service.status()
    assert (status.counters.episodes, status.counters.env_steps, status.duplicates) == (6, 30, 3)
    assert (stats.stored, stats.duplicates) == (3, 3)
    assert stats.streams >= 2


def test_a_connection_that_breaks_again_and_again(service):
    with proxy_to(service) as proxy, writing(proxy.settings) as writer:
        for round_ in range(5):
            put_all(writer, range(1 + 30 * round_, 31 + 30 * round_))
            service.until(lambda status, sent=30 * round_: status.counters.episodes > sent)
            proxy.sever()
        assert writer.drain(DRAIN_S)
        stats = writer.stats()
    assert service.status().counters.episodes == 150
    assert stats.stored + stats.duplicates == 150
    assert proxy.connections >= 2


def test_a_stream_whose_deadline_passes_is_opened_anew():
    """The rate limiter holds the fifth episode back until a learner samples; acknowledgements come late."""
    with replay_service(insert_lead_episodes=0, samples_per_insert=4) as service:
        service.register(SPEC)
        settings = service.settings.model_copy(update={"stream_timeout_s": 0.2})
        with writing(settings) as writer:
            put_all(writer, range(1, 5))
            assert writer.drain(DRAIN_S)
            put_all(writer, [5])
            held_by = writer.stats().streams
            while writer.stats().streams < held_by + 3:
                assert not writer.drain(0.05)
            sample_everything(service)
            assert writer.drain(DRAIN_S)
    assert writer.stats().stored + writer.stats().duplicates == 5


def sample_everything(service):
    opening = pb.SampleOpen(batch_size=4, consumed_batches=0)
    call = service.stub.Sample(iter([pb.SampleRequest(open=opening, credits=4)]), timeout=30)
    batches = 0
    while batches < 4:
        batches += next(call).end_of_batch
    call.cancel()


@pytest.mark.parametrize("bound", [{"queue_episodes": 3}, {"queue_bytes": 3 * 4 * 10**3}])
def test_a_full_queue_blocks_until_the_process_is_asked_to_stop_and_then_takes_what_is_left(bound):
    """No service answers, so nothing leaves the queue."""
    stop, put = StopSignal(), []
    address = unused_address()
    settings = RpcSettings(address=address)
    with writing(settings, stop=stop, **bound) as writer:
        thread = threading.Thread(target=lambda: [put.append(writer.put(make_episode())) for _ in range(20)])
        thread.start()
        while writer.stats().held < 3:
            pass
        assert not writer.drain(0.2)
        held = writer.stats().held
        assert 3 <= held < 20
        stop.set()
        thread.join()
        assert writer.stats().held == 20
        assert put == [True] * held + [False] * (20 - held)
        assert held == 3 or "queue_bytes" in bound


def test_episodes_of_the_largest_map_travel_in_messages_below_the_limit():
    """Forty of 27m_vs_30m, of which nothing can be compressed, are 71 MB: more than one message may have."""
    spec = EnvSpec(
        env="synthetic",
        map="27m_vs_30m",
        n_agents=27,
        n_actions=36,
        obs_size=738,
        state_size=1230,
        episode_limit=180,
        fallback_action=0,
    )
    episode = make_episode(spec, length=20)
    with replay_service(max_episode_bytes=32 * 1024 * 1024) as service:
        service.register(spec)
        with writing(service.settings, queue_episodes=64, queue_bytes=10**9) as writer:
            for seq in range(1, 41):
                assert writer.put(
                    dataclasses.replace(episode, meta=dataclasses.replace(episode.meta, seq=seq))
                )
            assert writer.drain(DRAIN_S)
            assert writer.stats().sent_bytes > service.settings.max_message_bytes
        assert service.status().counters.episodes == 40


def test_half_precision_is_what_the_service_gets(service):
    sizes = []
    for encoding in ("lossless", "half"):
        with writing(service.settings, encoding=encoding) as writer:
            episode = make_episode(length=20)
            meta = dataclasses.replace(episode.meta, session=encoding)
            assert writer.put(dataclasses.replace(episode, meta=meta))
            assert writer.drain(DRAIN_S)
            sizes.append(writer.stats().sent_bytes)
    assert sizes[1] < 0.6 * sizes[0]


def test_what_half_precision_cannot_hold_ends_the_writer(service):
    episode = make_episode()
    beyond = dataclasses.replace(episode, state=np.full_like(episode.state, 1e6))
    with writing(service.settings, encoding="half") as writer:
        assert writer.put(beyond)
        with pytest.raises(FatalError, match=r"state: .*actor\.encoding"):
            writer.drain(DRAIN_S)


def test_an_episode_larger_than_the_queue_passes_alone(service):
    with writing(service.settings, queue_bytes=10) as writer:
        put_all(writer, range(1, 4))
        assert writer.drain(DRAIN_S)
    assert service.status().counters.episodes == 3


def test_an_invalid_episode_ends_the_writer_with_the_field(service, caplog):
    episode = make_episode(seq=2)
    broken = dataclasses.replace(episode, obs=np.full_like(episode.obs, np.nan))
    with writing(service.settings) as writer:
        put_all(writer, [1])
        writer.put(broken)
        with pytest.raises(FatalError, match=r"invalid.*obs"):
            writer.drain(DRAIN_S)
        with pytest.raises(FatalError, match="obs"):
            writer.put(make_episode(seq=3))
        assert writer.stats().invalid == 1
    assert "episode 2 is invalid: obs" in caplog.text
    assert service.status().counters.episodes == 1


def test_a_run_without_a_registered_spec_is_told():
    with replay_service() as service, writing(service.settings) as writer:
        put_all(writer, [1])
        with pytest.raises(FatalError, match="no spec is registered"):
            writer.drain(DRAIN_S)


def test_the_end_of_the_run_is_noticed():
    with replay_service(total_env_steps=12) as service:
        service.register(SPEC)
        with writing(service.settings) as writer:
            put_all(writer, range(1, 3))
            assert writer.drain(DRAIN_S)
            assert not writer.run_complete
            put_all(writer, range(3, 6))
            assert writer.drain(DRAIN_S)
            assert writer.run_complete
            assert writer.counters.run_complete
    assert writer.stats().stored == 3


def test_waiting_episodes_travel_in_one_group_and_few_groups_are_under_way():
    outbox = Outbox(table="", max_episodes=1000, max_bytes=10**9, group_bytes=10**9)
    for seq in range(1, 401):
        outbox.add(make_episode(seq=seq))
    packer = threading.Thread(target=outbox.pack_groups)
    packer.start()
    groups = [wait_for_group(outbox, number) for number in range(GROUPS_IN_FLIGHT)]
    assert [group.seqs for group in groups] == [
        list(range(1 + GROUP_EPISODES * i, 1 + GROUP_EPISODES * (i + 1))) for i in range(GROUPS_IN_FLIGHT)
    ]
    assert outbox.next_after(GROUPS_IN_FLIGHT - 1) is None
    outbox.acknowledge(groups[0].seqs)
    assert wait_for_group(outbox, GROUPS_IN_FLIGHT).seqs[0] == 1 + GROUP_EPISODES * GROUPS_IN_FLIGHT
    assert outbox.held == 400 - GROUP_EPISODES
    with pytest.raises(ValueError, match="oldest group"):
        outbox.acknowledge(groups[2].seqs)
    outbox.close()
    packer.join()


def wait_for_group(outbox, number):
    with outbox.changed:
        assert outbox.grouped.wait_for(lambda: outbox.next_after(number - 1) is not None, 60)
        return outbox.next_after(number - 1)


def test_a_groups_bytes_are_bounded():
    size = sum(array.nbytes for array in (make_episode().obs, make_episode().state))
    outbox = Outbox(table="", max_episodes=1000, max_bytes=10**9, group_bytes=3 * size)
    for seq in range(1, 9):
        outbox.add(make_episode(seq=seq))
    packer = threading.Thread(target=outbox.pack_groups)
    packer.start()
    assert wait_for_group(outbox, 0).seqs == [1, 2]
    assert wait_for_group(outbox, 1).seqs == [3, 4]
    outbox.close()
    packer.join()
