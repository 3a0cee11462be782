"""A small replay service over real gRPC that follows the protocol's rules and breaks them when told to."""

import contextlib
import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field

import grpc

from common import codec, payload
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayServicer, add_ReplayServicer_to_server
from tests.episodes import SPEC, make_episode

BATCH_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Ends one stream: after `batches` whole batches and `messages` of the next, with this status."""

    batches: int = 0
    messages: int = 0
    code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    """None: the handler waits until the client's deadline is over or the client cancels."""


def batch_episodes(number: int) -> list[pb.Episode]:
    """The episodes of batch `number`; every number has its own."""
    lengths = [1 + (number + 3 * i) % SPEC.episode_limit for i in range(BATCH_SIZE)]
    episodes = [make_episode(length=n, seq=number * BATCH_SIZE + i + 1) for i, n in enumerate(lengths)]
    return [codec.episode_to_proto(payload.encode_episode(episode)) for episode in episodes]


@dataclass
class ReplayDouble(ReplayServicer):
    """Gives `total_batches` batches, two messages each; `faults` are taken one per stream."""

    total_batches: int = 10
    faults: deque[Fault] = field(default_factory=deque)
    publish_faults: deque[grpc.StatusCode] = field(default_factory=deque)
    hold: threading.Event | None = None
    """Set: the rate limiter lets a batch go, which it holds until then."""
    hold_before: tuple[int, int] = (0, 0)
    """Number of that batch, and how many of its messages are sent before."""
    edit: dict[int, list[pb.SampleResponse]] = field(default_factory=dict)
    """Messages sent in place of a batch's own."""
    opened: list[int] = field(default_factory=list)
    """consumed_batches of every stream."""
    consumed: list[int] = field(default_factory=list)
    """consumed_batches of every request after an opening."""
    published: list[pb.Weights] = field(default_factory=list)
    status: pb.GetStatusResponse = field(
        default_factory=lambda: pb.GetStatusResponse(spec=codec.spec_to_proto(SPEC))
    )
    priorities: list[pb.UpdatePrioritiesRequest] = field(default_factory=list)
    priority_faults: deque[grpc.StatusCode] = field(default_factory=deque)
    priority_gate: threading.Event = field(default_factory=threading.Event)
    """Updates of priorities wait for it; set from the start."""
    evaluations: list[pb.Evaluation] = field(default_factory=list)
    publish_gate: threading.Event = field(default_factory=threading.Event)
    """Publications wait for it; set from the start."""

    def __post_init__(self):
        self.publish_gate.set()
        self.priority_gate.set()
        self.changed = threading.Condition()
        self.out_of_credits = []
        """Batches that had been sent each time a stream had used up its credits."""
        self.ended = False
        """Whether a stream has been sent to its end."""
        self.publishing = threading.Event()
        self.status_calls = 0
        self.looks = 0
        """Calls of ListEvaluations."""

    def Sample(self, requests, context):
        first = next(requests)
        client = _Client(requests, first, self)
        context.add_callback(client.credits.release)
        with self.changed:
            self.opened.append(first.open.consumed_batches)
            self.changed.notify_all()
            fault = self.faults.popleft() if self.faults else None
        number = first.open.consumed_batches
        for sent in range(self.total_batches - number):
            self._await_credit(client.credits, sent)
            if not context.is_active():
                return
            if client.problem:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, client.problem)
            messages = self.edit.get(number + sent) or self._messages(number + sent)
            if fault is not None and sent == fault.batches:
                yield from messages[: fault.messages]
                if fault.code is None:
                    ended = threading.Event()
                    if context.add_callback(ended.set):
                        ended.wait()
                    return
                context.abort(fault.code, "as told")
            for message in self._holding(number + sent, messages):
                client.sent += message.end_of_batch
                yield message
        yield pb.SampleResponse(end_of_run=True)
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _holding(self, number, messages):
        held, ahead = self.hold_before
        if self.hold is None or number != held:
            yield from messages
            return
        yield pb.SampleResponse(limiter=pb.LIMITER_HOLDS)
        yield from messages[:ahead]
        self.hold.wait()
        yield pb.SampleResponse(limiter=pb.LIMITER_LETS_GO)
        yield from messages[ahead:]

    def _await_credit(self, credits, sent):
        if not credits.acquire(blocking=False):
            with self.changed:
                self.out_of_credits.append(sent)
                self.changed.notify_all()
            credits.acquire()

    def _messages(self, number):
        episodes = batch_episodes(number)
        return [
            pb.SampleResponse(batch=number, episodes=episodes[:1]),
            pb.SampleResponse(batch=number, episodes=episodes[1:], end_of_batch=True),
        ]

    def UpdatePriorities(self, request, context):
        self.priority_gate.wait()
        with self.changed:
            if self.priority_faults:
                context.abort(self.priority_faults.popleft(), "as told")
            self.priorities.append(request)
            self.changed.notify_all()
        return pb.UpdatePrioritiesResponse()

    def GetStatus(self, request, context):
        with self.changed:
            self.status_calls += 1
            self.changed.notify_all()
            return self.status

    def PublishWeights(self, request, context):
        self.publishing.set()
        self.publish_gate.wait()
        with self.changed:
            if self.publish_faults:
                context.abort(self.publish_faults.popleft(), "as told")
            self.published.append(request.weights)
            self.changed.notify_all()
        return pb.PublishWeightsResponse()

    def ListEvaluations(self, request, context):
        with self.changed:
            self.looks += 1
            self.changed.notify_all()
            return pb.ListEvaluationsResponse(evaluations=self.evaluations)

    def wait_for(self, predicate):
        """Waits until a call has made `predicate` true."""
        with self.changed:
            assert self.changed.wait_for(predicate, timeout=60)


class _Client(threading.Thread):
    """Follows what the client of a stream says after its opening."""

    def __init__(self, requests, first, double):
        super().__init__(daemon=True)
        self.requests, self.double = requests, double
        self.credits = threading.Semaphore(first.credits)
        self.sent = first.open.consumed_batches
        """Number of the next batch."""
        self.problem = ""
        """What the client has said that the protocol does not allow."""
        self.start()

    def run(self):
        with contextlib.suppress(Exception):  # gRPC raises a bare Exception when the stream has ended
            for request in self.requests:
                self._heed(request)

    def _heed(self, request):
        if request.consumed_batches > self.sent:
            self.problem = f"consumed_batches: {request.consumed_batches}, but {self.sent} were sent"
        with self.double.changed:
            self.double.consumed.append(request.consumed_batches)
            self.double.changed.notify_all()
        if request.credits or self.problem:
            self.credits.release(max(1, request.credits))


@contextlib.contextmanager
def serving(servicer, address="127.0.0.1:0"):
    """Serves until the block ends; yields the client's settings."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    add_ReplayServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield RpcSettings(address=f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()
