"""Tables of made-up spans with times that can be reckoned in one's head, and a recording of real ones."""

import json
import threading

import pytest
import torch

from common.labels import label
from common.profile import Span, nested, read_trace, recorded, rows_of, spans_of


def span(name, begin, end, thread=1, gpu=0.0):
    return Span(name=name, thread=thread, begin_us=1e3 * begin, end_us=1e3 * end, gpu_us=1e3 * gpu)


STEPS = [
    span("step", 0, 10),
    span("forward", 1, 5),
    span("mixer", 2, 3, gpu=0.5),
    span("mixer", 4, 5),
    span("backward", 5, 9),
    span("step", 20, 30),
    span("forward", 21, 25),
]


def by_name(spans):
    return {row.name: row for row in rows_of(spans, "step")}


def test_rows_are_means_per_step():
    rows = by_name(STEPS)
    assert list(rows) == ["step", "forward", "mixer", "backward"]
    assert (rows["forward"].total_ms, rows["forward"].self_ms, rows["forward"].calls) == (4, 3, 1)
    assert (rows["mixer"].total_ms, rows["mixer"].calls, rows["mixer"].depth) == (1, 1, 2)
    assert rows["mixer"].gpu_ms == 0.25
    assert rows["step"].total_ms == 10
    assert [rows[name].share for name in rows] == pytest.approx([0.4, 0.3, 0.1, 0.2])


def test_what_runs_beside_the_steps_has_no_part_in_their_time():
    rows = rows_of([*STEPS, span("encoding", 2, 8, thread=2)], "step")
    assert [(row.name, row.beside) for row in rows][-1] == ("encoding", True)
    assert rows[-1].self_ms == 3
    assert sum(row.share for row in rows if not row.beside) == pytest.approx(1)


def test_only_what_began_within_the_steps_counts():
    spans = [span("encoding", -5, 1, thread=2), *STEPS, span("encoding", 31, 40, thread=2)]
    assert "encoding" not in by_name(spans)


def test_a_gpu_s_backward_in_a_thread_of_autograd_s_is_the_steps_own():
    """The step's thread waits inside its span "backward" meanwhile."""
    rows = by_name([*STEPS, span("backward of mixer", 6, 8, thread=7)])
    assert not rows["backward of mixer"].beside
    assert (rows["backward"].self_ms, rows["backward of mixer"].self_ms) == (1, 1)
    assert sum(row.share for row in rows.values()) == pytest.approx(1)


def test_spans_that_touch_are_not_nested():
    spans = [span("a", 0, 1), span("b", 1, 2)]
    assert [(s.name, depth, self_us) for s, depth, self_us in nested(spans)] == [("a", 0, 1e3), ("b", 0, 1e3)]


def event(name, cat, begin, end, tid=1, **args):
    return {"ph": "X", "name": name, "cat": cat, "ts": begin, "dur": end - begin, "tid": tid, "args": args}


def test_work_on_a_gpu_belongs_to_the_span_that_launched_it():
    """As CUDA traces are: a kernel runs later, in a thread of the GPU's, with its launch's correlation."""
    node = "autograd::engine::evaluate_function: MmBackward0"
    events = [
        event("step", "user_annotation", 0, 100),
        event("agent", "user_annotation", 10, 30),
        event("aten::mm", "cpu_op", 12, 20, **{"Sequence number": 5}),
        event("cudaLaunchKernel", "cuda_runtime", 13, 14, correlation=1),
        event("cudaMemcpyAsync", "cuda_runtime", 40, 41, correlation=2),
        event("backward", "user_annotation", 50, 90),
        event(node, "cpu_op", 60, 80, tid=2, **{"Sequence number": 5}),
        event("aten::mm", "cpu_op", 61, 70, tid=2),
        event("cuLaunchKernel", "cuda_driver", 62, 63, tid=2, correlation=3),
        event("gemm", "kernel", 200, 270, tid=7, correlation=1),
        event("Memcpy HtoD", "gpu_memcpy", 300, 305, tid=7, correlation=2),
        event("gemm", "kernel", 400, 430, tid=7, correlation=3),
        event("agent", "gpu_user_annotation", 200, 270, tid=7),
    ]
    spans = {s.name: s for s in spans_of(events, {"step", "agent", "backward"})}
    assert {name: s.gpu_us for name, s in spans.items()} == {
        "step": 5,
        "agent": 70,
        "backward": 0,
        "backward of agent": 30,
    }
    rows = rows_of(list(spans.values()), "step")
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert not any(row.beside for row in rows)


def test_no_step_is_an_error():
    with pytest.raises(ValueError, match="no span is called 'step'"):
        rows_of([span("forward", 0, 1)], "step")


def test_a_recording_names_the_backward_after_what_it_is_the_backward_of(tmp_path):
    weight = torch.ones(3, 3, requires_grad=True)

    def beside():
        with label("beside"):
            torch.ones(3).sum()

    with recorded("step", torch.device("cpu")) as recording:
        for _ in range(2):
            with recording.step():
                with label("agent"):
                    hidden = torch.tanh(weight @ weight)
                with label("mixer"):
                    loss = hidden.square().sum()
                with label("backward"):
                    loss.backward()
                thread = threading.Thread(target=beside)
                thread.start()
                thread.join()
    recording.write_trace(tmp_path / "trace.json")
    rows = {row.name: row for row in rows_of(read_trace(tmp_path / "trace.json", recording.labels), "step")}
    assert rows["backward of agent"].calls == 2  # tanh and the product
    assert rows["backward of agent"].depth == 2
    assert rows["backward of mixer"].total_ms > 0
    assert (rows["beside"].beside, rows["beside"].calls) == (True, 1)
    assert sum(row.share for row in rows.values() if not row.beside) == pytest.approx(1)
    names = {event["name"] for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert {"step", "agent", "mixer", "backward", "beside"} <= names
