"""`make bench-replay`: this replay service beside DeepMind's Reverb, on the same episodes, pair by pair.

    python -m tests.bench.replay_speed --reverb-python .venv-reverb/bin/python [--shapes mmm2 3m] [--rounds 5]

Both run as programs (replay_ours.py, replay_reverb.py) that idle while the other is measured. Inserts count
when acknowledged, batches when 32 decoded episodes are in the sampler's hands as arrays per field. First
every mode of both is tried once; then our best mode and Reverb's best two are measured in turns (every
second time in reverse), and the better of the two is what ours is compared with. What others used of the
processor meanwhile is printed. A last pass has Redis sync after every command (`always`). The last line is
one JSON object of ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

Request = dict[str, Any]
Result = dict[str, Any]

WRITERS = (1, 2, 4)
KINDS = ("insert", "sample", "both")
REVERB_SAMPLERS = ("client", "dataset", "workers")
REVERB_TABLES = ("steps", "whole")


def requests_of_ours(kind: str) -> list[Request]:
    if kind == "insert":
        return [{"kind": kind, "writers": writers, "mode": ""} for writers in WRITERS]
    return [{"kind": kind, "writers": 2 if kind == "both" else 0, "mode": ""}]


def requests_of_reverb(kind: str) -> list[Request]:
    if kind == "insert":
        return [
            {"kind": kind, "writers": writers, "mode": table}
            for writers in WRITERS
            for table in REVERB_TABLES
        ]
    return [
        {"kind": kind, "writers": 2 if kind == "both" else 0, "mode": f"{sampler}-{table}"}
        for sampler in REVERB_SAMPLERS
        for table in REVERB_TABLES
    ]


class System:
    """A program that answers requests."""

    def __init__(self, name: str, python: str, module: str, *arguments: str) -> None:
        self.name = name
        self._program = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},  # TensorFlow's remarks about missing GPUs
        )
        self._answer()

    def measure(self, request: Request, seconds: float) -> Result:
        stdin = self._program.stdin
        assert stdin is not None
        stdin.write(json.dumps(request | {"seconds": seconds}) + "\n")
        stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(60)

    def _answer(self) -> Result:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            if line.startswith("{"):
                answer: Result = json.loads(line)
                return answer
        sys.exit(f"{self.name} ended with code {self._program.wait()}; what it said is above")


def worth(result: Result) -> float:
    """By what the best mode is chosen: the rate, or the product of both rates."""
    return float((result["inserts_s"] or 1) * (result["batches_s"] or 1))


def best_requests(system: System, requests: list[Request], seconds: float, count: int) -> list[Request]:
    tried = []
    for request in requests:
        result = system.measure(request, seconds)
        print_row(system.name, request, result)
        tried.append((worth(result), request))
    return [request for _, request in sorted(tried, key=lambda row: row[0], reverse=True)[:count]]


def print_row(name: str, request: Request, result: Result) -> None:
    what = f"{request['kind']} {request['writers'] or ''} {request['mode']}"
    cores = " ".join(f"{part} {used:.2f}" for part, used in result["cores"].items() if used)
    rates = f"{result['inserts_s']:9.1f} inserts/s {result['batches_s']:8.2f} batches/s"
    others = result["machine_cores"] - sum(result["cores"].values())
    print(f"  {name:12s} {what:22s} {rates}   cores: {cores}, others {max(0.0, others):.2f}", flush=True)


def in_turns(
    ours: System, own: Request, reverb: System, others: list[Request], a: argparse.Namespace
) -> list[tuple[Result, Result]]:
    """Pairs of ours and the best of Reverb's modes, by the median of what they are worth."""
    own_rows, other_rows = list[Result](), [list[Result]() for _ in others]
    turns = [(ours, own, own_rows), *((reverb, *other) for other in zip(others, other_rows, strict=True))]
    for number in range(a.rounds):
        for system, request, rows in reversed(turns) if number % 2 else turns:
            rows.append(system.measure(request, a.seconds))
            print_row(system.name, request, rows[-1])
    best = max(other_rows, key=lambda rows: statistics.median(map(worth, rows)))
    return list(zip(own_rows, best, strict=True))


def ratio(pairs: list[tuple[Result, Result]], rate: str) -> float:
    """The median of the pairs' ratios; prints the medians, too."""
    ours, theirs = (statistics.median(row[rate] for row in side) for side in zip(*pairs, strict=True))
    median = round(statistics.median(own[rate] / other[rate] for own, other in pairs), 2)
    print(f"  medians of {rate}: ours {ours:.1f}, Reverb {theirs:.1f}; median ratio {median}", flush=True)
    return median


def compare(shape: str, a: argparse.Namespace) -> dict[str, float]:
    """All kinds of load; ratios by the name they have in the last line."""
    print(f"{shape}: every mode once", flush=True)
    ours = System("ours", sys.executable, "tests.bench.replay_ours", shape, "everysec")
    reverb = System("Reverb", a.reverb_python, "tests.bench.replay_reverb", shape)
    ratios: dict[str, float] = {}
    best_of_ours: dict[str, Request] = {}
    for kind in KINDS:
        (best_of_ours[kind],) = best_requests(ours, requests_of_ours(kind), a.try_seconds, 1)
        best_of_reverb = best_requests(reverb, requests_of_reverb(kind), a.try_seconds, 2)
        print(f"{shape} {kind}: in turns", flush=True)
        pairs = in_turns(ours, best_of_ours[kind], reverb, best_of_reverb, a)
        prefix = f"{shape}_both" if kind == "both" else shape
        for rate, name in (("inserts_s", "insert"), ("batches_s", "sample")):
            if kind in (name, "both"):
                ratios[f"{prefix}_{name}_ratio"] = ratio(pairs, rate)
    ours.close()
    reverb.close()
    always(shape, best_of_ours, a)
    return ratios


def always(shape: str, requests: dict[str, Request], a: argparse.Namespace) -> None:
    """Prints what is left when Redis syncs before every answer."""
    print(f"{shape}: with appendfsync always", flush=True)
    system = System("ours always", sys.executable, "tests.bench.replay_ours", shape, "always")
    for request in requests.values():
        print_row(system.name, request, system.measure(request, a.seconds))
    system.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reverb-python", required=True, help="of an environment that has dm-reverb")
    parser.add_argument("--shapes", nargs="+", choices=("mmm2", "3m"), default=["mmm2", "3m"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--try-seconds", type=float, default=1.5)
    a = parser.parse_args()
    result: dict[str, float] = {}
    for shape in a.shapes:
        result.update(compare(shape, a))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
