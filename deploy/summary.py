"""summary.json: what came out of a run that reached its end."""

from typing import Any

from deploy.settings import Config
from deploy.snapshot import Snapshot


def summarise(config: Config, last: Snapshot) -> dict[str, Any]:
    """The contents of summary.json, from the last snapshot of the run."""
    return {
        "preset": config.run.preset,
        "algorithm": config.learner.algorithm,
        "env": config.env.name,
        "map": config.env.map,
        "seed": config.run.seed,
        "env_steps": last.counters.env_steps,
        "episodes": last.counters.episodes,
        "learner_steps": last.learner_steps,
        "samples_per_insert": round(last.samples_per_insert, 4),
        "test_win_rate_last3": last.win_rate_last3,
        "wall_s": round(last.wall_s, 1),
        "restarts": last.restarts,
        "evaluations": [
            {
                "env_steps": evaluation.env_steps,
                "weights_version": evaluation.weights_version,
                "episodes": evaluation.episodes,
                "win_rate": evaluation.win_rate,
                "mean_return": evaluation.mean_return,
                "mean_length": evaluation.mean_length,
            }
            for evaluation in last.evaluations
        ],
    }
