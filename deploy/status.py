"""How a run is doing, asked of its replay service: for people, and for those who watch containers."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import rpc
from common.codec import evaluation_from_proto
from common.errors import FatalError
from common.handshake import check_certificates
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub


def check_health(settings: RpcSettings) -> None:
    """Returns if the service is serving, by the gRPC health protocol; FatalError if not."""
    with rpc.channel(settings) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=settings.unary_timeout_s)
        except grpc.RpcError as error:
            raise no_answer(settings, error) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise FatalError(f"The replay service at {settings.address} runs, but cannot reach its Redis.")


def describe_run(settings: RpcSettings) -> str:
    """The run's counters and newest evaluations, as lines. FatalError: the service does not answer."""
    with rpc.channel(settings) as channel:
        stub = ReplayStub(channel)
        try:
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=settings.unary_timeout_s)
            listed = stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=settings.unary_timeout_s)
        except grpc.RpcError as error:
            raise no_answer(settings, error) from error
    counters = status.counters
    lines = [
        f"environment steps    {counters.env_steps} of {status.total_env_steps}",
        f"episodes             {counters.episodes} stored, {status.window_episodes} in the window, "
        f"{status.duplicates} duplicates, {status.rejected} invalid",
        f"learner step         {counters.weights_version}",
        f"samples per insert   {status.samples_per_insert:.2f}",
        f"weights lag          {status.weights_lag:.1f} versions",
        f"train return         {status.train_return:.2f}, won {100 * status.train_win_rate:.0f} %",
        f"actors               {', '.join(actor.actor for actor in status.actors) or 'none yet'}",
    ]
    for evaluation in map(evaluation_from_proto, listed.evaluations[-5:]):
        lines.append(
            f"evaluation           at {evaluation.env_steps}: Test Win Rate {evaluation.win_rate:.2f}, "
            f"return {evaluation.mean_return:.2f}"
        )
    return "\n".join(lines)


def no_answer(settings: RpcSettings, error: grpc.RpcError) -> FatalError:
    """The error of a call that failed. Raises another one where certificates are the reason."""
    if rpc.is_retryable(error):
        check_certificates(settings)
    return FatalError(f"The replay service at {settings.address} does not answer: {rpc.describe(error)}.")
