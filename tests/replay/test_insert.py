"""Episodes in, over real channels."""

import asyncio

import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from common import codec, wire
from common.types import EnvSpec
from protos import replay_pb2 as pb
from tests.episodes import SPEC
from tests.replay.running import BATCH_SIZE, TIMEOUT_S, message, refused, serving

STORED, DUPLICATE = pb.INSERT_OUTCOME_STORED, pb.INSERT_OUTCOME_DUPLICATE
INVALID, RUN_COMPLETE = pb.INSERT_OUTCOME_INVALID, pb.INSERT_OUTCOME_RUN_COMPLETE


def outcomes(response):
    return [(result.seq, result.outcome) for result in response.results]


async def test_groups_are_answered_in_their_order(replay):
    async with replay(samples_per_insert=100, insert_lead_episodes=100) as client:
        await client.register()
        stream = client.inserting()
        for first in range(1, 60, 3):
            await stream.send(*(message(seq) for seq in range(first, first + 1 + first % 3)))
        for first in range(1, 60, 3):
            expected = [(seq, STORED) for seq in range(first, first + 1 + first % 3)]
            assert outcomes(await stream.receive()) == expected
        await stream.end()
        status = await client.status()
        assert (status.counters.episodes, status.counters.env_steps) == (40, 200)
        assert (status.window_episodes, status.actors[0].episodes) == (40, 40)


async def test_what_is_sent_again_after_a_broken_stream_is_a_duplicate(replay):
    async with replay() as client:
        await client.register()
        stream = client.inserting()
        await stream.send(message(1), message(2))
        await stream.receive()
        await stream.send(message(3))
        stream.call.cancel()  # whether 3 was stored is not known to the client
        response = await client.insert(*(message(seq) for seq in range(1, 5)))
        assert [seq for seq, _ in outcomes(response)] == [1, 2, 3, 4]
        assert [outcome for _, outcome in outcomes(response)][:2] == [DUPLICATE, DUPLICATE]
        status = await client.status()
        assert (status.counters.episodes, status.counters.env_steps) == (4, 20)


async def test_the_first_request_needs_a_spec(replay):
    async with replay() as client:
        with refused(StatusCode.FAILED_PRECONDITION, "no spec"):
            await client.insert(message(1))
        await client.register()
        await client.insert(message(1))


async def test_another_spec_is_refused_with_the_field_that_differs(replay):
    async with replay() as client:
        await client.register()
        await client.register()
        other = EnvSpec(**{name: getattr(SPEC, name) for name in codec.SPEC_FIELDS} | {"state_size": 99})
        with refused(StatusCode.FAILED_PRECONDITION, "state_size"):
            await client.register(other)


@pytest.mark.parametrize(
    ("field", "value"), [("n_agents", 0), ("n_actions", 256), ("map", ""), ("episode_limit", 2**32 - 1)]
)
async def test_an_impossible_spec_is_refused_with_its_field(replay, field, value):
    async with replay() as client:
        spec = codec.spec_to_proto(SPEC)
        setattr(spec, field, value)
        with refused(StatusCode.INVALID_ARGUMENT, field):
            await client.stub.RegisterSpec(pb.RegisterSpecRequest(spec=spec))
        assert not (await client.status()).HasField("spec")


def _with(**meta):
    episode = message(7)
    for name, value in meta.items():
        setattr(episode.meta, name, value)
    return episode


def _padded(size):
    """With a field that EpisodeMeta does not have."""
    episode = message(7)
    episode.meta.MergeFromString(wire.delimited(100, size) + bytes(size))
    return episode


def _payload(payload):
    episode = message(7)
    episode.payload = payload
    return episode


@pytest.mark.parametrize(
    ("field", "episode"),
    [
        ("meta", _padded(600)),
        ("session", _with(session="")),
        ("session", _with(session="a b")),
        ("session", _with(session="a" * 65)),
        ("session", _with(session="a\n")),
        ("seq", _with(seq=0)),
        ("actor", _with(actor="")),
        ("actor", _with(actor="a" * 65)),
        ("length", _with(length=0)),
        ("length", _with(length=2**32 - 1)),
        ("payload", _with(length=6)),
        ("payload", _payload(b"")),
        ("payload", _payload(bytes(200_000))),
        ("encoding", _with(encoding=pb.ENCODING_UNSPECIFIED)),
        ("encoding", _with(encoding=42)),
        ("episode_return", _with(episode_return=float("nan"))),
        ("episode_return", _with(episode_return=-5.0)),
    ],
)
async def test_an_invalid_episode_is_named_and_the_others_of_its_group_are_stored(replay, field, episode):
    async with replay(max_episode_bytes=100_000) as client:
        await client.register()
        stream = client.inserting()
        await stream.send(message(1), episode, message(2))
        response = await stream.receive()
        assert outcomes(response) == [(1, STORED), (episode.meta.seq, INVALID), (2, STORED)]
        assert response.results[1].message.startswith(f"{field}: ")
        await stream.send(message(3))
        assert outcomes(await stream.receive()) == [(3, STORED)], "the stream lives on"
        await stream.end()
        status = await client.status()
        assert (status.counters.episodes, status.rejected) == (3, 1)


async def test_the_longest_meta_is_stored_and_read(replay):
    longest = _with(
        session="s" * 64,
        seq=2**64 - 1,
        actor="\N{SNAKE}" * 64,
        seed=2**64 - 1,
        weights_version=2**64 - 1,
        won=True,
        terminated=True,
    )
    async with replay() as client:
        await client.register()
        assert outcomes(await client.insert(longest)) == [(2**64 - 1, STORED)]
        assert (await client.stub.GetStats(pb.GetStatsRequest())).table.length.max == longest.meta.length


