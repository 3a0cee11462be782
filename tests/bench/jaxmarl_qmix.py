"""Runs JaxMARL's own QMIX on an SMAX map from a checkout of theirs, and writes its curve like curves.csv.

Their code is run, not copied. It needs an environment of its own, with jax, flax, optax, flashbax,
hydra-core, omegaconf, chex, distrax, safetensors, matplotlib, pillow, gymnax and jaxtyping. What it would
tell Weights & Biases is taken down here.

    python tests/bench/jaxmarl_qmix.py DIR --map 3m --seed 1 --steps 200000 --near --out curve.csv

--near: the settings nearest to our preset qmix; without it, those that they publish for SMAX. Further
arguments go to their program, alg.LR=0.001 for example.
"""

import argparse
import csv
import runpy
import sys
import types
from pathlib import Path

COLUMNS = ("env", "map", "algorithm", "seed", "env_steps", "test_win_rate", "test_return")
RETURN_SCALE = 10.0
"""Their greatest return is 2, ours is 20 as in SMAC."""
NEAR = (
    # A battle of 3m has about 14 steps. For 75 of them, 35 gradient steps of 8 pieces with 9 battles each:
    # every battle is used 34 times, and the target is copied every 210 gradient steps.
    *("NUM_ENVS=8", "NUM_STEPS=128", "NUM_EPOCHS=35", "BUFFER_BATCH_SIZE=8", "BUFFER_SIZE=1250"),
    *("HIDDEN_SIZE=64", "MIXER_EMBEDDING_DIM=32", "MIXER_HYPERNET_HIDDEN_DIM=64"),
    *("LR=0.0005", "EPS_DECAY=0.25", "TARGET_UPDATE_INTERVAL=6", "LEARNING_STARTS=1000"),
)


class Curve:
    """Stands for wandb: one row for every evaluation."""

    def __init__(self, path: Path, label: tuple[str, ...]) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._label = label
        self._newest = None

    def log(self, metrics: dict[str, object]) -> None:
        """Every update tells the newest evaluation again."""
        won = float(metrics["test_returned_won_episode"])
        score = RETURN_SCALE * float(metrics["test_returned_episode_returns"])
        if (won, score) != self._newest:
            self._newest = won, score
            self._writer.writerow((*self._label, int(metrics["env_step"]), won, score))
            self._file.flush()


def main() -> None:
    """Runs their program with wandb replaced."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--map", default="3m")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--near", action="store_true")
    parser.add_argument("--limit", type=int, default=60, help="steps of a battle, with --near (SMAC's of 3m)")
    parser.add_argument("--tests", type=int, default=128, help="battles side by side in an evaluation")
    parser.add_argument("--out", type=Path, required=True)
    options, further = parser.parse_known_args()
    name = "jaxmarl-qmix-near" if options.near else "jaxmarl-qmix"
    curve = Curve(options.out, ("smax", options.map, name, str(options.seed)))
    wandb = types.ModuleType("wandb")
    wandb.init, wandb.log = lambda **_: None, curve.log
    sys.modules["wandb"] = wandb
    sys.path.insert(0, str(options.source))
    near = (*(f"alg.{setting}" for setting in NEAR), f"+alg.ENV_KWARGS.max_steps={options.limit}")
    sys.argv = [
        *("qmix_rnn.py", "+alg=ql_rnn_smax", f"SEED={options.seed}", "WANDB_MODE=offline", "SAVE_PATH=null"),
        *(f"alg.MAP_NAME={options.map}", f"alg.TOTAL_TIMESTEPS={options.steps}"),
        *(f"alg.TEST_NUM_ENVS={options.tests}", *(near if options.near else ()), *further),
    ]
    runpy.run_path(str(options.source / "baselines/QLearning/qmix_rnn.py"), run_name="__main__")


if __name__ == "__main__":
    main()
