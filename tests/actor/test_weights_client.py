"""The newest weights come beside play; nothing that fails for a while stops them."""

import contextlib
import threading
import time

import pytest
from tenacity import wait_fixed

from actor import weights_client
from actor.weights_client import WeightsClient
from common import background, rpc
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import Weights
from tests.actor.service import proxy_to, replay_service, unused_address
from tests.episodes import SPEC


@contextlib.contextmanager
def fetching(settings, *, stop=None, started=True):
    with rpc.channel(settings) as channel:
        client = WeightsClient(channel, settings, poll_s=0.01, stop=stop or StopSignal())
        if started:
            client.start()
        try:
            yield client
        finally:
            client.close()
            client.close()  # harmless


@pytest.fixture
def service():
    with replay_service() as service:
        service.register(SPEC)
        yield service


def weights(version, session="learner-1"):
    return Weights(session=session, version=version, data=b"tensors of %d" % version)


def wait_for(client, version):
    while client.newest.version != version:
        client.check()


def test_each_publication_arrives_with_the_counters(service):
    with fetching(service.settings) as client:
        assert client.newest.version == 0
        for version in (1, 2, 7):
            service.publish(weights(version))
            wait_for(client, version)
            assert client.newest == weights(version)
            assert client.counters.weights_version == version
        stats = client.stats()
    assert (stats.fetched, stats.version, stats.newest_version) == (3, 7, 7)


def test_a_restarted_learner_may_begin_lower(service):
    with fetching(service.settings) as client:
        service.publish(weights(50))
        wait_for(client, 50)
        service.publish(weights(40, session="learner-2"))
        wait_for(client, 40)
        assert client.newest.session == "learner-2"


def test_broken_connections_are_survived(service):
    with proxy_to(service) as proxy, fetching(proxy.settings) as client:
        for version in range(1, 6):
            service.publish(weights(version))
            wait_for(client, version)
            proxy.sever()


class Fetch(threading.Thread):
    """One fetch beside the test, that takes what it is given; `came` is what it returned."""

    def __init__(self, client, **options):
        super().__init__()
        self._fetch = lambda: client.fetch(**options)
        self.start()

    def run(self):
        self.came = self._fetch()


def test_one_fetch_waits_for_a_minimum_version(service, monkeypatch):
    monkeypatch.setattr(weights_client, "WAIT_MS", 30_000)
    with fetching(service.settings, started=False) as client:
        service.publish(weights(2))
        fetch = Fetch(client, min_version=3)
        fetch.join(0.3)
        assert fetch.is_alive()
        service.publish(weights(3))
        fetch.join()
        assert fetch.came and client.newest.version == 3
        assert client.fetch(min_version=3) is False  # nothing newer, and no wait for it


def test_a_stop_ends_a_fetch_that_tries_again_and_again(monkeypatch, caplog):
    monkeypatch.setattr(background, "wait_random_exponential", lambda **_: wait_fixed(3600))
    stop = StopSignal()
    with fetching(RpcSettings(address=unused_address()), stop=stop, started=False) as client:
        fetch = Fetch(client, min_version=1)
        while "trying again" not in caplog.text:
            pass
        stop.set()
        fetch.join()
        assert fetch.came is False


def test_a_stop_ends_a_fetch_that_waits_for_an_answer(service, monkeypatch):
    monkeypatch.setattr(weights_client, "WAIT_MS", 30_000)
    stop = StopSignal()
    with fetching(service.settings, stop=stop, started=False) as client:
        began = time.monotonic()
        fetch = Fetch(client)
        fetch.join(0.3)
        assert fetch.is_alive()
        stop.set()
        fetch.join()
        assert fetch.came is False
        assert time.monotonic() - began < 20


def test_a_service_that_refuses_is_told(service):
    with fetching(service.settings, started=False) as client:
        client._stub.FetchWeights = _UnimplementedCall(service.channel)
        with pytest.raises(FatalError, match=r"refuses to send weights: UNIMPLEMENTED"):
            client.fetch()


class _UnimplementedCall:
    """A method that the service does not have."""

    def __init__(self, channel):
        self._call = channel.unary_unary(
            "/vdfd.v1.Replay/NoSuchMethod",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: data,
        )

    def future(self, request, timeout):
        return self._call.future(request, timeout=timeout)
