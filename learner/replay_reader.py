"""Batches from the replay service, fetched and decoded ahead of training.

A thread keeps one Sample stream open. Credits bound what may be on its way: the service may send batches
with numbers below `trained + window`, and each batch that was trained on adds one credit. That bounds memory
too, since a batch has a fixed number of episodes and an episode a greatest length. When a stream breaks, the
next one says how many batches were really trained on. The service then gives those again that were received
and still wait here; they are known by their numbers and dropped, so training sees every number once and in
order. Until it has given a batch again, the service is not told that it was trained on meanwhile: it counts
what each stream was sent, and refuses a higher number. A batch that the service sends ahead while its rate
limiter holds is unpacked at once and kept aside until it is released.
"""

import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import torch

from common import rpc
from common.background import Background, cancel, reason, retrying, worth_retrying
from common.errors import FatalError
from common.payload import CodecError
from common.settings import RpcSettings
from common.types import EnvSpec
from learner.assembling import BadBatchError, BatchPart, ReceivedBatch, Release, assemble_batches, read_part
from learner.batching import EpisodeBatch, Layout, decode_batch
from learner.data_waits import DataWaits
from learner.prioritised import Sampling
from protos import replay_pb2 as pb

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReaderStats:
    """What the reader has done since it was made."""

    batches: int
    """Batches handed out for training."""
    received_bytes: int
    """Payloads of all batches, dropped ones included."""
    wait_s: float
    """How long training has waited for batches."""
    limiter_wait_s: float
    """The part of it in which the service's rate limiter let no batch go: actors are too few or too slow."""
    decode_s: float
    """Time spent unpacking batches, beside training."""
    streams: int
    """Streams opened."""


