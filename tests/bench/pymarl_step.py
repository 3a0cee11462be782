"""Times EPyMARL's or PyMARL2's QMIX step from a checkout of theirs, on the batch that learner_step.py has.

Their code is run, not copied. One JSON object on stdout.

    python -m tests.bench.pymarl_step --lib epymarl --source DIR --map 3m
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import time
import types
from types import SimpleNamespace

import torch

from tests.bench.learner_step import BATCH, MAPS
from tests.bench.peak_memory import PeakMemory

# PyMARL's settings of QMIX with a recurrent agent that sees its last action and its id.
COMMON = {
    "use_cuda": False,
    "device": "cpu",
    "gamma": 0.99,
    "lr": 5e-4,
    "optim_alpha": 0.99,
    "optim_eps": 1e-5,
    "grad_norm_clip": 10,
    "obs_agent_id": True,
    "obs_last_action": True,
    "agent_output_type": "q",
    "action_selector": "epsilon_greedy",
    "epsilon_start": 1.0,
    "epsilon_finish": 0.05,
    "epsilon_anneal_time": 50_000,
    "evaluation_epsilon": 0.0,
    "mixer": "qmix",
    "mixing_embed_dim": 32,
    "hypernet_embed": 64,
    "hypernet_layers": 2,
    "double_q": True,
    "learner_log_interval": 10**12,
    "env": "sc2",
    "hidden_dim": 64,
    "rnn_hidden_dim": 64,
}
EPYMARL = {
    "agent": "rnn",
    "use_rnn": True,
    "common_reward": True,
    "standardise_rewards": True,
    "standardise_returns": False,
    "target_update_interval_or_tau": 200,
}
PYMARL2 = {
    "agent": "n_rnn",
    "optimizer": "adam",
    "lr": 1e-3,
    "td_lambda": 0.6,
    "q_lambda": False,
    "use_layer_norm": False,
    "use_orthogonal": False,
    "gain": 0.01,
    "use_per": False,
    "target_update_interval": 200,
}


class Silent:
    console_logger = logging.getLogger("silent")

    def log_stat(self, *_args: object) -> None:
        pass


def build(library: str, source: str, map_name: str):
    """(learner, batch) of the library, with random full-length episodes."""
    sys.path.insert(0, f"{source}/src")
    # Their learners need no environment: keep the packages of their registries out.
    environments, matrix = types.ModuleType("envs"), types.ModuleType("envs.matrix_game")
    environments.__path__, matrix.print_matrix_status = [], lambda *_: None
    sys.modules.update({"envs": environments, "envs.matrix_game": matrix})
    from components.episode_buffer import EpisodeBatch
    from components.transforms import OneHot

    agents, obs, state, actions, limit = MAPS[map_name]
    scheme = {
        "state": {"vshape": state},
        "obs": {"vshape": obs, "group": "agents"},
        "actions": {"vshape": (1,), "group": "agents", "dtype": torch.long},
        "avail_actions": {"vshape": (actions,), "group": "agents", "dtype": torch.int},
        "reward": {"vshape": (1,)},
        "terminated": {"vshape": (1,), "dtype": torch.uint8},
    }
    preprocess = {"actions": ("actions_onehot", [OneHot(out_dim=actions)])}
    batch = EpisodeBatch(scheme, {"agents": agents}, BATCH, limit + 1, preprocess=preprocess, device="cpu")
    _fill(batch.data.transition_data, actions, limit)
    sizes = {"n_agents": agents, "n_actions": actions, "state_shape": state}
    settings = SimpleNamespace(**COMMON, **sizes)
    vars(settings).update(EPYMARL if library == "epymarl" else PYMARL2)
    with contextlib.redirect_stdout(open(os.devnull, "w")):  # noqa: PTH123
        if library == "epymarl":
            from controllers.basic_controller import BasicMAC as Controller
            from learners.q_learner import QLearner as Learner
        else:
            from controllers.n_controller import NMAC as Controller  # noqa: N811
            from learners.nq_learner import NQLearner as Learner
        controller = Controller(batch.scheme, {"agents": agents}, settings)
        learner = Learner(controller, batch.scheme, Silent(), settings)
    learner.log_stats_t = 10**15
    return learner, batch


def _fill(data: dict[str, torch.Tensor], actions: int, limit: int) -> None:
    torch.manual_seed(0)
    for name in ("obs", "state", "reward"):
        data[name].copy_(torch.randn(data[name].shape))
    taken = torch.randint(0, actions, data["actions"].shape)
    data["actions"].copy_(taken)
    data["actions_onehot"].copy_(torch.zeros(data["actions_onehot"].shape).scatter_(3, taken, 1.0))
    data["avail_actions"].copy_((torch.rand(data["avail_actions"].shape) < 0.6).int().scatter_(3, taken, 1))
    data["filled"].fill_(1)
    data["terminated"].zero_()
    data["terminated"][:, limit - 1] = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lib", choices=["epymarl", "pymarl2"], required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--map", choices=list(MAPS), default="3m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=7)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    learner, batch = build(a.lib, a.source, a.map)
    for step in (1, 2):
        learner.train(batch, t_env=step, episode_num=step)
    memory, times = PeakMemory(), []
    for step in range(3, a.reps + 3):
        start = time.perf_counter()
        learner.train(batch, t_env=step, episode_num=step)
        times.append(time.perf_counter() - start)
    row = {"step_ms": 1e3 * statistics.median(times), "step_mb": memory.grown_mb()}
    print(json.dumps({"lib": a.lib, "map": a.map, **{name: round(value, 2) for name, value in row.items()}}))


if __name__ == "__main__":
    main()
