"""The gRPC servicer that protos/replay.proto specifies: it decodes, calls, and maps exceptions to status."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager

import grpc
import grpc.aio

from common import codec
from common.types import EnvSpec, Weights
from protos import replay_pb2 as pb
from protos import replay_pb2_grpc as pb_grpc
from replay import wire
from replay.admission import (
    checked_batch_number,
    checked_evaluation,
    checked_priorities,
    checked_spec,
    checked_weights,
    read_sample_request,
)
from replay.answers import insert_response, status_response
from replay.errors import InvalidRequestError, StateConflictError, UnavailableError, UnknownTableError
from replay.inserter import Inserter
from replay.read_ahead import read_ahead
from replay.report import Reporter
from replay.sampler import Batch, Credits, Limiter, Release, Sampler
from replay.settings import DEFAULT_TABLE, ReplaySettings
from replay.stats import InsertRecorder
from replay.storage import Storage
from replay.waiting import claim_evaluation, fetch_weights, wait_seconds
from replay.window_reader import read_window

Context = grpc.aio.ServicerContext[object, object]

BATCHES_AHEAD = 1
"""Batches of one stream that are drawn and read while the one before is sent."""


class ReplayService(pb_grpc.ReplayServicer):
    """One replica; it keeps nothing that another one would need."""

    def __init__(
        self,
        storage: Storage,
        inserter: Inserter,
        sampler: Sampler,
        recorder: InsertRecorder,
        reporter: Reporter,
        settings: ReplaySettings,
    ) -> None:
        self._storage = storage
        self._inserter = inserter
        self._sampler = sampler
        self._recorder = recorder
        self._reporter = reporter
        self._settings = settings

    async def RegisterSpec(
        self, request: pb.RegisterSpecRequest, context: Context
    ) -> pb.RegisterSpecResponse:
        """See the protocol."""
        async with _statuses(context):
            spec = checked_spec(request.spec, self._settings.max_episode_bytes)
            held = await self._storage.register_spec(spec)
            _check_same(spec, held)
        return pb.RegisterSpecResponse()

    async def GetStatus(self, _request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """See the protocol."""
        async with _statuses(context):
            spec, status = await self._storage.spec(), await self._storage.status()
        return status_response(spec, status, self._recorder.stats())

    async def Insert(  # type: ignore[override] # bytes in place of messages
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pb.InsertResponse]:
        """See the protocol. Takes serialised InsertRequest messages; `add_to_server` says so to gRPC."""
        async with _statuses(context):
            async for response in self._insert(requests, imported=False):
                yield response

    async def Import(  # type: ignore[override] # bytes in place of messages
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[pb.InsertResponse]:
        """See the protocol. Takes serialised messages, as Insert does."""
        async with _statuses(context):
            async for response in self._insert(requests, imported=True):
                yield response

    async def _insert(
        self, requests: AsyncIterator[bytes], *, imported: bool
    ) -> AsyncIterator[pb.InsertResponse]:
        spec = await self._storage.spec()
        if spec is None:
            raise StateConflictError("no spec is registered; call RegisterSpec first")
        async with aclosing(self._inserter.insert_all(requests, spec, imported=imported)) as answers:
            async for inserted in answers:
                yield insert_response(inserted)

    async def ReadWindow(
        self, request: pb.ReadWindowRequest, context: Context
    ) -> AsyncIterator[pb.ReadWindowResponse]:
        """See the protocol."""
        async with _statuses(context):
            table = self._storage.table(table_name(request.table))
            reading = read_window(table, self._storage.changes, request.begin, request.end)
            async with aclosing(reading) as responses:
                async for response in responses:
                    yield response

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """See the protocol."""
        async with _statuses(context):
            return await self._reporter.report(table_name(request.table))

    async def Sample(  # type: ignore[override] # bytes in place of messages
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        """See the protocol. Takes and yields serialised messages; `add_to_server` says so to gRPC."""
        async with _statuses(context):
            first = read_sample_request(await self._storage.changes.unless_draining(anext(requests, b"")))
            if not first.HasField("open"):
                raise InvalidRequestError("open: the first request opens the stream")
            table = self._storage.table(table_name(first.open.table))
            credits = Credits(first.open.consumed_batches)
            credits.add(first.credits)
            reader = asyncio.ensure_future(_add_credits(requests, credits))
            batches = self._sampler.batches(table, first.open.batch_size, credits)
            ahead = read_ahead(batches, _as_it_is, BATCHES_AHEAD, self._storage.changes)
            try:
                async with aclosing(batches), aclosing(ahead) as items:
                    async for item in items:
                        for response in _sample_responses(item):
                            yield response
                yield wire.end_of_run()
            finally:
                reader.cancel()

    async def UpdatePriorities(
        self, request: pb.UpdatePrioritiesRequest, context: Context
    ) -> pb.UpdatePrioritiesResponse:
        """See the protocol."""
        async with _statuses(context):
            table = self._storage.table(table_name(request.table))
            await table.update_priorities(
                checked_batch_number("batch", request.batch), checked_priorities(request)
            )
        return pb.UpdatePrioritiesResponse()

    async def PublishWeights(
        self, request: pb.PublishWeightsRequest, context: Context
    ) -> pb.PublishWeightsResponse:
        """See the protocol."""
        async with _statuses(context):
            await self._storage.publish_weights(checked_weights(request.weights))
        return pb.PublishWeightsResponse()

    async def FetchWeights(
        self, request: pb.FetchWeightsRequest, context: Context
    ) -> pb.FetchWeightsResponse:
        """See the protocol."""
        async with _statuses(context):
            wait_s = wait_seconds(request.wait_ms)
            have = Weights(session=request.have_session, version=request.have_version)
            weights, counters = await fetch_weights(self._storage, have, request.min_version, wait_s)
        response = pb.FetchWeightsResponse(counters=codec.counters_to_proto(counters))
        if weights.version and not weights.data:
            response.not_modified = True
        else:
            response.weights.CopyFrom(codec.weights_to_proto(weights))
        return response

    async def ClaimEvaluation(
        self, request: pb.ClaimEvaluationRequest, context: Context
    ) -> pb.ClaimEvaluationResponse:
        """See the protocol."""
        async with _statuses(context):
            claim = await claim_evaluation(self._storage, wait_seconds(request.wait_ms))
        if claim.env_steps is None:
            return pb.ClaimEvaluationResponse(run_complete=claim.run_complete)
        return pb.ClaimEvaluationResponse(
            due=True,
            env_steps=claim.env_steps,
            episodes=self._settings.evaluation_episodes,
            lease_s=self._settings.evaluation_lease_s,
            weights=codec.weights_to_proto(claim.weights),
        )

    async def ReportEvaluation(
        self, request: pb.ReportEvaluationRequest, context: Context
    ) -> pb.ReportEvaluationResponse:
        """See the protocol."""
        async with _statuses(context):
            await self._storage.report_evaluation(checked_evaluation(request.evaluation))
        return pb.ReportEvaluationResponse()

    async def ListEvaluations(
        self, _request: pb.ListEvaluationsRequest, context: Context
    ) -> pb.ListEvaluationsResponse:
        """See the protocol."""
        async with _statuses(context):
            evaluations = await self._storage.evaluations()
        return pb.ListEvaluationsResponse(
            evaluations=[codec.evaluation_to_proto(evaluation) for evaluation in evaluations]
        )


def add_to_server(service: ReplayService, server: grpc.aio.Server) -> None:
    """Registers the service, with messages that carry episodes coming and going as the bytes they are."""
    stream = grpc.stream_stream_rpc_method_handler
    answer = pb.InsertResponse.SerializeToString
    handlers = {
        "Insert": stream(service.Insert, request_deserializer=None, response_serializer=answer),
        "Import": stream(service.Import, request_deserializer=None, response_serializer=answer),
        "Sample": stream(service.Sample, request_deserializer=None, response_serializer=None),
    }
    name = pb.DESCRIPTOR.services_by_name["Replay"].full_name
    # Older gRPC takes the first handler that knows a method, newer the one registered last for it.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    pb_grpc.add_ReplayServicer_to_server(service, server)
    server.add_registered_method_handlers(name, handlers)  # type: ignore[attr-defined] # not in the stubs


@asynccontextmanager
async def _statuses(context: Context) -> AsyncIterator[None]:
    """Turns the errors that a call may end with into its status."""
    try:
        yield
    except InvalidRequestError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except UnknownTableError as error:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except StateConflictError as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except UnavailableError as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


async def _as_it_is(item: Batch | Release | Limiter) -> Batch | Release | Limiter:
    return item


def _sample_responses(item: Batch | Release | Limiter) -> Iterable[bytes]:
    match item:
        case Limiter():
            return (wire.limiter(holds=item is Limiter.HOLDS),)
        case Release():
            return (wire.release(item.number),)
        case Batch():
            return wire.batch_responses(item.number, item.blobs, item.draws, released=item.released)


async def _add_credits(requests: AsyncIterator[bytes], credits: Credits) -> None:
    try:
        async for message in requests:
            request = read_sample_request(message)
            if request.HasField("open"):
                raise InvalidRequestError("open: only the first request opens the stream")
            if request.consumed_batches > credits.sent:
                sent = f"{request.consumed_batches}, but {credits.sent} were sent"
                raise InvalidRequestError(f"consumed_batches: {sent}")
            credits.consume(request.consumed_batches)
            credits.add(request.credits)
    except InvalidRequestError as error:
        credits.fail(error)


def table_name(given: str) -> str:
    """The table that a message names."""
    return given or DEFAULT_TABLE


def _check_same(spec: EnvSpec, held: EnvSpec) -> None:
    for field in codec.SPEC_FIELDS:
        given, registered = getattr(spec, field), getattr(held, field)
        if given != registered:
            raise StateConflictError(
                f"{field}: {given!r} differs from the registered spec, which has {registered!r}"
            )
