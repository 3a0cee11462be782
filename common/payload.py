"""An episode's tensors as bytes, and back.

A slot's obs are a row of words, and so is its state: the floats' bits, of 32 or of 16 bits. Most words are
those of the slot before, so a payload says for every slot which words change, and holds for those alone the
exclusive or of the two (the slot before the first is all zeros), without its highest byte if that is zero, as
it mostly is where sign and exponent stay. In this order, little-endian, without gaps:

    obs_marks      bits     [T+1, N*O]  which words change
    state_marks    bits     [T+1, S]
    changes        bytes                of the words that change, obs first, each with or without its highest
    widths         bits     [K]         which have it
    reward         float32  [T]
    avail_actions  bits     [T+1, N*A]
    actions        uint8    [T, N]

Bits are packed eight to a byte, lowest first; every row begins with a new byte, and what is left of its last
one is zero. All of that is one lz4 block without a size header; how large it may become follows from spec and
T, so a decoder never has to believe a length that came with the data. The loops are in common/kernels.

Shapes: T steps of an episode, K words that change, R rows and P steps of a batch (learner/batching.py),
N agents, O obs, S state, A actions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lz4.block
import numpy as np
import numpy.typing as npt

from common.kernels import checking
from common.kernels.blocks import Sizes
from common.kernels.packing import SLACK
from common.kernels.packing import pack as pack_block
from common.kernels.unpacking import unpack as unpack_blocks
from common.types import ActionArray, BoolArray, EncodedEpisode, EnvSpec, Episode, FloatArray
from protos import replay_pb2 as pb

ACCELERATION = 4
"""Of lz4: on episodes of SMAX it keeps most of the gain, on random numbers it gives up early."""
GROUP_BYTES = 256 * 1024
"""Blocks are checked and unpacked together up to this size, since every call costs some microseconds."""
NARROW: dict[int, int] = {pb.ENCODING_DELTA: 3, pb.ENCODING_DELTA_HALF: 1}
"""Bytes of a word without its highest one."""
HALF_EXPONENT = 0x7C00
"""Bits that are all set in infinities and NaN alone."""

Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


class CodecError(ValueError):
    """Data that cannot be what it says it is; the message begins with the field's name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeArrays:
    """The tensors of a payload; see Episode."""

    obs: FloatArray
    state: FloatArray
    reward: FloatArray
    actions: ActionArray
    avail_actions: BoolArray


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchArrays:
    """Where the tensors of a batch's episodes are to be written. All are contiguous.

    Slot t of the episode of rank r is row row_starts[t] + r, its step t is step step_starts[t] + r.
    """

    row_starts: IntArray
    step_starts: IntArray
    obs: FloatArray
    """[R, N, O]"""
    state: FloatArray
    """[R, S]"""
    avail_actions: BoolArray
    """[R, N, A]"""
    actions: IntArray
    """[P, N]"""
    reward: FloatArray
    """[P]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """An episode's block, its sizes not checked yet."""

    position: int
    """Of the episode, among those that were given."""
    data: bytes
    length: int
    narrow: int


def row_words(spec: EnvSpec) -> int:
    """N*O + S."""
    return spec.n_agents * spec.obs_size + spec.state_size


def raw_size(spec: EnvSpec, length: int) -> int:
    """Bytes of the tensors of `length` steps."""
    slots, n = length + 1, spec.n_agents
    return 4 * (slots * row_words(spec) + length) + length * n + slots * n * spec.n_actions


def largest_block(spec: EnvSpec, length: int) -> int:
    """Bytes of the block of `length` steps if every word changes with every slot, and all of it."""
    return _largest(length + 1, spec.n_agents, spec.obs_size, spec.state_size, spec.n_actions)


def encode_episode(episode: Episode, *, half: bool = False) -> EncodedEpisode:
    """Packs an episode's tensors without loss, or with obs and state rounded to half precision.

    Half precision keeps a value within 1/2048 of itself, or 2**-25 if that is more. CodecError: a value is
    beyond its range, 65504.
    """
    slots, n, obs_size = episode.obs.shape
    largest = _largest(slots, n, obs_size, episode.state.shape[1], episode.avail_actions.shape[2])
    block = np.empty(largest + SLACK, np.uint8)
    size = pack_block(
        _words("obs", episode.obs, half=half),
        _words("state", episode.state, half=half),
        np.ascontiguousarray(episode.reward, dtype="<f4").view(np.uint8),
        np.ascontiguousarray(episode.avail_actions, dtype=np.bool_).reshape(-1).view(np.uint8),
        np.ascontiguousarray(episode.actions, dtype=np.uint8).reshape(-1),
        slots,
        block,
    )
    payload = lz4.block.compress(block[:size], mode="fast", acceleration=ACCELERATION, store_size=False)
    encoding = pb.ENCODING_DELTA_HALF if half else pb.ENCODING_DELTA
    return EncodedEpisode(meta=episode.meta, encoding=encoding, payload=payload)


def decode_episode(encoded: EncodedEpisode, spec: EnvSpec) -> EpisodeArrays:
    """Unpacks one episode. Raises CodecError if its payload has not the size that spec and length give."""
    length, n = encoded.meta.length, spec.n_agents
    _check_length(length, spec)
    arrays = BatchArrays(
        row_starts=np.arange(length + 1),
        step_starts=np.arange(length),
        obs=np.empty((length + 1, n, spec.obs_size), np.float32),
        state=np.empty((length + 1, spec.state_size), np.float32),
        avail_actions=np.empty((length + 1, n, spec.n_actions), np.bool_),
        actions=np.empty((length, n), np.int64),
        reward=np.empty(length, np.float32),
    )
    unpack([encoded], spec, arrays)
    return EpisodeArrays(
        obs=arrays.obs,
        state=arrays.state,
        reward=arrays.reward,
        actions=arrays.actions.astype(np.uint8),
        avail_actions=arrays.avail_actions,
    )