class ReplayReader:
    """An iterator over batches. It ends when the run is complete (see `run_complete`) or after close()."""

    def __init__(
        self,
        channel: grpc.Channel,
        settings: RpcSettings,
        spec: EnvSpec,
        *,
        batch_size: int,
        prefetch_batches: int,
        consumed_batches: int = 0,
        table: str = "",
        pin_memory: bool = False,
    ) -> None:
        self._sample = channel.stream_stream(
            rpc.method("Sample"),
            request_serializer=pb.SampleRequest.SerializeToString,
            response_deserializer=bytes,  # as it is: read_part takes it apart
        )
        self._settings = settings
        self._spec = spec
        self._batch_size = batch_size
        self._table = table
        self._pin_memory = pin_memory
        self._window = prefetch_batches + 1  # one more is being trained on
        self._closing = threading.Event()
        self._ahead: EpisodeBatch | None = None
        """Whole, and not released; the reading thread's."""
        self._changed = threading.Condition()  # guards everything below
        self._ready: deque[EpisodeBatch] = deque()
        self._trained = consumed_batches
        self._received = consumed_batches
        self._brought = consumed_batches
        """Number of the next batch of the open stream; the service may be told of those before it."""
        self._in_training = False
        self._run_complete = False
        self._requests: queue.SimpleQueue[pb.SampleRequest | None] = queue.SimpleQueue()
        self._call: grpc.Call | None = None
        self._batches, self._received_bytes, self._decode_s, self._streams = 0, 0, 0.0, 0
        self._waits = DataWaits()
        self._thread = Background("replay-reader", self._run, on_end=self._wake)
        self._thread.start()

    @property
    def run_complete(self) -> bool:
        """Whether every batch of the run has been handed out."""
        return self._run_complete and not self._ready

    def __iter__(self) -> Iterator[EpisodeBatch]:
        return self

    def __next__(self) -> EpisodeBatch:
        """The next batch; asking for it says that the one before has been trained on.

        Raises FatalError when no batch can come any more although the run is not complete.
        """
        with self._changed:
            self._count_trained()
            self._waits.waiting(True)
            self._changed.wait_for(lambda: self._ready or self._closing.is_set() or self._thread.ended)
            self._waits.waiting(False)
            if self._ready and not self._closing.is_set():
                self._in_training = True
                self._batches += 1
                return self._ready.popleft()
        self._thread.check()
        raise StopIteration

    def stats(self) -> ReaderStats:
        """Figures since the start."""
        with self._changed:
            limiter_wait_s, path_wait_s = self._waits.stats()
            return ReaderStats(
                batches=self._batches,
                received_bytes=self._received_bytes,
                wait_s=limiter_wait_s + path_wait_s,
                limiter_wait_s=limiter_wait_s,
                decode_s=self._decode_s,
                streams=self._streams,
            )

    def close(self) -> None:
        """Ends the iterator at once, also while it waits in another thread. May be called twice."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            call = self._call
        if call is not None:
            cancel(call)
        self._thread.join()

    def _count_trained(self) -> None:
        if self._in_training:
            self._in_training = False
            self._trained += 1
            self._say_consumed(credits=1)

    def _say_consumed(self, *, credits: int) -> None:
        consumed = min(self._trained, self._brought)
        self._requests.put(pb.SampleRequest(credits=credits, consumed_batches=consumed))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        retry = retrying(self._closing, "fetching batches", self._settings)
        address = self._settings.address
        try:
            while not (self._closing.is_set() or self._run_complete):
                retry(self._read_one_stream)
        except grpc.RpcError as error:
            why = rpc.describe(error)
            raise FatalError(f"the replay service at {address} refuses to send batches: {why}") from error
        except (BadBatchError, CodecError) as error:
            raise FatalError(f"the replay service at {address} sent an unusable batch: {error}") from error

    def _read_one_stream(self) -> None:
        """Reads until the stream ends. Raises what is worth trying again if it brought nothing."""
        call = self._open()
        received_before = self._received
        try:
            for received in assemble_batches(self._heed_limiter(call), self._batch_size):
                if isinstance(received, Release):
                    self._hand_on(self._ahead)
                else:
                    self._take(received)
            self._run_complete = True
        except (grpc.RpcError, ConnectionError) as error:
            if self._closing.is_set() or _deadline_exceeded(error):
                return
            if self._received == received_before or not worth_retrying(error):
                raise
            log.warning("fetching batches: the stream broke (%s); opening a new one", reason(error))
        finally:
            cancel(call)
            self._requests.put(None)  # ends gRPC's sending thread
            self._ahead = None
            with self._changed:
                self._waits.held(False)

    def _open(self) -> "grpc.CallIterator[bytes]":
        with self._changed:
            opening = pb.SampleOpen(
                batch_size=self._batch_size, consumed_batches=self._trained, table=self._table
            )
            self._brought = self._trained
            self._requests = queue.SimpleQueue()
            self._requests.put(pb.SampleRequest(open=opening, credits=self._window))
            timeout = self._settings.stream_timeout_s
            self._call = call = self._sample(iter(self._requests.get, None), timeout=timeout)
            self._streams += 1
            if self._closing.is_set():
                cancel(call)
            return call

    def _heed_limiter(self, messages: Iterable[bytes]) -> Iterator[BatchPart]:
        """Those with episodes; the others say what the rate limiter does."""
        for message in messages:
            part = read_part(message, self._batch_size)
            response = part.response
            if response.limiter == pb.LIMITER_UNSPECIFIED:
                yield part
                continue
            with self._changed:
                self._waits.held(response.limiter == pb.LIMITER_HOLDS)

    def _take(self, received: ReceivedBatch) -> None:
        number = received.number
        if number != self._brought:
            raise BadBatchError(f"number {number} came where {self._brought} was due")
        batch, began = None, time.perf_counter()
        if number == self._received:
            batch = self._decode(received)
        with self._changed:
            self._decode_s += time.perf_counter() - began
            self._received_bytes += received.size_bytes
        if received.released:
            self._hand_on(batch)
        else:
            self._ahead = batch

    def _hand_on(self, batch: EpisodeBatch | None) -> None:
        """Lets training have a batch; None is one that it has had."""
        self._ahead = None
        with self._changed:
            self._brought += 1
            if batch is not None:
                self._ready.append(batch)
                self._received += 1
                self._changed.notify_all()
            elif self._brought <= self._trained:  # with its credit the service could not be told
                self._say_consumed(credits=0)

    def _decode(self, received: ReceivedBatch) -> EpisodeBatch:
        batch = decode_batch(received.episodes, self._spec, pin_memory=self._pin_memory)
        if not received.indices:
            return batch
        lengths_B = np.array([episode.meta.length for episode in received.episodes], dtype=np.int64)
        order_B = Layout.of(lengths_B).order_B
        sampling = Sampling.of(
            tuple(received.indices[position] for position in order_B),
            torch.tensor(received.importance)[order_B],
            batch.row_sizes_T,
        )
        return dataclasses.replace(batch, sampling=sampling)


def _deadline_exceeded(error: BaseException) -> bool:
    return isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
