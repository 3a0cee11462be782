"""Priorities reach the service in order, and never hold training up."""

import contextlib
from collections import deque

import grpc
import pytest
import torch

from common import rpc
from common.errors import FatalError
from learner import priority_updater
from learner.priority_updater import PriorityUpdater
from tests.learner.replay_double import ReplayDouble, serving


@contextlib.contextmanager
def updating(double):
    with serving(double) as settings, rpc.channel(settings) as channel:
        updater = PriorityUpdater(channel, settings, table="default")
        try:
            yield updater
        finally:
            updater.close()
            updater.close()


def update(updater, batch, **priorities):
    indices = tuple(int(name[1:]) for name in priorities)
    updater.update(batch, indices, torch.tensor(list(priorities.values()), dtype=torch.float64))


def sent(double):
    return [(r.batch, dict(zip(r.indices, r.priorities, strict=True))) for r in double.priorities]


def test_what_waits_goes_together_and_the_newest_batch_wins():
    double = ReplayDouble()
    double.priority_gate.clear()
    with updating(double) as updater:
        update(updater, 0, i5=1.0)
        update(updater, 1, i5=2.0, i6=3.0)
        update(updater, 2, i6=4.0, i7=5.0)
        double.priority_gate.set()
        double.wait_for(lambda: double.priorities and double.priorities[-1].batch == 2)
    together = {}
    for _, priorities in sent(double):
        together |= priorities
    assert together == {5: 2.0, 6: 4.0, 7: 5.0}
    assert [batch for batch, _ in sent(double)] == sorted(batch for batch, _ in sent(double))
    assert len(double.priorities) <= 3
    assert {request.table for request in double.priorities} == {"default"}


def test_a_service_that_is_away_is_tried_again():
    double = ReplayDouble(priority_faults=deque([grpc.StatusCode.UNAVAILABLE] * 2))
    with updating(double) as updater:
        update(updater, 3, i1=0.5)
        double.wait_for(lambda: double.priorities)
    assert sent(double) == [(3, {1: 0.5})]


def test_no_more_waits_than_the_bound(monkeypatch):
    monkeypatch.setattr(priority_updater, "MAX_WAITING_BATCHES", 4)
    double = ReplayDouble()
    double.priority_gate.clear()
    with updating(double) as updater:
        for batch in range(20):
            update(updater, batch, i1=float(batch + 1))
        # At most a full queue is on its way, and another one waits.
        assert updater.stats().forgotten >= 20 - 2 * 4
        double.priority_gate.set()
        double.wait_for(lambda: double.priorities and double.priorities[-1].batch == 19)
    assert sent(double)[-1][1] == {1: 20.0}


def test_a_message_is_no_larger_than_the_protocol_allows(monkeypatch):
    monkeypatch.setattr(priority_updater, "MAX_EPISODES", 3)
    double = ReplayDouble()
    double.priority_gate.clear()
    with updating(double) as updater:
        for batch in range(4):
            update(updater, batch, **{f"i{2 * batch}": 1.0, f"i{2 * batch + 1}": 1.0})
        double.priority_gate.set()
        double.wait_for(lambda: double.priorities and double.priorities[-1].batch == 3)
    assert max(len(request.indices) for request in double.priorities) <= 3


def test_a_refusal_ends_training_with_its_reason():
    double = ReplayDouble(priority_faults=deque([grpc.StatusCode.FAILED_PRECONDITION]))
    with updating(double) as updater:
        update(updater, 0, i1=1.0)
        updater._thread.join()
        with pytest.raises(FatalError, match="refuses priorities: FAILED_PRECONDITION: as told"):
            update(updater, 1, i1=1.0)
