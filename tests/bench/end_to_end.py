"""`make bench-e2e`: a whole local cluster trains on SMAX; what it makes per second, and who waits for whom.

Every figure is what the processes tell Prometheus, from after the warm-up to the end of the measurement.
The last line is one JSON object.

    python -m tests.bench.end_to_end --maps 3m 2s3z --algorithms qmix vdfd --seconds 60
    python -m tests.bench.end_to_end --maps 3m --free-actors     # the rate limiter lets them run ahead
"""

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.scrape import Look, busy_s, free_ports, wait_until

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
EPYMARL_STEPS_PER_S = (67, 106)
"""EPyMARL's QMIX on SMAClite's 2s3z, training included, on two cores."""
NO_LIMIT = 10**9


def command(a: argparse.Namespace, map_name: str, algorithm: str, run_dir: Path, port: int) -> list[str]:
    options = ["--algo", algorithm, "--env", "smax", "--map", map_name, "--actors", str(a.actors)]
    settings = [f"metrics.port={port}", "metrics.serve=true", *a.settings]
    if a.free_actors:
        settings.append(f"replay.insert_lead_episodes={NO_LIMIT}")
    train = ["-m", "deploy.cli", "train", "--steps", str(NO_LIMIT), "--run-dir", str(run_dir)]
    return [sys.executable, *train, *options, *settings]


def measure(
    a: argparse.Namespace, map_name: str, algorithm: str, run_dir: Path
) -> tuple[dict[str, tuple[Look, Look]], float]:
    """Process -> its figures at the beginning and at the end; and the cores that all of the machine used."""
    names = ["replay", "learner", *(f"actor-{number}" for number in range(a.actors)), "evaluator"]
    first_port = free_ports(len(names))
    ports = dict(zip(names, range(first_port, first_port + len(names)), strict=True))
    with (run_dir.parent / "log").open("wb") as log:
        train = subprocess.Popen(command(a, map_name, algorithm, run_dir, first_port), stdout=log, stderr=log)
        try:
            wait_until(ports["learner"], "vdfd_learner_steps_total", 1.0, START_TIMEOUT_S)
            time.sleep(a.warm_up)
            before, machine = {name: Look.at(port) for name, port in ports.items()}, busy_s()
            time.sleep(a.seconds)
            cores = (busy_s() - machine) / a.seconds
            return {name: (before[name], Look.at(port)) for name, port in ports.items()}, cores
        finally:
            train.send_signal(signal.SIGINT)
            train.wait(STOP_TIMEOUT_S)


def learner_shares(before: Look, after: Look) -> dict[str, float]:
    """Of the learner's time: its parts and its waits; unpacking runs beside them."""
    parts = sorted(key[1] for key in after.values if key[0] == "vdfd_learner_part_seconds_total")
    shares = {part: after.rate_since(before, "vdfd_learner_part_seconds_total", part) for part in parts}
    wait = after.rate_since(before, "vdfd_learner_data_wait_seconds_total")
    limiter = after.rate_since(before, "vdfd_learner_limiter_wait_seconds_total")
    beside = after.rate_since(before, "vdfd_learner_decode_seconds_total")
    return {**shares, "wait_limiter": limiter, "wait_data": wait - limiter, "decode_beside": beside}


def actor_shares(before: Look, after: Look) -> dict[str, float]:
    """Of an actor's time."""
    names = {
        "environment": "vdfd_actor_environment_seconds_total",
        "policy": "vdfd_actor_inference_seconds_total",
        "wait_limiter": "vdfd_actor_queue_wait_seconds_total",
        "pack_beside": "vdfd_actor_pack_seconds_total",
    }
    return {short: after.rate_since(before, name) for short, name in names.items()}


def summarise(a: argparse.Namespace, looks: dict[str, tuple[Look, Look]], cores: float) -> dict[str, object]:
    replay, learner = looks["replay"], looks["learner"]
    env_steps_s = replay[1].rate_since(replay[0], "vdfd_run_env_steps_total")
    episodes_s = replay[1].rate_since(replay[0], "vdfd_run_episodes_total")
    batches_s = replay[1].rate_since(replay[0], "vdfd_replay_samples_total")
    shares = {"learner": learner_shares(*learner)}
    shares |= {name: actor_shares(*pair) for name, pair in looks.items() if name.startswith("actor")}
    evaluator = looks["evaluator"]
    shares["evaluator"] = {"idle": evaluator[1].rate_since(evaluator[0], "vdfd_evaluator_idle_seconds_total")}
    cpu = {name: b.rate_since(a_, "process_cpu_seconds_total") for name, (a_, b) in looks.items()}
    return {
        "actors": a.actors,
        "settings": a.settings + ["limiter off for actors"] * a.free_actors,
        "seconds": a.seconds,
        "env_steps_per_s": round(env_steps_s, 1),
        "episodes_per_s": round(episodes_s, 2),
        "steps_per_episode": round(env_steps_s / episodes_s, 1) if episodes_s else None,
        "learner_steps_per_s": round(learner[1].rate_since(learner[0], "vdfd_learner_steps_total"), 2),
        "samples_per_insert": round(batches_s / episodes_s, 1) if episodes_s else None,
        "times_epymarl_2s3z": [round(env_steps_s / theirs, 1) for theirs in EPYMARL_STEPS_PER_S],
        "shares": {name: {k: round(v, 3) for k, v in part.items()} for name, part in shares.items()},
        "cores_used": {name: round(used, 2) for name, used in cpu.items()},
        "cores_used_by_others": round(cores - sum(cpu.values()), 2),
    }


def show(map_name: str, algorithm: str, result: dict) -> None:
    print(
        f"{algorithm} on {map_name}: {result['env_steps_per_s']} environment steps/s, "
        f"{result['learner_steps_per_s']} learner steps/s, {result['samples_per_insert']} samples per insert"
    )
    for name, parts in result["shares"].items():
        listed = "  ".join(f"{part} {share:.1%}" for part, share in parts.items() if share >= 0.0005)
        print(f"  {name:10} {listed}  ({result['cores_used'][name]:.2f} cores)")
    print(
        f"  replay     ({result['cores_used']['replay']:.2f} cores); "
        f"Redis and all else on this machine ({result['cores_used_by_others']:.2f} cores)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", nargs="+", default=["3m", "2s3z", "5m_vs_6m"])
    parser.add_argument("--algorithms", nargs="+", default=["qmix", "vdfd"])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--warm-up", type=float, default=25.0, help="seconds after the first learner step")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--free-actors", action="store_true", help="let actors run ahead without a limit")
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    a = parser.parse_args()
    results = {}
    for map_name, algorithm in itertools.product(a.maps, a.algorithms):
        with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:  # /tmp may be memory
            try:
                looks, cores = measure(a, map_name, algorithm, Path(folder) / "run")
            except (TimeoutError, OSError) as error:
                sys.exit(f"{error}\n{(Path(folder) / 'log').read_text()[-3000:]}")
        result = summarise(a, looks, cores)
        show(map_name, algorithm, result)
        results[f"{algorithm} {map_name}"] = result
    print(json.dumps(results))


if __name__ == "__main__":
    main()
