"""Where the time of a repeated step goes: recorded by torch's profiler, read from the labels of the hot code.

    with recorded("learner step", device) as recording:
        for _ in range(steps):
            with recording.step():
                ...
    recording.write_trace(path)             # for https://ui.perfetto.dev
    read_trace(path, recording.labels)      # and as a table: rows_of(spans, "learner step")

The backward pass has no labels of its own. autograd numbers its nodes like the operations that made them, so
each node is counted as the backward of the label under which its operation ran.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function

from common.labels import recording

BACKWARD_NODE = "autograd::engine::evaluate_function"
BACKWARD_OF = "backward of "
LAUNCHES = ("cuda_runtime", "cuda_driver")
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of time in one thread."""

    name: str
    thread: int
    begin_us: float
    end_us: float
    gpu_us: float = 0.0
    """Time of what was launched on a GPU in it, and in no span inside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """All spans of a name, as means per step."""

    name: str
    depth: int
    """Spans around it."""
    beside: bool
    """It ran in another thread than the steps: its share is not one of their time."""
    calls: float
    total_ms: float
    self_ms: float
    """Without the spans inside it."""
    share: float
    """Of self_ms in a step's time; over the rows that are not beside they sum to 1."""
    gpu_ms: float
    """Time of its own work on a GPU, which may overlap with everything."""


