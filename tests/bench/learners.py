"""`make bench`: our learner steps beside the padded reference, and beside EPyMARL and PyMARL2 where they are.

Every row is a process of its own; the rows of a round follow each other at once, and ratios are taken round
by round, so that they hold on a machine whose speed drifts. The last line is one JSON object.

    python -m tests.bench.learners --rounds 5 --epymarl DIR --pymarl2 DIR
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from learner.idle_threads import let_idle_threads_sleep
from tests.bench.learner_step import MAPS


def commands(map_name: str, a: argparse.Namespace) -> dict[str, list[str]]:
    common = ["--map", map_name, "--threads", str(a.threads)]
    ours = ["tests.bench.learner_step", *common, "--repeats", str(a.repeats)]
    rows = {
        "qmix": [*ours, "--algorithm", "qmix"],
        "vdfd": [*ours, "--algorithm", "vdfd"],
        "reference": ["tests.bench.padded_reference", *common, "--repeats", str(a.repeats)],
    }
    for name, folder in (("epymarl", a.epymarl), ("pymarl2", a.pymarl2)):
        if folder is not None:
            theirs = ["tests.bench.pymarl_step", *common, "--reps", str(a.repeats)]
            rows[name] = [*theirs, "--lib", name, "--source", str(folder)]
    return rows


def run(command: list[str]) -> dict[str, float]:
    environment = dict(os.environ)
    if command[0] == "tests.bench.learner_step":
        let_idle_threads_sleep(environment)  # as `vdfd learner` does
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def compare(map_name: str, a: argparse.Namespace) -> dict[str, float]:
    rounds = [{name: run(c) for name, c in commands(map_name, a).items()} for _ in range(a.rounds)]
    for figure in ("step_ms", "step_mb"):
        medians = {name: statistics.median(r[name][figure] for r in rounds) for name in rounds[0]}
        row = "".join(f"  {name} {value:8.1f}" for name, value in medians.items())
        print(f"{map_name:12s} {figure}{row}", flush=True)
    ratios = {}
    for other in [name for name in rounds[0] if name not in ("qmix", "vdfd")]:
        for own in ("qmix", "vdfd"):
            for key, figure in (("speed", "step_ms"), ("memory", "step_mb")):
                ratio = statistics.median(r[other][figure] / max(r[own][figure], 1e-9) for r in rounds)
                ratios[f"{map_name}_{own}_{key}_vs_{other}"] = round(ratio, 2)
    for name, ratio in ratios.items():
        print(f"    {name:48s} {ratio:6.2f}x", flush=True)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", nargs="+", choices=list(MAPS), default=list(MAPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epymarl", type=Path, help="a checkout of EPyMARL")
    parser.add_argument("--pymarl2", type=Path, help="a checkout of PyMARL2")
    a = parser.parse_args()
    result: dict[str, float] = {}
    for map_name in a.maps:
        result.update(compare(map_name, a))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
