"""How actors and evaluators join a run: wait for the replay service, register what they will play."""

import threading

import grpc
from tenacity import Retrying, retry_if_exception, stop_after_delay, stop_any, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from common import rpc
from common.codec import counters_from_proto, spec_to_proto
from common.errors import FatalError
from common.handshake import check_certificates
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import Counters, EnvSpec
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

LONGEST_PAUSE_S = 1.0


def join_run(channel: grpc.Channel, spec: EnvSpec, settings: RpcSettings, *, stop: StopSignal) -> Counters:
    """Registers `spec` as soon as the service is up; returns the run's counters, zeros if asked to stop.

    FatalError: it does not come up within `connect_timeout_s`, it and this process do not accept each other's
    certificates, or the run plays something else.
    """
    stub = ReplayStub(channel)
    closing = threading.Event()
    stop.call_when_set(closing.set)
    retry = Retrying(
        retry=retry_if_exception(rpc.is_retryable),
        wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_S),
        stop=stop_any(stop_after_delay(settings.connect_timeout_s), stop_when_event_set(closing)),
        sleep=sleep_using_event(closing),
        before_sleep=lambda _state: check_certificates(settings),
        reraise=True,
    )
    timeout_s = min(settings.unary_timeout_s, settings.connect_timeout_s)
    try:
        retry(stub.RegisterSpec, pb.RegisterSpecRequest(spec=spec_to_proto(spec)), timeout=timeout_s)
        status = retry(stub.GetStatus, pb.GetStatusRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        if stop.is_set():
            return Counters()
        raise _explain(error, spec, settings) from error
    return counters_from_proto(status.counters)


def _explain(error: grpc.RpcError, spec: EnvSpec, settings: RpcSettings) -> FatalError:
    why = rpc.describe(error)
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        return FatalError(
            f"The run at {settings.address} does not play {spec.env} {spec.map} as this process does "
            f"({why}); start it with the run's environment settings, or start a new run."
        )
    if rpc.is_retryable(error):
        return FatalError(
            f"No replay service answered at {settings.address} for {settings.connect_timeout_s:g} s ({why}); "
            "start one with `vdfd replay`, or set rpc.address to where it is."
        )
    return FatalError(f"The replay service at {settings.address} refuses {spec.env} {spec.map} ({why}).")
