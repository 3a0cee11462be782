"""What the allocator is told, also where it is an older one."""

import ctypes
from types import SimpleNamespace

import pytest

from learner.malloc import keep_freed_memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


@pytest.mark.parametrize(("limit", "accepted"), [(2**31, 2**30), (2**25, 2**25)], ids=["new", "old"])
def test_blocks_of_a_training_step_are_kept_by_every_glibc(monkeypatch, limit, accepted):
    now = {}

    def mallopt(parameter, value):
        if parameter == MMAP_THRESHOLD and value > limit:
            return 0
        now[parameter] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert now == {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: accepted}


def test_nothing_is_told_where_there_is_no_glibc(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
