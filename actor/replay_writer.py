"""Sends episodes to the replay service beside play, so that each arrives once.

    put() -> outbox -> packing thread -> groups -> sending thread -> acknowledged

A group is kept until it is acknowledged. When the stream breaks or its deadline passes, the next one sends
all kept groups again, in order; the service knows by (session, seq) what it has stored already.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from actor.outbox import Group, Outbox
from actor.settings import ActorSettings
from common import rpc
from common.background import Background, cancel, reason, retrying, worth_retrying
from common.codec import counters_from_proto
from common.errors import FatalError
from common.labels import label, labelled
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import Counters, Episode
from protos import replay_pb2 as pb

log = logging.getLogger(__name__)

GROUP_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterStats:
    """What the writer has done since it was made."""

    stored: int
    duplicates: int
    """Episodes that the service had stored already when they were sent again."""
    invalid: int
    sent_bytes: int
    """Payloads of the acknowledged episodes."""
    streams: int
    """Streams opened."""
    held: int
    """Episodes that are not acknowledged yet."""
    held_bytes: int
    wait_s: float
    """Time that play has waited for room: for the rate limiter, or for a service that is slow."""
    pack_s: float
    """Time spent packing episodes, beside play."""


class _Stream:
    """One Insert call's place in the row of groups."""

    def __init__(self) -> None:
        self.sent = -1
        self.over = False


