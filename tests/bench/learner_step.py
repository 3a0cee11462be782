"""Times one training step on a batch of full-length episodes, in this process. One JSON object on stdout.

python -m tests.bench.learner_step --algorithm vdfd --map 3m --threads 2
"""

import argparse
import json
import statistics
import time

import torch

from common.exploration import ExplorationSettings
from common.payload import encode_episode
from common.settings import AgentSettings
from common.types import EnvSpec
from learner.algorithms.registry import ALGORITHMS, build_algorithm
from learner.batching import EpisodeBatch, decode_batch
from learner.malloc import keep_freed_memory
from learner.settings import LearnerSettings
from tests.bench.peak_memory import PeakMemory
from tests.episodes import make_episode

BATCH = 32
# SMAC's sizes: agents, obs, state, actions, episode limit.
MAPS = {
    "3m": (3, 30, 48, 9, 60),
    "5m_vs_6m": (5, 55, 98, 12, 70),
    "MMM2": (10, 176, 322, 18, 180),
    "27m_vs_30m": (27, 285, 1170, 36, 180),
}


def smac_spec(name: str) -> EnvSpec:
    agents, obs, state, actions, limit = MAPS[name]
    return EnvSpec(
        env="bench",
        map=name,
        n_agents=agents,
        n_actions=actions,
        obs_size=obs,
        state_size=state,
        episode_limit=limit,
        fallback_action=1,
    )


def full_batch(spec: EnvSpec) -> EpisodeBatch:
    """32 episodes that last to the limit: nothing is gained by their lengths."""
    episodes = [make_episode(spec, length=spec.episode_limit, seq=i + 1) for i in range(BATCH)]
    return decode_batch([encode_episode(episode) for episode in episodes], spec)


def measure(algorithm_name: str, map_name: str, *, threads: int, repeats: int, device: str) -> dict:
    keep_freed_memory()
    torch.set_num_threads(threads)
    place = torch.device(device)
    spec = smac_spec(map_name)
    batch = full_batch(spec).to(place)
    settings = LearnerSettings(algorithm=algorithm_name)
    algorithm = build_algorithm(
        spec, AgentSettings(), settings, exploration=ExplorationSettings(), device=place, seed=0
    )
    for _ in range(2):
        algorithm.train_step(batch)
    memory, times = PeakMemory(), []
    for _ in range(repeats):
        start = time.perf_counter()
        losses = algorithm.train_step(batch)
        float(losses["loss/total"])  # waits for a GPU
        times.append(time.perf_counter() - start)
    return {
        "algorithm": algorithm_name,
        "map": map_name,
        "threads": threads,
        "device": device,
        "step_ms": round(1e3 * statistics.median(times), 2),
        "step_mb": round(memory.grown_mb(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=list(ALGORITHMS), default="qmix")
    parser.add_argument("--map", choices=list(MAPS), default="3m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    print(json.dumps(measure(a.algorithm, a.map, threads=a.threads, repeats=a.repeats, device=a.device)))


if __name__ == "__main__":
    main()
