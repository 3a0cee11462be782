"""Losses and gradient norms of the first steps on fixed batches, as JSON: equal before and after a speed-up.

python -m tests.bench.fixed_batch > before.json     # at one commit
python -m tests.bench.fixed_batch before.json       # at another: prints the largest relative differences
"""

import argparse
import json
from pathlib import Path

import torch

from common.exploration import ExplorationSettings
from common.payload import encode_episode
from common.settings import AgentSettings
from learner.algorithms.registry import build_algorithm
from learner.batching import decode_batch
from learner.settings import LearnerSettings
from tests.bench.learner_step import smac_spec
from tests.episodes import make_episode

STEPS = 3
LENGTHS = (8, 11, 14, 17, 20, 23, 3, 6)


def figures() -> dict[str, float]:
    torch.set_num_threads(1)
    found = {}
    for map_name in ("3m", "MMM2"):
        spec = smac_spec(map_name)
        episodes = [make_episode(spec, length=n, seq=i + 1) for i, n in enumerate(LENGTHS)]
        batch = decode_batch([encode_episode(episode) for episode in episodes], spec)
        for name in ("qmix", "vdfd"):
            settings = LearnerSettings(algorithm=name)
            algorithm = build_algorithm(
                spec,
                AgentSettings(),
                settings,
                exploration=ExplorationSettings(),
                device=torch.device("cpu"),
                seed=0,
            )
            for step in range(STEPS):
                for key, value in algorithm.train_step(batch).items():
                    if key.startswith(("loss/", "grad_norm/")):
                        found[f"{map_name} {name} step {step} {key}"] = float(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", nargs="?", type=Path, help="figures of another commit")
    a = parser.parse_args()
    now = figures()
    if a.before is None:
        print(json.dumps(now, indent=1))
        return
    before = json.loads(a.before.read_text())
    differences = {name: abs(value - before[name]) / abs(before[name]) for name, value in now.items()}
    for name, difference in sorted(differences.items(), key=lambda item: -item[1])[:5]:
        print(f"{difference:.1e}  {name}  {before[name]:.7g} {now[name]:.7g}")


if __name__ == "__main__":
    main()