class Recording:
    """What the profiler has seen; to be written when the block of `recorded` is over."""

    def __init__(self, name: str, profiler: profile) -> None:
        self._name, self._profiler = name, profiler
        self.labels: Collection[str] = {name}
        """Names of its spans."""

    def step(self) -> contextlib.AbstractContextManager[object]:
        """Around each step."""
        return record_function(self._name)

    def write_trace(self, path: Path) -> None:
        """Writes everything in Chrome's trace format."""
        self._profiler.export_chrome_trace(str(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiled:
    """A recording, and what the same steps take when nobody looks."""

    recording: Recording
    plain_ms: float
    """Of a step without the profiler."""
    steps: int
    step: str
    """What a step is called."""
    load: str
    """What it worked on, for people."""


@contextlib.contextmanager
def recorded(name: str, device: torch.device) -> Iterator[Recording]:
    """Records what runs inside, in all threads; `name` is what its steps are called."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    config = _ExperimentalConfig(profile_all_threads=True)
    with recording() as labels, profile(activities=activities, experimental_config=config) as profiler:
        result = Recording(name, profiler)
        yield result
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    result.labels = frozenset(labels | {name})


def read_trace(path: Path, labels: Collection[str]) -> list[Span]:
    """The spans in a trace that a recording has written."""
    with path.open(encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    return spans_of([event for event in events if event.get("ph") == "X"], labels)


def spans_of(events: Sequence[Mapping[str, Any]], labels: Collection[str]) -> list[Span]:
    """The labelled events of a trace as spans, and autograd's nodes as the backward of a label."""
    threads: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") in ("cpu_op", "user_annotation", *LAUNCHES):
            threads[event["tid"]].append(event)
    for own in threads.values():
        own.sort(key=lambda event: (event["ts"], -event["dur"]))
    # Every thread has numbers of its own; the one that trains has made the most.
    forward = max((_forward_labels(own, labels) for own in threads.values()), key=len, default={})
    gpu_us = {e["args"]["correlation"]: e["dur"] for e in events if e.get("cat") in GPU_WORK}
    numbers = {thread: number for number, thread in enumerate(threads)}
    return [
        span
        for thread, own in threads.items()
        for span in _spans(own, numbers[thread], labels, forward, gpu_us)
    ]


def _forward_labels(events: Sequence[Mapping[str, Any]], labels: Collection[str]) -> dict[int, str]:
    """Number of a node of autograd's -> the innermost label around the operation that made it.

    Operations without gradients bear the number of the node that the next one makes: the last one counts.
    """
    found: dict[int, str] = {}
    around: list[Mapping[str, Any]] = []
    for event in events:
        _close(around, event["ts"])
        number = event.get("args", {}).get("Sequence number")
        inside_backward = any(_is_backward(outer) for outer in (*around, event))
        if number is not None and not inside_backward:
            found[number] = next((e["name"] for e in reversed(around) if e["name"] in labels), "")
        around.append(event)
    return found


def _spans(
    events: Sequence[Mapping[str, Any]],
    thread: int,
    labels: Collection[str],
    forward: Mapping[int, str],
    gpu_us: Mapping[int, float],
) -> list[Span]:
    """The spans of one thread, each with what was launched directly in it."""
    around: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for event in events:
        _close(around, event["ts"])
        name = ""
        if event["cat"] in LAUNCHES and around:
            around[-1]["gpu_us"] += gpu_us.get(event["args"].get("correlation"), 0.0)
        elif event["cat"] == "user_annotation" and event["name"] in labels:
            name = event["name"]
        elif _is_backward(event) and (part := forward.get(event["args"].get("Sequence number"))):
            name = BACKWARD_OF + part
        if name:
            around.append({"name": name, "ts": event["ts"], "dur": event["dur"], "gpu_us": 0.0})
            found.append(around[-1])
    return [
        Span(
            name=span["name"],
            thread=thread,
            begin_us=span["ts"],
            end_us=span["ts"] + span["dur"],
            gpu_us=span["gpu_us"],
        )
        for span in found
    ]


def _close(around: "list[Any]", now_us: float) -> None:
    while around and around[-1]["ts"] + around[-1]["dur"] <= now_us:
        around.pop()


def _is_backward(event: Mapping[str, Any]) -> bool:
    return bool(event["name"].startswith(BACKWARD_NODE))


def rows_of(spans: Sequence[Span], step: str) -> list[Row]:
    """Sums spans up by name. Raises ValueError if there is no span called `step`."""
    steps = [span for span in spans if span.name == step]
    if not steps:
        raise ValueError(f"no span is called {step!r}")
    whole_us = sum(span.end_us - span.begin_us for span in steps)
    rows: dict[tuple[str, bool], Row] = {}
    for span, around, self_us in nested(_within_steps(spans, steps)):
        beside = span.thread != steps[0].thread
        key = (span.name, beside)
        row = rows.get(key) or _empty(span.name, depth=around, beside=beside)
        rows[key] = replace(
            row,
            calls=row.calls + 1 / len(steps),
            total_ms=row.total_ms + (span.end_us - span.begin_us) / 1e3 / len(steps),
            self_ms=row.self_ms + self_us / 1e3 / len(steps),
            share=row.share + self_us / whole_us,
            gpu_ms=row.gpu_ms + span.gpu_us / 1e3 / len(steps),
        )
    return sorted(rows.values(), key=lambda row: row.beside)


def nested(spans: Sequence[Span]) -> list[tuple[Span, int, float]]:
    """Every span with the number of spans around it and its time without those inside it, by their begin."""
    inside_us: dict[int, float] = {}
    depths: dict[int, int] = {}
    open_spans: dict[int, list[Span]] = {}
    ordered = sorted(spans, key=lambda span: (span.begin_us, -span.end_us))
    for span in ordered:
        around = open_spans.setdefault(span.thread, [])
        while around and around[-1].end_us <= span.begin_us:
            around.pop()
        if around:
            inside_us[id(around[-1])] = inside_us.get(id(around[-1]), 0.0) + span.end_us - span.begin_us
        depths[id(span)] = len(around)
        around.append(span)
    return [
        (span, depths[id(span)], span.end_us - span.begin_us - inside_us.get(id(span), 0.0))
        for span in ordered
    ]


def _within_steps(spans: Sequence[Span], steps: Sequence[Span]) -> list[Span]:
    """Without what ran before, between and after the steps.

    The steps wait while a GPU's backward runs in a thread of autograd's, so that counts as theirs.
    """
    thread, begin, end = steps[0].thread, steps[0].begin_us, steps[-1].end_us
    moved = (replace(s, thread=thread) if s.name.startswith(BACKWARD_OF) else s for s in spans)
    return [span for span in moved if begin <= span.begin_us < end]


def _empty(name: str, *, depth: int, beside: bool) -> Row:
    return Row(
        name=name, depth=depth, beside=beside, calls=0.0, total_ms=0.0, self_ms=0.0, share=0.0, gpu_ms=0.0
    )
