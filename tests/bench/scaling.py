"""Whether more actors change anything but speed: one run per number of actors, compared.

python -m tests.bench.scaling --actors 2 8 --steps 12000
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common.exploration import epsilon_at
from deploy.config import Sources, load_config

PLAYED = re.compile(r"run at (\d+) env steps.* epsilon ([\d.]+)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--actors", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE of the configuration")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for actors in options.actors:
            run_dir = Path(folder, f"{actors}-actors")
            train(run_dir, actors, options)
            report(run_dir, actors)


def train(run_dir, actors, options):
    command = (sys.executable, "-m", "deploy.cli", "train", "--run-dir", str(run_dir))
    arguments = ("--actors", str(actors), "--steps", str(options.steps), *options.overrides)
    subprocess.run((*command, *arguments), check=True, stdout=subprocess.DEVNULL)


def report(run_dir, actors):
    """Prints what decides learning, and how far the actors' epsilon was from the schedule."""
    summary = json.loads((run_dir / "summary.json").read_text())
    exploration = load_config(Sources(file=run_dir / "config.yaml")).actor.exploration
    seen = [
        (int(env_steps), float(epsilon))
        for log in sorted((run_dir / "logs").glob("actor-*.log"))
        for env_steps, epsilon in PLAYED.findall(log.read_text())
    ]
    off = max((abs(epsilon - epsilon_at(exploration, env_steps)) for env_steps, epsilon in seen), default=0.0)
    points = [evaluation["env_steps"] for evaluation in summary["evaluations"]]
    print(
        f"{actors} actors: {summary['env_steps']} env steps in {summary['wall_s']:.0f} s, "
        f"{summary['episodes']} episodes, {summary['learner_steps']} learner steps, "
        f"samples per insert {summary['samples_per_insert']:.2f}, evaluations at {points}, "
        f"epsilon read {len(seen)} times, at most {off:.3f} from the schedule (printed with two digits)",
        flush=True,
    )


if __name__ == "__main__":
    main()
