"""Training sees every batch once and in order, whatever happens to the streams."""

import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import torch

from common import rpc
from common.codec import episode_from_proto
from common.errors import FatalError
from learner.batching import decode_batch
from learner.replay_reader import ReplayReader
from protos import replay_pb2 as pb
from tests.episodes import SPEC
from tests.learner.replay_double import BATCH_SIZE, Fault, ReplayDouble, batch_episodes, serving

PREFETCH = 2


@contextlib.contextmanager
def reading(settings, *, consumed=0, prefetch=PREFETCH):
    with rpc.channel(settings) as channel:
        reader = ReplayReader(
            channel,
            settings,
            SPEC,
            batch_size=BATCH_SIZE,
            prefetch_batches=prefetch,
            consumed_batches=consumed,
        )
        try:
            yield reader
        finally:
            reader.close()


def assert_is_batch(batch, number):
    expected = decode_batch([episode_from_proto(e) for e in batch_episodes(number)], SPEC)
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(getattr(batch, name), tensor, rtol=0, atol=0)


def assert_reads_all(reader, numbers):
    numbers = list(numbers)
    batches = list(reader)
    assert len(batches) == len(numbers)
    for batch, number in zip(batches, numbers, strict=True):
        assert_is_batch(batch, number)
    assert reader.run_complete


def test_batches_come_in_order_until_the_run_is_complete():
    with serving(ReplayDouble()) as settings, reading(settings) as reader:
        assert_reads_all(reader, range(10))
        stats = reader.stats()
        assert (stats.batches, stats.streams) == (10, 1)
        payloads = sum(len(e.payload) for number in range(10) for e in batch_episodes(number))
        assert stats.received_bytes == payloads


def test_a_wait_for_the_rate_limiter_is_told_apart():
    double = ReplayDouble(hold=threading.Event())
    with serving(double) as settings, reading(settings) as reader, ThreadPoolExecutor() as pool:
        first = pool.submit(next, reader)
        while reader.stats().limiter_wait_s == 0:  # becomes true while training waits, not after it
            assert not first.done()
        double.hold.set()
        assert_is_batch(first.result(), 0)
        limited_s = reader.stats().limiter_wait_s
        assert_reads_all(reader, range(1, 10))
        stats = reader.stats()
        assert stats.limiter_wait_s == limited_s <= stats.wait_s
        assert stats.decode_s > 0


def test_a_resumed_learner_goes_on_with_its_next_batch():
    with serving(ReplayDouble()) as settings, reading(settings, consumed=7) as reader:
        assert_reads_all(reader, range(7, 10))


@pytest.mark.parametrize("messages", [0, 1])
def test_broken_streams_lose_and_repeat_nothing(messages):
    faults = deque(Fault(batches=batches, messages=messages) for batches in (2, 0, 0, 3, 1))
    double = ReplayDouble(faults=faults)
    with serving(double) as settings, reading(settings) as reader:
        assert_reads_all(reader, range(10))
    assert not faults
    assert len(double.opened) == 6


def test_a_new_stream_says_what_was_trained_on_not_what_was_received():
    """Batches 0 to 2 are received; 0 is trained on, 1 is being trained on when the stream breaks."""
    double = ReplayDouble(faults=deque([Fault(batches=3)]))
    with serving(double) as settings, reading(settings) as reader:
        assert_is_batch(next(reader), 0)
        assert_is_batch(next(reader), 1)  # adds the credit with which the service breaks the stream
        double.wait_for(lambda: len(double.opened) == 2)
        assert double.opened == [0, 1]
        assert_reads_all(reader, range(2, 10))