def unpack(episodes: Sequence[EncodedEpisode], spec: EnvSpec, arrays: BatchArrays) -> None:
    """Writes the tensors of a batch's episodes, which are given by rank.

    Raises CodecError for a payload that has not the size that spec and length give.
    """
    targets: tuple[Any, ...] = (
        arrays.row_starts,
        arrays.step_starts,
        arrays.obs.reshape(-1).view(np.uint32),
        arrays.state.reshape(-1).view(np.uint32),
        arrays.reward.view(np.uint32),
        arrays.avail_actions.reshape(-1).view(np.uint8),
        arrays.actions.reshape(-1),
    )
    opened = (_open(position, encoded, spec) for position, encoded in enumerate(episodes))
    for blocks in _groups(opened):
        if not unpack_blocks(*_inputs(blocks, spec), blocks[0].position, *targets):
            raise _fault(checking.BAD_SIZE, spec)


def find_faults(episodes: Sequence[EncodedEpisode], spec: EnvSpec) -> list[CodecError | None]:
    """Per episode, why this environment cannot have played it, if so."""
    faults: list[CodecError | None] = [None] * len(episodes)

    def opened() -> Iterator[_Block]:
        for position, encoded in enumerate(episodes):
            try:
                block = _open(position, encoded, spec)
            except CodecError as error:
                faults[position] = error
            else:
                yield block

    for blocks in _groups(opened()):
        positions = [block.position for block in blocks]
        claimed = np.array([episodes[position].meta.episode_return for position in positions], np.float64)
        found, wrong = checking.check(*_inputs(blocks, spec), claimed)
        for number in np.flatnonzero(found):
            fault = _fault(int(found[number]), spec, claimed[number], wrong[number])
            faults[positions[number]] = fault
    return faults


def _fault(found: int, spec: EnvSpec, claimed: float = 0.0, wrong: float = 0.0) -> CodecError:
    """What a number from the kernels means."""
    field, problem = {
        checking.BAD_SIZE: ("payload", "its size is not that of as many steps, or as many words, as it says"),
        checking.BAD_OBS: ("obs", "holds a value that is not finite"),
        checking.BAD_STATE: ("state", "holds a value that is not finite"),
        checking.BAD_ACTION: ("actions", f"{wrong:.0f} is not one of {spec.n_actions} actions"),
        checking.UNAVAILABLE: ("actions", f"{wrong:.0f} was chosen, which is not available"),
        checking.NOTHING_AVAILABLE: ("avail_actions", "an agent has no available action"),
        checking.BAD_REWARD: ("reward", "holds a value that is not finite"),
        checking.BAD_RETURN: ("episode_return", f"{claimed} is not the sum of the rewards, {wrong}"),
    }[found]
    return CodecError(field, problem)


def _largest(slots: int, agents: int, obs_size: int, state_size: int, actions: int) -> int:
    words = slots * (agents * obs_size + state_size)
    marks = slots * (_bytes_of(agents * obs_size) + _bytes_of(state_size))
    rest = 4 * (slots - 1) + slots * _bytes_of(agents * actions) + (slots - 1) * agents
    return marks + 4 * words + _bytes_of(words) + rest


def _words(field: str, floats: FloatArray, *, half: bool) -> npt.NDArray[Any]:
    """The floats' bits, one after the other."""
    if not half:
        return np.ascontiguousarray(floats, dtype=np.float32).reshape(-1).view(np.uint32)
    with np.errstate(over="ignore"):
        words: npt.NDArray[np.uint16] = floats.astype(np.float16).reshape(-1).view(np.uint16)
    if (words & HALF_EXPONENT == HALF_EXPONENT).any():
        raise CodecError(field, "a value is not finite, or beyond the range of half precision, 65504")
    return words


def _open(position: int, encoded: EncodedEpisode, spec: EnvSpec) -> _Block:
    """The block. Raises CodecError if length or encoding are impossible, or it is none."""
    length = encoded.meta.length
    _check_length(length, spec)
    narrow = NARROW.get(encoded.encoding)
    if narrow is None:
        raise CodecError("encoding", f"{encoded.encoding} is not an encoding this version knows")
    largest = largest_block(spec, length)
    try:  # a block that would grow past `largest` fails here instead of filling the memory
        data = lz4.block.decompress(encoded.payload, uncompressed_size=largest)
    except lz4.block.LZ4BlockError as error:
        raise CodecError("payload", f"is no lz4 block of at most {largest} bytes ({error})") from error
    return _Block(position=position, data=data, length=length, narrow=narrow)


def _check_length(length: int, spec: EnvSpec) -> None:
    if not 1 <= length <= spec.episode_limit:
        raise CodecError("length", f"{length} is not between 1 and the episode limit {spec.episode_limit}")


def _groups(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    """As many as have GROUP_BYTES together."""
    group, size = list[_Block](), 0
    for block in blocks:
        if group and size + len(block.data) > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(block)
        size += len(block.data)
    if group:
        yield group


def _inputs(blocks: list[_Block], spec: EnvSpec) -> tuple[Bytes, IntArray, IntArray, IntArray, Sizes]:
    """What the kernels begin with."""
    return (
        np.frombuffer(b"".join([block.data for block in blocks]), np.uint8),
        np.cumsum([len(block.data) for block in blocks]),
        np.array([block.length for block in blocks]),
        np.array([block.narrow for block in blocks]),
        (spec.n_agents, spec.n_actions, spec.n_agents * spec.obs_size, spec.state_size),
    )


def _bytes_of(bits: int) -> int:
    return (bits + 7) // 8
