"""A replay service in the test's own event loop, behind a real port, and a client for it."""

import asyncio
import dataclasses
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import pytest

from common import codec, payload, rpc
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub
from replay.server import serve
from replay.settings import ReplaySettings
from tests.episodes import SPEC, make_episode

BATCH_SIZE = 4
NO_END = 10**9
TIMEOUT_S = 30.0


def message(seq=1, *, session="session-1", length=5, **meta) -> pb.Episode:
    episode = make_episode(SPEC, seq=seq, session=session, length=length, **meta)
    return codec.episode_to_proto(payload.encode_episode(episode))


@contextmanager
def refused(code: grpc.StatusCode, beginning=""):
    """The call inside ends with this status, and with a message that begins so."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    assert (raised.value.code(), raised.value.details()[: len(beginning)]) == (code, beginning)


class Client:
    """The stub and short forms of what most tests do."""

    def __init__(self, address: str, settings: RpcSettings = RpcSettings()) -> None:  # noqa: B008
        self.address = address
        self.channel = rpc.aio_channel(settings.model_copy(update={"address": address}))
        self.stub = ReplayStub(self.channel)

    async def register(self, spec=SPEC):
        await self.stub.RegisterSpec(
            pb.RegisterSpecRequest(spec=codec.spec_to_proto(spec)), timeout=TIMEOUT_S
        )

    async def status(self) -> pb.GetStatusResponse:
        return await self.stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)

    def inserting(self) -> "Inserting":
        return Inserting(self.stub.Insert(timeout=TIMEOUT_S))

    def sampling(self) -> "Sampling":
        return Sampling(self.stub.Sample(timeout=TIMEOUT_S))

    async def insert(self, *episodes: pb.Episode, table="") -> pb.InsertResponse:
        stream = self.inserting()
        await stream.send(*episodes, table=table)
        response = await stream.receive()
        await stream.end()
        return response

    async def publish(self, version, *, session="learner-1", data=b"weights"):
        weights = pb.Weights(session=session, version=version, data=data)
        await self.stub.PublishWeights(pb.PublishWeightsRequest(weights=weights), timeout=TIMEOUT_S)

    async def fetch(self, **request) -> pb.FetchWeightsResponse:
        return await self.stub.FetchWeights(pb.FetchWeightsRequest(**request), timeout=TIMEOUT_S)

    async def claim(self, wait_ms=0) -> pb.ClaimEvaluationResponse:
        request = pb.ClaimEvaluationRequest(evaluator="evaluator", wait_ms=wait_ms)
        return await self.stub.ClaimEvaluation(request, timeout=TIMEOUT_S)

    async def report(self, env_steps, *, wins=1, **fields):
        fields = {"weights_version": 1, "episodes": 2, "mean_return": 3.5, "mean_length": 4.0} | fields
        evaluation = pb.Evaluation(env_steps=env_steps, wins=wins, **fields)
        await self.stub.ReportEvaluation(pb.ReportEvaluationRequest(evaluation=evaluation), timeout=TIMEOUT_S)

    async def evaluations(self) -> list[pb.Evaluation]:
        response = await self.stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=TIMEOUT_S)
        return list(response.evaluations)


class Inserting:
    """One Insert stream."""

    def __init__(self, call) -> None:
        self.call = call

    async def send(self, *episodes, table=""):
        await self.call.write(pb.InsertRequest(episodes=episodes, table=table))

    async def receive(self) -> pb.InsertResponse:
        response = await self.call.read()
        assert isinstance(response, pb.InsertResponse), "the stream ended"
        return response

    async def end(self):
        await self.call.done_writing()
        assert await self.call.code() == grpc.StatusCode.OK


@dataclasses.dataclass
class Sampled:
    number: int
    ids: list[tuple[str, int]]
    responses: list[pb.SampleResponse]


class Sampling:
    """One Sample stream."""

    def __init__(self, call) -> None:
        self.call = call
        self.limiter = []
        """What the service has said about the rate limiter, as values of Limiter."""

    async def open(self, *, credits=0, consumed=0, batch_size=BATCH_SIZE, table=""):
        opening = pb.SampleOpen(batch_size=batch_size, consumed_batches=consumed, table=table)
        await self.call.write(pb.SampleRequest(open=opening, credits=credits))

    async def add_credits(self, credits=1, *, consumed=0):
        await self.call.write(pb.SampleRequest(credits=credits, consumed_batches=consumed))

    async def batch(self) -> Sampled | None:
        """The next batch; None at the end of the run."""
        responses = []
        while not (responses and responses[-1].end_of_batch):
            response = await self.call.read()
            assert isinstance(response, pb.SampleResponse), "the stream ended within the run"
            if response.end_of_run:
                return None
            if response.limiter:
                self.limiter.append(response.limiter)
                continue
            responses.append(response)
        ids = [(episode.meta.session, episode.meta.seq) for part in responses for episode in part.episodes]
        return Sampled(responses[0].batch, ids, responses)


@asynccontextmanager
async def serving(
    *,
    total_env_steps=NO_END,
    batch_size=BATCH_SIZE,
    seed=1,
    data_dir=Path("unused"),
    rpc_settings=RpcSettings(address="127.0.0.1:0"),  # noqa: B008 - it is frozen
    client_settings=RpcSettings(),  # noqa: B008
    **changes,
):
    """A client of a service with these settings; memory:// unless they say otherwise."""
    settings = ReplaySettings(**{"redis_url": "memory://", "samples_per_insert": 1, **changes})
    stop, ready = StopSignal(), asyncio.get_running_loop().create_future()
    service = asyncio.create_task(
        serve(
            settings,
            rpc_settings,
            seed=seed,
            total_env_steps=total_env_steps,
            batch_size=batch_size,
            data_dir=data_dir,
            stop=stop,
            on_ready=ready.set_result,
        )
    )
    await asyncio.wait((service, ready), return_when=asyncio.FIRST_COMPLETED)
    if service.done():
        service.result()
    client = Client(ready.result(), client_settings)
    client.stop, client.service = stop, service
    try:
        yield client
    finally:
        await client.channel.close()
        stop.set()
        await service
