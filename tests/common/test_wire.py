"""What is put together by hand is what protobuf reads, and the other way round; garbage is told as such."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.codec import episode_from_proto, episode_to_proto
from common.payload import CodecError, encode_episode
from protos import replay_pb2 as pb
from tests.episodes import make_episode

EPISODES = [encode_episode(make_episode(seq=seq, length=1 + 7 * seq % 20)) for seq in range(1, 6)]
EPISODES_FIELD = pb.SampleResponse.EPISODES_FIELD_NUMBER
MESSAGES = [episode_to_proto(episode) for episode in EPISODES]


@pytest.mark.parametrize("table", ["", "other"])
def test_a_request_is_what_protobuf_would_write(table):
    request = wire.insert_request(EPISODES, table)
    assert pb.InsertRequest.FromString(request) == pb.InsertRequest(episodes=MESSAGES, table=table)


def test_episodes_are_taken_out_wherever_they_are():
    response = pb.SampleResponse(
        batch=2**60, episodes=MESSAGES, end_of_batch=True, indices=[1, 2], importance=[0.5, 1.0]
    )
    raw = response.SerializeToString()
    mixed = raw + pb.SampleResponse(episodes=MESSAGES[:1]).SerializeToString()
    episodes, others = wire.take_episodes(mixed, EPISODES_FIELD, most=6)
    expected = [episode_from_proto(message) for message in (*MESSAGES, MESSAGES[0])]
    assert [wire.read_episode(episode) for episode in episodes] == expected
    response.ClearField("episodes")
    assert pb.SampleResponse.FromString(others) == response


def test_what_says_how_episodes_were_drawn_may_stand_beside_each():
    drawn = pb.SampleResponse(indices=[2**60], importance=[0.5]).SerializeToString()
    episode = pb.SampleResponse(episodes=MESSAGES[:1]).SerializeToString()
    head = pb.SampleResponse(batch=7, end_of_batch=True, limiter=pb.LIMITER_HOLDS).SerializeToString()
    episodes, others = wire.take_episodes(head + 1000 * (episode + drawn), EPISODES_FIELD, most=1000)
    assert len(episodes) == len(pb.SampleResponse.FromString(others).indices) == 1000


@pytest.mark.parametrize(
    ("piece", "problem"),
    [
        (b"\x12\x00", "episodes: are more than 3"),
        (b"\x08\x00", "message: has more fields"),
        (b"\x08\x00\x12\x00", "episodes: are more than 3"),
        (b"\x3a\x00", "message: has more fields"),
    ],
)
def test_a_message_of_many_small_fields_is_not_read_to_its_end(piece, problem):
    """16 million fields: to read them all would take half a minute, and a list of them gigabytes."""
    message = piece * (2**25 // len(piece)) + b"\x0b"  # ends with what is no field
    with pytest.raises(CodecError, match=problem):
        wire.take_episodes(message, EPISODES_FIELD, most=3)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**64 - 1])
def test_numbers(number):
    raw = wire.varint(number)
    assert wire.read_varint(b"x" + raw + b"y", 1) == (number, 1 + len(raw))
    with pytest.raises(CodecError):
        wire.read_varint(raw[:-1], 0)


@pytest.mark.parametrize(
    "message",
    [
        MESSAGES[0].SerializeToString()[:-1],
        MESSAGES[0].SerializeToString() + b"\x08",
        MESSAGES[0].SerializeToString() + MESSAGES[1].SerializeToString(),
        pb.Episode(payload=b"x").SerializeToString() + pb.Episode(meta=MESSAGES[0].meta).SerializeToString(),
        b"\x0a\x05abcde",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a" + b"\xff" * 11,
    ],
)
def test_what_is_not_meta_and_payload_is_no_episode(message):
    with pytest.raises(CodecError):
        wire.read_episode(message)


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x02a", b"\x0d\x00", b"\x0b\x0c", b"\x08" + b"\x80" * 10])
def test_what_has_no_fields_is_no_message(message):
    with pytest.raises(CodecError, match="message: "):
        wire.take_episodes(message, 1, most=5)


@given(
    st.binary(max_size=60) | st.builds(lambda cut: MESSAGES[0].SerializeToString()[:cut], st.integers(0, 90))
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_garbage_is_read_or_refused(data):
    for read in (wire.read_episode, lambda message: wire.take_episodes(message, 1, most=5)):
        try:
            read(data)
        except CodecError as error:
            assert str(error).partition(":")[0].isidentifier()
