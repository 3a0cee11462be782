"""Who is let in: with TLS on, every method of every service refuses whoever may not call it."""

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from actor.joining import join_run
from actor.weights_client import WeightsClient
from common import rpc
from common.errors import BadInputError, FatalError
from common.handshake import check_certificates
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy.config import Sources, load_config
from deploy.status import check_health, describe_run
from learner.startup import wait_for_spec
from protos import replay_pb2 as pb
from replay.access import ROLES, read_tokens
from tests.deploy.made_secrets import make_secrets, rpc_settings
from tests.episodes import SPEC
from tests.replay.running import serving

SERVICES = (pb.DESCRIPTOR.services_by_name["Replay"], health_pb2.DESCRIPTOR.services_by_name["Health"])
METHODS = {
    f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}
"""All that the service answers, from the descriptors of its protocols."""
TIMEOUT_S = 20.0


def allowed(role):
    return {path for path, method in METHODS.items() if "Health" in path or method.name in ROLES[role]}


async def status_of(channel, path):
    """How a call with one empty request ends; OK as soon as a stream brings something."""
    method = METHODS[path]
    try:
        if method.client_streaming:
            call = channel.stream_stream(path)(iter([b""]), timeout=TIMEOUT_S)
            await call.read()
        elif method.server_streaming:
            call = channel.unary_stream(path)(b"", timeout=TIMEOUT_S)
            await call.read()
            call.cancel()
        else:
            await channel.unary_unary(path)(b"", timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if "execute_batch" in error.details():
            # This client sent its message when it had been refused already, and hides how: ask again.
            return await status_of(channel, path)
        return error.code()
    return grpc.StatusCode.OK


async def statuses(channel):
    async with channel:
        return {path: await status_of(channel, path) for path in METHODS}


@pytest.fixture
async def service(secrets):
    """A service behind TLS and tokens."""
    async with serving(
        rpc_settings=rpc_settings(secrets, "replay", token=False),
        client_settings=rpc_settings(secrets, "observer"),
        tokens_file=str(secrets / "replay" / "tokens"),
    ) as client:
        yield client


def pem(secrets, *names):
    return [(secrets / name).read_bytes() for name in names]


async def test_there_is_something_to_refuse():
    assert {path.split("/")[1] for path in METHODS} == {"vdfd.v1.Replay", "grpc.health.v1.Health"}
    assert set().union(*ROLES.values()) == {method.name for method in SERVICES[0].methods}


async def test_without_a_certificate_of_the_authority_no_call_arrives(service, secrets, tmp_path):
    """The handshake fails, so gRPC's own status is UNAVAILABLE: there is no call that could be answered."""
    (authority,) = pem(secrets, "actor/ca.crt")
    wrong_key, wrong_certificate = pem(make_secrets(tmp_path / "other"), "actor/tls.key", "actor/tls.crt")
    callers = {
        "in the clear": grpc.aio.insecure_channel(service.address),
        "no certificate": grpc.aio.secure_channel(service.address, grpc.ssl_channel_credentials(authority)),
        "another authority's": grpc.aio.secure_channel(
            service.address, grpc.ssl_channel_credentials(authority, wrong_key, wrong_certificate)
        ),
    }
    for name, channel in callers.items():
        assert set((await statuses(channel)).values()) == {grpc.StatusCode.UNAVAILABLE}, name
    assert (await service.status()).counters.episodes == 0  # the service lives on


@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
async def test_without_a_known_token_every_method_is_unauthenticated(service, secrets, token, tmp_path):
    files = {"token_file": ""}
    if token:
        (tmp_path / "token").write_text(token)
        files = {"token_file": str(tmp_path / "token")}
    settings = rpc_settings(secrets, "learner", address=service.address, **files)
    assert set((await statuses(rpc.aio_channel(settings))).values()) == {grpc.StatusCode.UNAUTHENTICATED}


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_do_its_own_part_and_nothing_else(service, secrets, role):
    found = await statuses(rpc.aio_channel(rpc_settings(secrets, role, address=service.address)))
    denied = {path for path, status in found.items() if status is grpc.StatusCode.PERMISSION_DENIED}
    assert denied == set(METHODS) - allowed(role)
    assert grpc.StatusCode.UNAUTHENTICATED not in found.values()


async def test_a_client_believes_only_its_own_authority(service, secrets, tmp_path):
    other = make_secrets(tmp_path / "other")
    settings = rpc_settings(
        secrets, "actor", address=service.address, tls_ca_file=str(other / "ca" / "ca.crt")
    )
    assert set((await statuses(rpc.aio_channel(settings))).values()) == {grpc.StatusCode.UNAVAILABLE}


async def test_status_and_health_are_for_those_with_a_token(service, secrets):
    observer = rpc_settings(secrets, "observer", address=service.address)
    await asyncio.to_thread(check_health, observer)
    assert "samples per insert" in await asyncio.to_thread(describe_run, observer)
    nobody = observer.model_copy(update={"token_file": ""})
    for ask in (check_health, describe_run):
        with pytest.raises(FatalError, match="UNAUTHENTICATED"):
            await asyncio.to_thread(ask, nobody)


@pytest.mark.parametrize(
    "overrides",
    [
        ("rpc.tls_ca_file=ca.crt",),
        ("rpc.token_file=token",),
        ("replay.tokens_file=tokens",),
    ],
)
def test_half_a_protection_is_bad_input(overrides):
    with pytest.raises(BadInputError, match=r"rpc\.tls_"):
        load_config(Sources(overrides=overrides))


def test_files_that_cannot_be_used_are_named(secrets, tmp_path):
    settings = rpc_settings(secrets, "actor", tls_key_file=str(tmp_path / "missing"))
    with pytest.raises(BadInputError, match=r"rpc.tls_key_file is .*missing"):
        rpc.channel(settings)
    (tmp_path / "tokens").write_text("actor 1234\n")
    with pytest.raises(BadInputError, match=r"replay.tokens_file: line 1 "):
        read_tokens(str(tmp_path / "tokens"))


@pytest.fixture
def strangers(secrets, tmp_path):
    """Settings of clients that the service behind TLS does not accept, or that do not accept it."""
    other = make_secrets(tmp_path / "other")
    theirs = {
        "tls_certificate_file": str(other / "actor" / "tls.crt"),
        "tls_key_file": str(other / "actor" / "tls.key"),
    }
    return {
        "which shows no certificate; set rpc.tls_": RpcSettings(),
        "refused this client's certificate; see rpc.tls_certificate_file": rpc_settings(
            secrets, "actor", **theirs
        ),
        r"not believed here .*; see rpc.tls_ca_file": rpc_settings(other, "actor"),
    }


FIRST_CALLS = {
    "actors and evaluators": lambda channel, settings: join_run(channel, SPEC, settings, stop=StopSignal()),
    "learner": lambda channel, settings: wait_for_spec(channel, settings, StopSignal()),
    "health": lambda _, settings: check_health(settings),
    "clients that retry": lambda channel, settings: WeightsClient(
        channel, settings, poll_s=1, stop=StopSignal()
    ).fetch(),
}


@pytest.mark.parametrize("call", FIRST_CALLS.values(), ids=FIRST_CALLS)
async def test_whoever_is_refused_ends_at_once_with_the_reason(service, strangers, call):
    for sentence, settings in strangers.items():
        refused = settings.model_copy(update={"address": service.address})
        with rpc.channel(refused) as channel, pytest.raises(FatalError, match=sentence):
            await asyncio.to_thread(call, channel, refused)


async def test_a_service_in_the_clear_is_told_from_one_that_is_down(secrets):
    async with serving() as client:
        encrypted = rpc_settings(secrets, "actor", address=client.address)
        with pytest.raises(FatalError, match="does not encrypt its connections"):
            await asyncio.to_thread(check_certificates, encrypted)
        await asyncio.to_thread(check_certificates, RpcSettings(address=client.address))
    await asyncio.to_thread(check_certificates, encrypted)  # down: it may come up again


def test_secrets_are_made_once(secrets):
    before = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    make_secrets(secrets)
    assert {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()} == before