def test_a_new_stream_is_told_only_of_batches_that_it_has_brought():
    """Batch 1 ends its training, and 2 is begun, before the second stream has brought 1 once more."""
    double = ReplayDouble(faults=deque([Fault(batches=3)]), hold=threading.Event(), hold_before=(1, 0))
    double.hold.set()
    with serving(double) as settings, reading(settings) as reader:
        assert_is_batch(next(reader), 0)
        double.wait_for(lambda: double.out_of_credits == [3])
        double.hold.clear()
        assert_is_batch(next(reader), 1)
        double.wait_for(lambda: double.opened == [0, 1])
        assert_is_batch(next(reader), 2)
        double.wait_for(lambda: double.consumed == [1, 1])  # one on each stream, with their credits
        double.hold.set()
        double.wait_for(lambda: double.consumed == [1, 1, 2])  # without this word a full queue would wait on
        assert_reads_all(reader, range(3, 10))


def test_the_service_never_sends_more_than_the_window():
    double = ReplayDouble()
    with serving(double) as settings, reading(settings, prefetch=3) as reader:
        double.wait_for(lambda: double.out_of_credits == [4])
        assert_is_batch(next(reader), 0)
        assert_is_batch(next(reader), 1)
        double.wait_for(lambda: double.out_of_credits == [4, 5])


def test_the_end_of_a_stream_s_time_is_no_error(caplog):
    double = ReplayDouble(faults=deque([Fault(code=None), Fault(batches=1, messages=1, code=None)]))
    with serving(double) as settings:
        hasty = settings.model_copy(update={"stream_timeout_s": 0.3})
        with reading(hasty) as reader:
            assert_is_batch(next(reader), 0)
            assert_is_batch(next(reader), 1)
    assert double.opened[:2] == [0, 0]
    assert len(double.opened) >= 3
    assert caplog.records == []


def test_a_service_that_restarts_is_found_again():
    first, second = ReplayDouble(faults=deque([Fault(batches=3, code=None)])), ReplayDouble()
    with contextlib.ExitStack() as later:
        with serving(first) as settings:
            reader = later.enter_context(reading(settings))
            for number in range(3):
                assert_is_batch(next(reader), number)
        later.enter_context(serving(second, settings.address))
        assert_reads_all(reader, range(3, 10))
    assert second.opened in ([2], [3])  # batch 2 was being trained on, or just had been


def test_a_refusal_is_fatal_and_names_the_reason():
    double = ReplayDouble(faults=deque([Fault(batches=1, code=grpc.StatusCode.INVALID_ARGUMENT)]))
    with serving(double) as settings, reading(settings) as reader:
        assert_is_batch(next(reader), 0)
        with pytest.raises(FatalError, match=rf"{settings.address}.*INVALID_ARGUMENT: as told"):
            next(reader)


def _response(number, episodes, **fields):
    return pb.SampleResponse(batch=number, episodes=episodes, end_of_batch=True, **fields)


def _ahead(number):
    return pb.SampleResponse(batch=number, episodes=batch_episodes(number))


def _truncated(episode):
    short = pb.Episode.FromString(episode.SerializeToString())
    short.payload = short.payload[:-1]
    return short


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([_response(3, batch_episodes(3))], "number 3 came where 2 was due"),
        ([_response(2, batch_episodes(2)[1:])], "number 2 has 3 episodes, not 4"),
        (
            [pb.SampleResponse(batch=2, episodes=batch_episodes(2)[1:]), _response(3, batch_episodes(3))],
            "number 2 ends with 3 of 4 episodes",
        ),
        (
            [
                pb.SampleResponse(batch=2, episodes=batch_episodes(2)[1:]),
                pb.SampleResponse(end_of_run=True),
            ],
            "number 2 ends with 3 of 4 episodes",
        ),
        ([_ahead(2), _ahead(2)], "number 2 has 8 episodes, not 4"),
        ([_ahead(2), _response(3, [])], "number 2 ends with 4 of 4 episodes"),
        ([_response(2, batch_episodes(2), indices=[1, 2])], "has 2 indices and 0 importance weights for 4"),
        ([_response(2, [*batch_episodes(2)[1:], _truncated(batch_episodes(2)[0])])], "payload: "),
    ],
)
def test_an_unusable_batch_is_fatal_after_the_good_ones(messages, problem):
    with serving(ReplayDouble(edit={2: messages})) as settings, reading(settings) as reader:
        assert_is_batch(next(reader), 0)
        assert_is_batch(next(reader), 1)
        with pytest.raises(FatalError, match=problem):
            next(reader)


