import threading

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from common.labels import label, labelled, recording


def names(work):
    """The labels among what the profiler sees of some work."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        work()
    return [event.name for event in profiler.events() if event.is_user_annotation]


def test_labels_are_seen_only_while_recording():
    @labelled("double")
    def double(x):
        with label("inside"):
            return x + x

    def work():
        double(torch.ones(1))

    assert names(work) == []
    with recording() as seen:
        assert names(work) == ["double", "inside"]
    assert seen == {"double", "inside"}
    assert names(work) == []


def test_a_label_lets_results_and_errors_through():
    @labelled("divide")
    def divide(a, b):
        return a / b

    with recording():
        assert divide(6, b=3) == 2
        with pytest.raises(ZeroDivisionError):
            divide(1, 0)


def test_labels_of_other_threads_collect_too():
    with recording() as seen:
        thread = threading.Thread(target=lambda: label("beside"))
        thread.start()
        thread.join()
    assert seen == {"beside"}