def _garbage():
    """Episodes with any fields, and a payload that is anything between right and random."""
    right = message(1)
    meta = {
        "session": st.text(max_size=70) | st.just("s"),
        "seq": st.integers(0, 2**64 - 1) | st.just(1),
        "actor": st.text(max_size=70),
        "seed": st.integers(0, 2**64 - 1),
        "weights_version": st.integers(0, 2**64 - 1),
        "length": st.integers(0, 2**32 - 1) | st.integers(0, 25) | st.just(5),
        "episode_return": st.floats(width=32),
        "won": st.booleans(),
        "terminated": st.booleans(),
        "encoding": st.integers(-5, 5),
    }
    changes = st.lists(st.sampled_from(sorted(meta)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: meta[name] for name in names})
    )
    edits = st.lists(st.tuples(st.integers(0, len(right.payload) - 1), st.integers(0, 255)), max_size=3)
    cut = st.just(None) | st.integers(0, len(right.payload))

    def build(changes, edits, cut):
        episode = message(1)
        for name, value in changes.items():
            setattr(episode.meta, name, value)
        payload = bytearray(episode.payload)
        for place, value in edits:
            payload[place] = value
        episode.payload = bytes(payload[:cut])
        return episode

    return st.builds(build, changes, edits, cut)


@given(st.lists(_garbage(), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_garbage_changes_the_state(episodes):
    asyncio.run(_insert_garbage(episodes))


async def _insert_garbage(episodes):
    async with serving(insert_lead_episodes=10**6) as client:
        await client.register()
        response = await client.insert(*episodes)
        stored = [
            episode for episode, (_, o) in zip(episodes, outcomes(response), strict=True) if o == STORED
        ]
        invalid = [result for result in response.results if result.outcome == INVALID]
        status = await client.status()
        assert status.counters.episodes == len(stored)
        assert status.counters.env_steps == sum(episode.meta.length for episode in stored)
        assert status.window_bytes == sum(episode.ByteSize() for episode in stored)
        assert status.rejected == len(invalid)
        for result in invalid:
            assert result.message.partition(":")[0].isidentifier()
        assert outcomes(await client.insert(message(9, session="fresh"))) == [(9, STORED)]


async def test_a_group_that_is_too_long_is_refused(replay):
    async with replay() as client:
        await client.register()
        with refused(StatusCode.INVALID_ARGUMENT, "episodes"):
            await client.insert(*[message(1)] * 1025)
        many_fields = client.channel.stream_stream("/vdfd.v1.Replay/Insert")(timeout=TIMEOUT_S)
        await many_fields.write(b"\x28\x00" * 10**6)
        with refused(StatusCode.INVALID_ARGUMENT, "request: is no InsertRequest (message: has more"):
            await many_fields.read()
        assert (await client.status()).counters.episodes == 0


async def test_an_empty_group_is_answered(replay):
    async with replay() as client:
        await client.register()
        await client.insert(message(1))
        response = await client.insert()
        assert (len(response.results), response.counters.episodes) == (0, 1)


async def test_the_limiter_is_back_pressure_until_batches_are_taken(replay):
    async with replay(insert_lead_episodes=BATCH_SIZE) as client:
        await client.register()
        stream = client.inserting()
        await stream.send(*(message(seq) for seq in range(1, 6)))
        await stream.receive()
        await stream.send(message(6), message(7))
        late = asyncio.ensure_future(stream.receive())
        sampling = client.sampling()
        await sampling.open()
        status = await client.status()
        assert not late.done()
        assert status.counters.episodes == 5
        await sampling.add_credits()
        await sampling.batch()
        assert outcomes(await late) == [(6, STORED), (7, STORED)]


async def test_waiting_groups_of_many_streams_all_enter(replay):
    async with replay(insert_lead_episodes=0) as client:
        await client.register()
        await client.insert(*(message(seq) for seq in range(1, 5)))
        waiting = [asyncio.ensure_future(client.insert(message(1, session=f"s{n}"))) for n in range(12)]
        broken = client.inserting()
        await broken.send(message(1, session="broken"))
        broken.call.cancel()
        sampling = client.sampling()
        await sampling.open(credits=4)
        for response in await asyncio.gather(*waiting):
            assert outcomes(response) == [(1, STORED)]
        assert (await client.status()).counters.episodes in (16, 17)


async def test_a_complete_run_takes_no_more(replay):
    async with replay(total_env_steps=12) as client:
        await client.register()
        response = await client.insert(*(message(seq) for seq in range(1, 5)))
        assert outcomes(response) == [(1, STORED), (2, STORED), (3, STORED), (4, RUN_COMPLETE)]
        assert response.counters.run_complete
        again = await client.insert(message(4), message(1))
        assert outcomes(again) == [(4, RUN_COMPLETE), (1, DUPLICATE)]
        assert (await client.status()).counters.env_steps == 15


async def test_the_status_tells_how_recent_episodes_were_played(replay):
    async with replay() as client:
        await client.register()
        await client.publish(10)
        await client.insert(message(1, won=True, weights_version=4), message(2, weights_version=10))
        await client.insert(message(2), message(1, session="b", actor="other", weights_version=10))
        status = await client.status()
        assert status.weights_lag == pytest.approx(2)
        assert status.train_win_rate == pytest.approx(1 / 3)
        assert status.train_return > 0
        assert [(actor.actor, actor.episodes) for actor in status.actors] == [("actor-test", 2), ("other", 1)]
        assert status.duplicates == 1
        assert status.spec == codec.spec_to_proto(SPEC)
