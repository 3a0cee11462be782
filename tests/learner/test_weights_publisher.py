"""The newest weights arrive, whatever fails, and training never waits for them."""

import contextlib
from collections import deque

import grpc
import pytest

from common import rpc
from common.errors import FatalError
from common.types import Weights
from learner.weights_publisher import WeightsPublisher
from tests.learner.replay_double import ReplayDouble, serving


@contextlib.contextmanager
def publishing(settings):
    with rpc.channel(settings) as channel:
        publisher = WeightsPublisher(channel, settings)
        try:
            yield publisher
        finally:
            publisher.close()


def weights(version):
    return Weights(session="learner-1", version=version, data=b"tensors of %d" % version)


def versions(double):
    return [published.version for published in double.published]


def test_each_version_arrives_when_the_service_keeps_up():
    double = ReplayDouble()
    with serving(double) as settings, publishing(settings) as publisher:
        for version in (1, 2, 3):
            publisher.publish(weights(version))
            assert publisher.flush(60)
        assert versions(double) == [1, 2, 3]
        assert double.published[-1].data == b"tensors of 3"
        assert publisher.stats().version == 3


def test_newer_weights_replace_those_that_wait():
    double = ReplayDouble()
    double.publish_gate.clear()
    with serving(double) as settings, publishing(settings) as publisher:
        publisher.publish(weights(1))
        assert double.publishing.wait(60)
        for version in (2, 3, 4):
            publisher.publish(weights(version))
        assert not publisher.flush(0.0)
        double.publish_gate.set()
        assert publisher.flush(60)
        assert versions(double) == [1, 4]
        assert (publisher.stats().published, publisher.stats().superseded) == (2, 3)


def test_a_failure_that_may_pass_is_tried_again():
    faults = deque([grpc.StatusCode.UNAVAILABLE] * 3)
    double = ReplayDouble(publish_faults=faults)
    with serving(double) as settings, publishing(settings) as publisher:
        publisher.publish(weights(1))
        assert publisher.flush(60)
    assert versions(double) == [1]
    assert not faults


def test_a_refusal_is_fatal_and_names_the_reason():
    double = ReplayDouble(publish_faults=deque([grpc.StatusCode.FAILED_PRECONDITION]))
    with serving(double) as settings, publishing(settings) as publisher:
        publisher.publish(weights(1))
        with pytest.raises(FatalError, match=rf"{settings.address}.*FAILED_PRECONDITION: as told"):
            publisher.flush(60)
        with pytest.raises(FatalError):
            publisher.publish(weights(2))


def test_close_does_not_wait_for_a_service_that_does_not_answer():
    double = ReplayDouble()
    double.publish_gate.clear()
    with serving(double) as settings:
        with publishing(settings) as publisher:
            publisher.publish(weights(1))
            assert double.publishing.wait(60)
        publisher.close()
        double.publish_gate.set()
    assert publisher.stats().published == 0