class ReplayWriter:
    """put() waits while the queue is full: that is how the service's rate limiter slows play down."""

    def __init__(
        self,
        channel: grpc.Channel,
        settings: ActorSettings,
        rpc_settings: RpcSettings,
        *,
        stop: StopSignal,
        imports: bool = False,
    ) -> None:
        """`imports`: the episodes are a data set's (see Import in the protocol)."""
        self._insert = channel.stream_stream(
            rpc.method("Import" if imports else "Insert"),
            request_serializer=bytes,  # as it is: the outbox has serialised it
            response_deserializer=pb.InsertResponse.FromString,
        )
        self._rpc = rpc_settings
        self._stop = stop
        self._closing = threading.Event()
        self._outbox = Outbox(
            table=settings.table,
            max_episodes=settings.queue_episodes,
            max_bytes=settings.queue_bytes,
            group_bytes=min(GROUP_BYTES, rpc_settings.max_message_bytes // 2),
            half=settings.encoding == "half",
        )
        self._changed = self._outbox.changed  # guards everything below too
        self._stored = self._duplicates = self._invalid = self._sent_bytes = self._streams = 0
        self._wait_s = 0.0
        self._counters = Counters()
        self._run_complete = False
        self._refusal: FatalError | None = None
        self._call: grpc.Call | None = None
        self._threads = [
            Background("episode-packer", self._outbox.pack_groups, on_end=self._wake),
            Background("replay-writer", self._send, on_end=self._wake),
        ]
        for thread in self._threads:
            thread.start()
        stop.call_when_set(self._wake)

    @property
    def counters(self) -> Counters:
        """The run's counters at the last acknowledgement."""
        return self._counters

    @property
    def run_complete(self) -> bool:
        """Whether the service has said that the run has all its steps."""
        return self._run_complete

    @labelled("wait for room in the queue")
    def put(self, episode: Episode) -> bool:
        """Takes an episode as soon as there is room, or without room once the process was asked to stop: then
        the answer is false, and only what has been played already is to follow.

        Raises FatalError when the service refuses our episodes.
        """
        outbox = self._outbox
        began = time.perf_counter()
        with self._changed:
            self._changed.wait_for(
                lambda: outbox.has_room(episode) or self._stop.is_set() or self._thread_ended()
            )
            self._wait_s += time.perf_counter() - began
            self._check()
            room = outbox.has_room(episode)
            outbox.add(episode)
            return room

    def drain(self, timeout_s: float) -> bool:
        """Waits until every episode is acknowledged; false when the time is over before that."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox.held == 0 or self._thread_ended(), timeout_s)
            self._check()
            return self._outbox.held == 0

    def stats(self) -> WriterStats:
        """Figures since the start."""
        with self._changed:
            return WriterStats(
                stored=self._stored,
                duplicates=self._duplicates,
                invalid=self._invalid,
                sent_bytes=self._sent_bytes,
                streams=self._streams,
                held=self._outbox.held,
                held_bytes=self._outbox.held_bytes,
                wait_s=self._wait_s,
                pack_s=self._outbox.pack_s,
            )

    def close(self) -> None:
        """Gives up what is not acknowledged. May be called twice."""
        self._closing.set()
        self._outbox.close()
        with self._changed:
            call = self._call
        if call is not None:
            cancel(call)
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _thread_ended(self) -> bool:
        return any(thread.ended for thread in self._threads)

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        for thread in self._threads:
            thread.check()

    def _send(self) -> None:
        retry = retrying(self._closing, "sending episodes", self._rpc)
        try:
            while self._next_group(after=-1) is not None:
                retry(self._use_one_stream)
        except grpc.RpcError as error:
            raise FatalError(
                f"The replay service at {self._rpc.address} refuses our episodes: {rpc.describe(error)}."
            ) from error

    def _next_group(self, *, after: int, stream: _Stream | None = None) -> Group | None:
        """Waits for a group behind `after`; None when the writer closes or the stream is over."""

        def over() -> bool:
            return self._outbox.closed or (stream is not None and stream.over)

        with self._changed:
            self._outbox.grouped.wait_for(lambda: over() or self._outbox.next_after(after) is not None)
            return None if over() else self._outbox.next_after(after)

    def _use_one_stream(self) -> None:
        """Sends and reads until the stream ends. Raises what is worth trying again if nothing came back."""
        stream = _Stream()
        call = self._open(stream)
        answered = False
        try:
            for response in call:
                self._accept(response)
                answered = True
            if not answered:
                raise ConnectionError("the service closed the stream")
        except (grpc.RpcError, ConnectionError) as error:
            if self._closing.is_set():
                return
            if not answered or not worth_retrying(error):
                raise
            log.info("sending episodes: the stream ended (%s); opening a new one", reason(error))
        finally:
            with self._changed:
                stream.over = True
                self._outbox.grouped.notify_all()  # ends _requests in gRPC's sending thread
            cancel(call)

    def _open(self, stream: _Stream) -> "grpc.CallIterator[pb.InsertResponse]":
        with self._changed:
            call = self._insert(self._requests(stream), timeout=self._rpc.stream_timeout_s)
            self._call = call
            self._streams += 1
            if self._closing.is_set():
                cancel(call)
            return call

    def _requests(self, stream: _Stream) -> Iterator[bytes]:
        """All groups that are not acknowledged, from the oldest on, then every new one."""
        while (group := self._next_group(after=stream.sent, stream=stream)) is not None:
            stream.sent = group.number
            with label("sending"):  # until gRPC asks for the next one
                yield group.request

    def _accept(self, response: pb.InsertResponse) -> None:
        """Answers come in the order of the requests, so each is for the oldest group."""
        with self._changed:
            try:
                group = self._outbox.acknowledge([result.seq for result in response.results])
            except ValueError as error:
                raise FatalError(
                    f"The replay service at {self._rpc.address} broke the protocol ({error}); "
                    "use the same version of vdfd for all parts."
                ) from error
            self._sent_bytes += group.payload_bytes
            self._counters = counters_from_proto(response.counters)
            self._tally(response)
            self._changed.notify_all()
            self._check()

    def _tally(self, response: pb.InsertResponse) -> None:
        outcomes = [result.outcome for result in response.results]
        self._stored += outcomes.count(pb.INSERT_OUTCOME_STORED)
        self._duplicates += outcomes.count(pb.INSERT_OUTCOME_DUPLICATE)
        if response.counters.run_complete or pb.INSERT_OUTCOME_RUN_COMPLETE in outcomes:
            self._run_complete = True
        invalid = [result for result in response.results if result.outcome == pb.INSERT_OUTCOME_INVALID]
        self._invalid += len(invalid)
        for result in invalid:
            log.error("episode %d is invalid: %s", result.seq, result.message)
        if invalid:
            # Kept, so that a drain() that this answer completes does not miss it.
            self._refusal = FatalError(
                f"The replay service at {self._rpc.address} calls an episode of ours invalid "
                f"({invalid[0].message}); use the same version of vdfd for all parts."
            )
