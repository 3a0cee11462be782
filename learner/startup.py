"""What comes before training: the device, torch's settings, the service and the newest checkpoint."""

import functools
import logging
import os
import time
from dataclasses import fields
from pathlib import Path

import grpc
import torch

from common import rpc
from common.codec import spec_from_proto
from common.errors import BadInputError, FatalError
from common.handshake import check_certificates
from common.lifecycle import StopSignal
from common.settings import AgentSettings, RpcSettings
from common.types import EnvSpec
from learner import checkpoint
from learner.algorithms.base import Algorithm
from learner.malloc import keep_freed_memory
from learner.settings import FIXED, LearnerSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

log = logging.getLogger(__name__)

STATUS_INTERVAL_S = 0.2


def choose_device(name: str) -> torch.device:
    """The CPU or GPU that settings.device means. Raises BadInputError if this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInputError(_no_device(name)) from error
    if device.type not in ("cpu", "cuda"):  # torch knows more of them, on which nothing here runs
        raise BadInputError(_no_device(name))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BadInputError(f"learner.device is {name}, but torch sees {count} CUDA GPUs: use auto or cpu")
    return device


def _no_device(name: str) -> str:
    return f"learner.device {name!r} is no device to train on: use auto, cpu, cuda or cuda:1"


def prepare_torch(settings: LearnerSettings, seed: int) -> None:
    """Threads, seed, precision and determinism of this process."""
    keep_freed_memory()
    # cuDNN would round what goes into a GRU to ten bits, and hidden states would not be those of the actors.
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(seed)
    torch.set_num_threads(1 if settings.deterministic else settings.threads)
    if settings.deterministic:
        # cuBLAS is deterministic only with a fixed workspace, and reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def wait_for_spec(channel: grpc.Channel, settings: RpcSettings, stop: StopSignal) -> EnvSpec | None:
    """The sizes of the run's episodes, once an actor has registered them; None if told to stop before.

    Raises FatalError when no replay service answers for connect_timeout_s, or it and this process do not
    accept each other's certificates.
    """
    stub = ReplayStub(channel)
    last_answer = time.monotonic()
    while not stop.is_set():
        try:
            status = stub.GetStatus(pb.GetStatusRequest(), timeout=settings.unary_timeout_s)
        except grpc.RpcError as error:
            check_certificates(settings)
            if not rpc.is_retryable(error) or time.monotonic() - last_answer > settings.connect_timeout_s:
                raise FatalError(
                    f"no replay service answers at {settings.address} ({rpc.describe(error)}): "
                    "start one, or set rpc.address to where it is"
                ) from error
        else:
            if status.HasField("spec"):
                return spec_from_proto(status.spec)
            last_answer = time.monotonic()
        stop.wait(STATUS_INTERVAL_S)
    return None


def resume(
    run_dir: Path, algorithm: Algorithm, spec: EnvSpec, agent: AgentSettings, settings: LearnerSettings
) -> int:
    """Loads the run's newest complete checkpoint, if there is one. Returns the learner step to go on from.

    Raises FatalError when the checkpoint is damaged or of another configuration.
    """
    path = checkpoint.latest(run_dir)
    if path is None:
        return 0
    saved = checkpoint.load(path)
    for field in fields(EnvSpec):
        _check(
            path, f"environment's {field.name}", getattr(saved.spec, field.name), getattr(spec, field.name)
        )
    _check(path, "agent", saved.agent, agent)
    for key in FIXED:
        was, is_now = (functools.reduce(getattr, key.split("."), of) for of in (saved.settings, settings))
        _check(path, f"learner.{key}", was, is_now)
    try:
        algorithm.load_state_dict(saved.algorithm)
    except ValueError as error:
        raise FatalError(f"the checkpoint {path} cannot be taken up: {error}") from error
    log.info("going on from %s", path)
    return saved.step


def _check(path: Path, name: str, saved: object, now: object) -> None:
    if saved != now:
        raise FatalError(
            f"the checkpoint {path} was made with {name} = {saved}, but this run has {now}: "
            "resume it with its own configuration, or choose another run directory"
        )
