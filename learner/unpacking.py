"""A thread that unpacks batches in their order, beside training and beside the arrival of the next."""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from common.background import Background
from common.errors import FatalError
from common.payload import CodecError
from common.types import EnvSpec
from learner.assembling import ReceivedBatch
from learner.batching import EpisodeBatch, Layout, decode_batch
from learner.prioritised import Sampling


class Unpacker:
    """Hands every batch that it was given to `on_batch`, with the seconds that it took to unpack."""

    def __init__(
        self,
        spec: EnvSpec,
        address: str,
        *,
        pin_memory: bool,
        on_batch: Callable[[EpisodeBatch, float], None],
        on_end: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._address = address
        self._pin_memory = pin_memory
        self._on_batch = on_batch
        self._packed: queue.SimpleQueue[ReceivedBatch | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = Background("batch-unpacker", self._run, on_end=on_end)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether no batch will come any more."""
        return self._thread.ended

    def check(self) -> None:
        """Raises FatalError if a batch could not be unpacked."""
        self._thread.check()

    def put(self, received: ReceivedBatch) -> None:
        """Takes a batch. Does not wait: the service sends no more than its client has given credits for."""
        self._packed.put(received)

    def close(self) -> None:
        """Gives up what is not unpacked. May be called twice."""
        self._closing.set()
        self._packed.put(None)
        self._thread.join()

    def _run(self) -> None:
        for received in iter(self._packed.get, None):
            if self._closing.is_set():
                return
            began = time.perf_counter()
            try:
                batch = unpack(received, self._spec, pin_memory=self._pin_memory)
            except CodecError as error:
                raise FatalError(
                    f"the replay service at {self._address} sent an unusable batch: {error}"
                ) from error
            self._on_batch(batch, time.perf_counter() - began)


def unpack(received: ReceivedBatch, spec: EnvSpec, *, pin_memory: bool) -> EpisodeBatch:
    """The batch's episodes in arrays. Raises CodecError for a payload that does not fit the spec."""
    batch = decode_batch(received.episodes, spec, pin_memory=pin_memory)
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
