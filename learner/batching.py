"""Episodes of different lengths as one batch without padding.

Episodes are sorted by length, longest first, and their slots are laid out time-major: all episodes'
slot 0, then slot 1 of those that have one, and so on. This is the layout of torch's PackedSequence,
so a recurrent network runs on it directly, and everything that is parallel over time runs on rows.
There are no padded steps: what does not exist can't enter a loss, and costs no work.

A row is a slot: the obs, state and avail_actions at time t of one episode, t = 0..L, where slot L is
what followed the last step. A step is a transition: rows t = 0..L-1 are steps. Two facts follow from the
layout and are used everywhere: row B + p is the row after step p, and step p's own row is step_rows_P[p].

Shapes: B episodes, R rows, P steps (P = R - B), T slots of the longest episode, N agents, O obs, S state,
A actions.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.labels import labelled
from common.payload import BatchArrays, unpack
from common.types import EncodedEpisode, EnvSpec
from learner.prioritised import Sampling

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the slots of B episodes lie among the rows."""

    order_B: IntArray
    """Positions of the episodes as they were given, longest first."""
    row_sizes_T: IntArray
    """Rows at each time: how many episodes have a slot t."""
    row_starts_T: IntArray
    step_starts_T: IntArray
    """First step at each time; one shorter than row_starts_T."""

    @classmethod
    def of(cls, lengths_B: IntArray) -> "Layout":
        """The layout of episodes with these numbers of steps."""
        order = np.argsort(-lengths_B, kind="stable")
        times = np.arange(int(lengths_B.max()) + 1)
        row_sizes = (lengths_B[:, None] >= times).sum(axis=0)
        starts = np.concatenate(([0], np.cumsum(row_sizes)))
        step_starts = np.concatenate(([0], np.cumsum(row_sizes[1:])))
        return cls(
            order_B=order, row_sizes_T=row_sizes, row_starts_T=starts[:-1], step_starts_T=step_starts[:-1]
        )

    @property
    def rows(self) -> int:
        """R."""
        return int(self.row_sizes_T.sum())

    @property
    def steps(self) -> int:
        """P."""
        return int(self.row_sizes_T[1:].sum())

    def step_rows_P(self) -> IntArray:
        """The row of every step."""
        sizes = self.row_sizes_T[1:]
        return np.arange(self.steps) + np.repeat(self.row_starts_T[:-1] - self.step_starts_T, sizes)

    def last_rows_B(self) -> IntArray:
        """The rows that are no step: what followed each episode's last one."""
        return np.delete(np.arange(self.rows), self.step_rows_P())


@dataclass(frozen=True, kw_only=True)
class EpisodeBatch:
    """B whole episodes, packed."""

    obs_RNO: Tensor
    state_RS: Tensor
    avail_actions_RNA: Tensor
    """bool"""
    actions_PN: Tensor
    """int64; also the last actions of row B + p"""
    reward_P: Tensor
    terminated_P: Tensor
    """float32; 1 only at the last step of an episode that won or lost, 0 where the time limit cut it"""
    step_rows_P: Tensor
    """int64; row of each step. The row after step p is B + p."""
    last_rows_B: Tensor
    """int64; the rows that are no step, one of each episode, in the order of the rows"""
    row_sizes_T: Tensor
    """int64, always on the CPU: PackedSequence's batch_sizes"""
    sampling: Sampling | None = None
    """Of a prioritised table."""

    @property
    def batch_size(self) -> int:
        """B."""
        return int(self.row_sizes_T[0])

    def last_actions(self) -> Tensor:
        """int64 [R, N]; -1 in the first slot of an episode."""
        first = self.actions_PN.new_full((self.batch_size, self.actions_PN.shape[1]), -1)
        return torch.cat((first, self.actions_PN))

    def row_actions(self) -> Tensor:
        """int64 [R, N]: the actions taken in each row; 0 in the last slot of an episode, which is no step."""
        actions = self.actions_PN.new_zeros(len(self.obs_RNO), self.actions_PN.shape[1])
        actions[self.step_rows_P] = self.actions_PN
        return actions

    @labelled("copy to device")
    def to(self, device: torch.device) -> "EpisodeBatch":
        """The batch on a device; copies from pinned memory do not block."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self.tensors().items()}
        sampling = None if self.sampling is None else self.sampling.to(device)
        return EpisodeBatch(**{**moved, "row_sizes_T": self.row_sizes_T}, sampling=sampling)

    def tensors(self) -> dict[str, Tensor]:
        """What the episodes consist of, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "sampling"}


@labelled("decode")
def decode_batch(
    episodes: Sequence[EncodedEpisode], spec: EnvSpec, *, pin_memory: bool = False
) -> EpisodeBatch:
    """Unpacks episodes straight into a batch's arrays. Raises CodecError for a payload that does not fit."""
    lengths_B = np.array([episode.meta.length for episode in episodes], dtype=np.int64)
    layout = Layout.of(lengths_B)
    batch = _allocate(layout, spec, pin_memory=pin_memory)
    arrays = BatchArrays(
        row_starts=layout.row_starts_T,
        step_starts=layout.step_starts_T,
        obs=batch.obs_RNO.numpy(),
        state=batch.state_RS.numpy(),
        avail_actions=batch.avail_actions_RNA.numpy(),
        actions=batch.actions_PN.numpy(),
        reward=batch.reward_P.numpy(),
    )
    unpack([episodes[position] for position in layout.order_B], spec, arrays)
    terminated_B = np.array([episode.meta.terminated for episode in episodes], dtype=np.float32)
    last_steps = layout.step_starts_T[lengths_B[layout.order_B] - 1] + np.arange(len(episodes))
    batch.terminated_P.zero_()
    batch.terminated_P.numpy()[last_steps] = terminated_B[layout.order_B]
    return batch


def _allocate(layout: Layout, spec: EnvSpec, *, pin_memory: bool) -> EpisodeBatch:
    rows, steps, agents = layout.rows, layout.steps, spec.n_agents

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=pin_memory)

    def index(values: IntArray) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if pin_memory else tensor

    return EpisodeBatch(
        obs_RNO=empty(rows, agents, spec.obs_size, dtype=torch.float32),
        state_RS=empty(rows, spec.state_size, dtype=torch.float32),
        avail_actions_RNA=empty(rows, agents, spec.n_actions, dtype=torch.bool),
        actions_PN=empty(steps, agents, dtype=torch.int64),
        reward_P=empty(steps, dtype=torch.float32),
        terminated_P=empty(steps, dtype=torch.float32),
        step_rows_P=index(layout.step_rows_P()),
        last_rows_B=index(layout.last_rows_B()),
        row_sizes_T=torch.from_numpy(layout.row_sizes_T),
    )
