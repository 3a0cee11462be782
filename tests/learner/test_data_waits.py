"""Whom training waits for, by a clock of the test's own."""

from learner.data_waits import DataWaits


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_wait_is_the_limiter_s_exactly_while_it_holds():
    clock = Clock()
    waits = DataWaits(clock)
    changes = (
        (1, waits.waiting, True),
        (2, waits.held, True),  # 2 s for the data
        (4, waits.held, False),  # 4 s for the limiter
        (8, waits.waiting, False),  # 8 s for the data
        (16, waits.held, True),
        (32, waits.waiting, True),  # holding without a wait counts for nothing
        (64, waits.waiting, False),  # 64 s for the limiter
    )
    for seconds, change, now in changes:
        clock.now += seconds
        change(now)
    assert waits.stats() == (4 + 64, 2 + 8)


def test_a_wait_counts_while_it_lasts():
    clock = Clock()
    waits = DataWaits(clock)
    waits.waiting(True)
    clock.now += 3
    assert waits.stats() == (0, 3)
    waits.held(True)
    clock.now += 2
    assert waits.stats() == (2, 3) == waits.stats()