def test_a_prioritised_batch_says_how_it_was_drawn():
    episodes = batch_episodes(0)
    messages = [
        pb.SampleResponse(batch=0, episodes=episodes[:1], indices=[40], importance=[0.5]),
        pb.SampleResponse(
            batch=0, episodes=episodes[1:], indices=[7, 9, 7], importance=[1.0, 0.25, 0.75], end_of_batch=True
        ),
    ]
    lengths = [episode.meta.length for episode in episodes]
    by_length = sorted(range(BATCH_SIZE), key=lambda place: -lengths[place])
    with serving(ReplayDouble(edit={0: messages})) as settings, reading(settings) as reader:
        batch = next(reader)
        assert next(reader).sampling is None
    assert_is_batch(batch, 0)
    assert batch.sampling.indices_B == tuple((40, 7, 9, 7)[place] for place in by_length)
    importance = torch.tensor([(0.5, 1.0, 0.25, 0.75)[place] for place in by_length])
    for rank, place in enumerate(by_length):
        assert (batch.sampling.episode_P == rank).sum() == lengths[place]
    torch.testing.assert_close(batch.sampling.importance_P, importance[batch.sampling.episode_P])


def test_a_batch_that_was_sent_ahead_waits_unpacked_for_its_release():
    messages = [_ahead(2), pb.SampleResponse(batch=2, end_of_batch=True)]
    double = ReplayDouble(edit={2: messages}, hold=threading.Event(), hold_before=(2, 1))
    size = sum(len(e.payload) for number in range(3) for e in batch_episodes(number))
    with serving(double) as settings, reading(settings) as reader, ThreadPoolExecutor() as pool:
        assert_is_batch(next(reader), 0)
        assert_is_batch(next(reader), 1)
        third = pool.submit(next, reader)
        while reader.stats().received_bytes < size:  # it is here, and unpacked
            assert not third.done()
        decoded_s = reader.stats().decode_s
        assert not third.done()
        double.hold.set()
        assert_is_batch(third.result(), 2)
        assert_reads_all(reader, range(3, 10))
        assert decoded_s > 0


def test_what_was_sent_ahead_is_dropped_with_its_stream():
    ahead = [_ahead(2), pb.SampleResponse(batch=2, end_of_batch=True)]
    double = ReplayDouble(edit={2: ahead}, faults=deque([Fault(batches=2, messages=1)]))
    with serving(double) as settings, reading(settings) as reader:
        assert_reads_all(reader, range(10))
    assert len(double.opened) == 2


def test_what_is_not_released_before_the_end_of_the_run_is_not_trained_on():
    double = ReplayDouble(total_batches=3, edit={2: [_ahead(2)]})
    with serving(double) as settings, reading(settings) as reader:
        assert_reads_all(reader, range(2))


def test_a_run_is_not_complete_while_batches_wait():
    double = ReplayDouble(total_batches=3)
    with serving(double) as settings, reading(settings) as reader:
        double.wait_for(lambda: double.ended)
        assert_is_batch(next(reader), 0)
        reader.close()
        assert list(reader) == []
        assert not reader.run_complete


def test_close_ends_a_reader_that_waits():
    double = ReplayDouble(faults=deque([Fault(batches=1, code=None)]))
    with serving(double) as settings, reading(settings) as reader:
        assert_is_batch(next(reader), 0)
        closing = threading.Thread(target=reader.close)
        closing.start()
        assert list(reader) == []
        assert not reader.run_complete
        closing.join()
        reader.close()


def test_close_ends_a_reader_that_never_reached_the_service():
    with serving(ReplayDouble()) as settings:
        pass
    with reading(settings) as reader:
        closing = threading.Thread(target=reader.close)
        closing.start()
        assert list(reader) == []
        closing.join()
