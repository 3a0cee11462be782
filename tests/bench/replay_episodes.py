"""Episodes that look like StarCraft's to a codec; NumPy alone, so that any environment has them.

An agent sees blocks of features, one per unit: zeros while the unit is dead or out of sight (which lasts for
some steps), else a one-hot type, values on a grid such as health, and continuous ones that drift.

Shapes: T steps, N agents, O obs, S state, A actions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a map's episodes; all of them last to the limit."""

    steps: int
    agents: int
    obs: int
    state: int
    actions: int
    enemies: int
    window: int
    """Episodes that the tables keep."""


SHAPES = {
    "mmm2": Shape(steps=120, agents=10, obs=176, state=322, actions=18, enemies=12, window=600),
    "3m": Shape(steps=25, agents=3, obs=30, state=48, actions=9, enemies=3, window=5000),
}
DRIFT = 0.02
GRID = 45
CHANGES_SIGHT = 0.05
TYPES = 3


def make_arrays(shape: Shape, seed: int) -> Arrays:
    """One episode: obs, state and avail_actions [T+1, ...]; actions, reward and terminated [T, ...]."""
    rng = np.random.default_rng(seed)
    slots, t, n, a = shape.steps + 1, shape.steps, shape.agents, shape.actions
    actions = rng.integers(0, a, (t, n))
    avail = rng.random((slots, n, a)) < 0.4
    avail[..., 1] = True
    np.put_along_axis(avail[:-1], actions[..., None], True, axis=-1)
    units = n - 1 + shape.enemies + 2
    return {
        "obs": _blocks(rng, (slots, n), shape.obs, units, seen=0.45),
        "state": _blocks(rng, (slots,), shape.state, n + shape.enemies, seen=0.7),
        "avail_actions": avail,
        "actions": actions,
        "reward": (rng.random(t) * (rng.random(t) < 0.4)).astype(np.float32),
        "terminated": np.arange(t) == t - 1,
    }


def raw_bytes(arrays: Arrays) -> int:
    """What the arrays take in memory."""
    return sum(array.nbytes for array in arrays.values())


def _blocks(
    rng: np.random.Generator, lead: tuple[int, ...], size: int, units: int, *, seen: float
) -> npt.NDArray[np.float32]:
    """[*lead, size] features in blocks of one unit each; the first axis is time."""
    width = max(1, size // units)
    blocks = -(-size // width)
    start = rng.uniform(-1, 1, (*lead[1:], blocks, width))
    values = start + np.cumsum(rng.normal(0, DRIFT, (*lead, blocks, width)), axis=0)
    values[..., ::2] = np.round(values[..., ::2] * GRID) / GRID
    if width > 2 * TYPES:
        values[..., -TYPES:] = np.eye(TYPES)[rng.integers(0, TYPES, blocks)]
    at_first = rng.random((*lead[1:], blocks)) < seen
    toggled = np.cumsum(rng.random((*lead, blocks)) < CHANGES_SIGHT, axis=0) % 2 == 1
    in_sight = np.logical_xor(toggled, at_first)
    visible = (values * in_sight[..., None]).reshape(*lead, blocks * width)  # with negative zeros, too
    return np.ascontiguousarray(visible[..., :size], dtype=np.float32)
