"""How many actors at StarCraft's pace one replay service and one learner can take, by simulation.

Simulated actors (tests/bench/simulated_actors.py) send recorded episodes, one per period each, through the
real clients to a real replay service with its Redis. The learner is the real process (--learner qmix), or one
that waits for a fixed time instead of computing, as if a GPU did it (--learner 10: milliseconds per step).

The learner's time splits into work, waits for the rate limiter (there are not enough episodes yet, so the
ratio says wait) and waits for data (a batch may go, and is being drawn, sent or unpacked). The last line is
one JSON object.

    python -m tests.bench.game_pace --map 3m --learner qmix --seconds 30
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from actor.joining import join_run
from common import rpc
from common.lifecycle import StopSignal
from common.payload import encode_episode
from common.settings import RpcSettings
from tests.bench.scrape import Look, busy_s, free_ports, wait_until
from tests.bench.simulated_actors import SimulatedActor, record

RECORDED = 64
FIRST_EPISODES = 48
"""Sent at once, so that batches can be drawn from the start."""
START_TIMEOUT_S = 60.0
NO_END = 10**9


@contextlib.contextmanager
def cluster(a: argparse.Namespace, folder: Path) -> Iterator[tuple[RpcSettings, int, int]]:
    """A replay service and a learner: how to reach the one, and both ports for metrics."""
    address_port, replay_port, learner_port = (free := free_ports(3)), free + 1, free + 2
    address = f"127.0.0.1:{address_port}"
    vdfd = [sys.executable, "-m", "deploy.cli"]
    common = ["--address", address, "--run-dir", str(folder / "run"), "--map", a.map]
    metrics = ["metrics.serve=true", f"metrics.port={replay_port}"]
    replay = [*vdfd, "replay", *common, "--steps", str(NO_END), *metrics, *a.settings]
    if a.learner.replace(".", "").isdigit():
        learner = [
            sys.executable,
            "-m",
            "tests.bench.simulated_learner",
            address,
            str(learner_port),
            a.learner,
        ]
    else:
        metrics = ["metrics.serve=true", f"metrics.port={learner_port}"]
        learner = [*vdfd, "learner", *common, "--algo", a.learner, *metrics, *a.settings]
    with contextlib.ExitStack() as stack:
        for name, command in (("replay", replay), ("learner", learner)):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.send_signal, signal.SIGTERM)
        wait_until(replay_port, "vdfd_replay_storage_reachable", 1.0, START_TIMEOUT_S)
        yield RpcSettings(address=address), replay_port, learner_port


def measure(actors: list[SimulatedActor], seconds: float, replay_port: int, learner_port: int) -> dict:
    """What happens in a stretch of time."""

    def look() -> tuple[Look, Look, float, int, int, float, float]:
        stats = [actor.writer.stats() for actor in actors]
        return (
            Look.at(replay_port),
            Look.at(learner_port),
            sum(s.wait_s for s in stats),
            sum(actor.offered for actor in actors),
            sum(actor.fetched_bytes() for actor in actors),
            sum(os.times()[:2]),
            busy_s(),
        )

    before = look()
    time.sleep(seconds)
    after = look()
    elapsed = after[0].at_s - before[0].at_s
    replay = lambda name: after[0].rate_since(before[0], name)  # noqa: E731
    learner = lambda name: after[1].rate_since(before[1], name)  # noqa: E731
    limiter = learner("vdfd_learner_limiter_wait_seconds_total")
    data = learner("vdfd_learner_data_wait_seconds_total") - limiter
    cores = {
        "replay": replay("process_cpu_seconds_total"),
        "learner": learner("process_cpu_seconds_total"),
        "actors": (after[5] - before[5]) / elapsed,
    }
    cores["others"] = (after[6] - before[6]) / elapsed - sum(cores.values())
    return {
        "actors": len(actors),
        "offered_per_s": (after[3] - before[3]) / elapsed,
        "stored_per_s": replay("vdfd_replay_inserts_total"),
        "learner_steps_per_s": learner("vdfd_learner_steps_total"),
        "learner_work": 1.0 - limiter - data,
        "limiter_wait": limiter,
        "data_wait": data,
        "actor_wait": (after[2] - before[2]) / elapsed / len(actors),
        "decode_beside": learner("vdfd_learner_decode_seconds_total"),
        "batches_mb_per_s": replay("vdfd_replay_sampled_bytes_total") / 1e6,
        "weights_mb_per_s": (after[4] - before[4]) / elapsed / 1e6,
        **{f"{name}_cores": used for name, used in cores.items()},
    }


def run(a: argparse.Namespace) -> list[dict]:
    spec, episodes = record(a.map, RECORDED)
    length = statistics.mean(episode.meta.length for episode in episodes)
    size = statistics.mean(len(encode_episode(episode).payload) for episode in episodes)
    print(
        f"{a.map}: {length:.0f} steps and {size / 1e3:.0f} KB per episode, one per {a.period:g} s and actor"
    )
    rows, actors = [], list[SimulatedActor]()
    here = tempfile.TemporaryDirectory(dir=".", prefix=".bench-")  # /tmp may be memory
    with here as folder, cluster(a, Path(folder)) as (settings, *ports):
        with rpc.channel(settings) as channel:
            join_run(channel, spec, settings, stop=StopSignal())
        try:
            for count in a.counts:
                actors += [
                    SimulatedActor(number, episodes, settings, a.period)
                    for number in range(len(actors), count)
                ]
                for _ in range(FIRST_EPISODES if not rows else 0):
                    actors[0].put()
                for actor in actors[rows[-1]["actors"] if rows else 0 :]:
                    actor.start()
                wait_until(ports[1], "vdfd_learner_steps_total", 1.0, START_TIMEOUT_S)
                time.sleep(a.settle)
                rows.append(measure(actors, a.seconds, *ports))
                show(rows[-1])
        finally:
            for actor in actors:
                actor.ask_to_end()
            for actor in actors:
                actor.close()
    return rows


def show(row: dict) -> None:
    print(
        f"{row['actors']:4d} actors: episodes/s {row['offered_per_s']:.1f} offered, "
        f"{row['stored_per_s']:.1f} stored; "
        f"learner {row['learner_steps_per_s']:.1f} steps/s, work {row['learner_work']:.1%}, "
        f"limiter {row['limiter_wait']:.1%}, data {row['data_wait']:.2%}; "
        f"actors wait {row['actor_wait']:.1%}; "
        f"cores: replay {row['replay_cores']:.2f}, learner {row['learner_cores']:.2f}, "
        f"actors {row['actors_cores']:.2f}, Redis and others {row['others_cores']:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--map", default="3m", help="SMAX map whose episodes are recorded")
    parser.add_argument("--learner", default="qmix", help="algorithm, or milliseconds of a simulated step")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--period", type=float, default=10.0, help="seconds per episode and actor")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before each measurement")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds of each measurement")
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    a = parser.parse_args()
    rows = run(a)
    rounded = [{key: round(value, 3) for key, value in row.items()} for row in rows]
    print(json.dumps({"map": a.map, "learner": a.learner, "period_s": a.period, "rows": rounded}))


if __name__ == "__main__":
    main()
