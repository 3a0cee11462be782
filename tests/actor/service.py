"""A real replay service in a thread, a learner that only pretends, and a proxy that breaks connections."""

import asyncio
import contextlib
import queue
import socket
import threading
from pathlib import Path

import torch

from common import rpc
from common.agent import AgentNetwork, pack_weights
from common.codec import spec_to_proto, weights_to_proto
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub
from replay.server import serve
from replay.settings import ReplaySettings

TIMEOUT_S = 30.0


class Service:
    """What tests ask of the service, past the code under test."""

    def __init__(self, address):
        self.settings = RpcSettings(address=address)
        self.channel = rpc.channel(self.settings)
        self.stub = ReplayStub(self.channel)

    def register(self, spec):
        self.stub.RegisterSpec(pb.RegisterSpecRequest(spec=spec_to_proto(spec)), timeout=TIMEOUT_S)

    def status(self):
        return self.stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)

    def publish(self, weights):
        request = pb.PublishWeightsRequest(weights=weights_to_proto(weights))
        self.stub.PublishWeights(request, timeout=TIMEOUT_S)

    def evaluations(self):
        return list(self.stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=TIMEOUT_S).evaluations)

    def until(self, predicate):
        """Asks for the status until it is as wanted; the test's time limit ends it otherwise."""
        while not predicate(status := self.status()):
            pass
        return status


@contextlib.contextmanager
def replay_service(*, total_env_steps=10**9, batch_size=4, seed=1, **settings):
    """Serves from memory; by default the rate limiter never holds anything back."""
    settings = {"redis_url": "memory://", "samples_per_insert": 1, "insert_lead_episodes": 10**6} | settings
    stop, addresses = StopSignal(), queue.SimpleQueue()
    serving = serve(
        ReplaySettings(**settings),
        RpcSettings(address="127.0.0.1:0"),
        seed=seed,
        total_env_steps=total_env_steps,
        batch_size=batch_size,
        data_dir=Path("unused"),
        stop=stop,
        on_ready=addresses.put,
    )
    thread = threading.Thread(target=asyncio.run, args=(serving,), daemon=True)
    thread.start()
    service = Service(addresses.get(timeout=TIMEOUT_S))
    try:
        with service.channel:
            yield service
    finally:
        stop.set()
        thread.join(TIMEOUT_S)


class LockstepLearner:
    """Takes batches as a learner does and publishes after each; its weights depend on what it was given."""

    def __init__(self, service, spec, agent, *, batch_size):
        self.batches = []
        """Per batch the payloads of its episodes."""
        self._service, self._spec, self._agent, self._batch_size = service, spec, agent, batch_size
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self):
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def _run(self):
        requests = queue.SimpleQueue()
        opening = pb.SampleOpen(batch_size=self._batch_size, consumed_batches=0)
        requests.put(pb.SampleRequest(open=opening, credits=1))
        episodes = []
        for response in self._service.stub.Sample(iter(requests.get, None), timeout=TIMEOUT_S):
            episodes += response.episodes
            if response.end_of_batch:
                self.batches.append([episode.payload for episode in episodes])
                self._service.publish(self._weights(len(self.batches), episodes))
                episodes = []
                requests.put(pb.SampleRequest(credits=1))
        requests.put(None)

    def _weights(self, version, episodes):
        network = AgentNetwork(self._spec, self._agent)
        drawn = torch.Generator().manual_seed(sum(sum(episode.payload) for episode in episodes))
        for parameter in network.parameters():
            parameter.data.normal_(generator=drawn)  # one number for all would make every action equally good
        return pack_weights(network, session="learner", version=version)


class Proxy:
    """Stands before the service. `deaf` throws the service's answers away; sever() breaks all connections."""

    def __init__(self, target):
        host, port = target.split(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = []
        self._lock = threading.Lock()
        self.connections = 0
        self.deaf = False
        self.settings = RpcSettings(address=f"127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def sever(self):
        self.deaf = False
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.sever()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                with self._lock:
                    self.connections += 1
                    self._sockets += [near, far]
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source, sink, answers):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not (answers and self.deaf):
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy_to(service):
    proxy = Proxy(service.settings.address)
    try:
        yield proxy
    finally:
        proxy.close()


def unused_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"
