"""An episode's tensors as bytes, and back.

A slot's obs and state are one row of W = N*O + S words: the floats' bits, of 32 or of 16 bits. Most words are
those of the slot before, so a payload holds, for every slot, which words differ, and for those alone the
exclusive or of the two (the slot before the first is all zeros). In this order, little-endian, without gaps:

    reward         float32  [T]
    changes        words    [K]        in the order of the bits that are set in `changed`
    changed        bits     [T+1, W]
    avail_actions  bits     [T+1, N*A]
    actions        uint8    [T, N]

Bits are packed eight to a byte, first bit highest, and every row begins with a new byte. All of that is one
lz4 block without a size header; how large it may become follows from spec and T, so a decoder never has to
believe a length that came with the data.

Shapes: E episodes, R rows (slots of all episodes, one after the other), T steps of an episode, K changed
words, N agents, O obs, S state, A actions, W words of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lz4.block
import numpy as np
import numpy.typing as npt

from common.types import ActionArray, BoolArray, EncodedEpisode, EnvSpec, Episode, FloatArray
from protos import replay_pb2 as pb

ACCELERATION = 8
"""Of lz4: on episodes of SMAX it keeps nine tenths of the gain, on random numbers it gives up early."""
WORDS: dict[int, np.dtype[Any]] = {
    pb.ENCODING_DELTA: np.dtype("<u4"),
    pb.ENCODING_DELTA_HALF: np.dtype("<u2"),
}
EXPONENTS: dict[int, int] = {pb.ENCODING_DELTA: 0x7F800000, pb.ENCODING_DELTA_HALF: 0x7C00}
"""Bits of a float's exponent. All of them are set in infinities and NaN alone."""
RETURN_TOLERANCE = 1e-3

Words = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


class CodecError(ValueError):
    """Data that cannot be what it says it is; the message begins with the field's name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """A payload's parts, as views into the unpacked block."""

    reward: FloatArray
    """[T]"""
    changes: Words
    """[K]"""
    changed: Bytes
    """[T+1, bytes of W bits]"""
    avail_actions: Bytes
    """[T+1, bytes of N*A bits]"""
    actions: ActionArray
    """[T, N]"""


def row_words(spec: EnvSpec) -> int:
    """W."""
    return spec.n_agents * spec.obs_size + spec.state_size


def raw_size(spec: EnvSpec, length: int) -> int:
    """Bytes of the tensors of `length` steps."""
    slots, n = length + 1, spec.n_agents
    return 4 * (slots * row_words(spec) + length) + length * n + slots * n * spec.n_actions


def largest_block(spec: EnvSpec, length: int) -> int:
    """Bytes of the unpacked block of `length` steps if every word changes with every slot."""
    return _fixed_size(spec, length) + 4 * (length + 1) * row_words(spec)


def pack(episode: Episode, *, half: bool) -> bytes:
    """The payload. With `half`, obs and state as float16; CodecError if one is beyond its range."""
    slots = len(episode.state)
    rows = np.concatenate((episode.obs.reshape(slots, -1), episode.state), axis=1, dtype="<f4")
    words = _half(rows, episode.obs[0].size) if half else rows.view("<u4")
    changes = np.empty_like(words)
    changes[0] = words[0]
    np.bitwise_xor(words[1:], words[:-1], out=changes[1:])
    changed = changes != 0
    block = (
        np.ascontiguousarray(episode.reward, dtype="<f4"),
        np.compress(changed.ravel(), changes.ravel()),
        np.packbits(changed, axis=1),
        np.packbits(episode.avail_actions.reshape(slots, -1), axis=1),
        np.ascontiguousarray(episode.actions, dtype=np.uint8),
    )
    payload: bytes = lz4.block.compress(
        b"".join(part.data for part in block), mode="fast", acceleration=ACCELERATION, store_size=False
    )
    return payload


def open_payload(encoded: EncodedEpisode, spec: EnvSpec) -> Payload:
    """The parts. Raises CodecError unless their sizes are those that spec and length give."""
    length = encoded.meta.length
    if not 1 <= length <= spec.episode_limit:
        raise CodecError("length", f"{length} is not between 1 and the episode limit {spec.episode_limit}")
    word = WORDS.get(encoded.encoding)
    if word is None:
        raise CodecError("encoding", f"{encoded.encoding} is not an encoding this version knows")
    block = _unpack(encoded.payload, largest_block(spec, length))
    count, rest = divmod(len(block) - _fixed_size(spec, length), word.itemsize)
    if count < 0 or rest:
        raise CodecError("payload", f"{len(block)} bytes are not {length} steps of this environment")
    slots, data = length + 1, np.frombuffer(block, np.uint8)
    changes_end = 4 * length + count * word.itemsize
    changed_end = changes_end + slots * _bytes_of(row_words(spec))
    avail_end = changed_end + slots * _avail_bytes(spec)
    return Payload(
        reward=data[: 4 * length].view("<f4"),
        changes=data[4 * length : changes_end].view(word),
        changed=data[changes_end:changed_end].reshape(slots, -1),
        avail_actions=data[changed_end:avail_end].reshape(slots, -1),
        actions=data[avail_end:].reshape(length, -1),
    )


def unpack_changes(parts: Sequence[Payload], spec: EnvSpec) -> Words:
    """[R, W]: which bits each row changes in the one before, of episodes of one encoding."""
    bits = np.unpackbits(np.concatenate([part.changed for part in parts]), axis=1, count=row_words(spec))
    changes = np.concatenate([part.changes for part in parts])
    rows = np.zeros(bits.shape, changes.dtype)
    rows.reshape(-1)[np.flatnonzero(bits.view(np.bool_))] = changes
    return rows


def unpack_rows(part: Payload, spec: EnvSpec) -> npt.NDArray[Any]:
    """[T+1, W] floats of one episode, as wide as they were packed."""
    words = unpack_changes([part], spec)
    for slot in range(1, len(words)):
        np.bitwise_xor(words[slot], words[slot - 1], out=words[slot])
    return words.view(f"<f{words.itemsize}")


def unpack_avail_actions(parts: Sequence[Payload], spec: EnvSpec) -> BoolArray:
    """[R, N, A]."""
    n, a = spec.n_agents, spec.n_actions
    bits = np.unpackbits(np.concatenate([part.avail_actions for part in parts]), axis=1, count=n * a)
    return bits.view(np.bool_).reshape(-1, n, a)


def check(episodes: Sequence[EncodedEpisode], parts: Sequence[Payload], spec: EnvSpec) -> None:
    """Raises CodecError, naming the field, unless this environment can have played all these episodes."""
    lengths = np.array([len(part.reward) for part in parts])
    _check_changes(parts, lengths, spec)
    for encoded, part in zip(episodes, parts, strict=True):
        _check_finite(encoded, part, spec)
    _check_actions(parts, lengths, spec)
    claimed = np.array([encoded.meta.episode_return for encoded in episodes])
    _check_returns(parts, lengths, claimed)


def _check_changes(parts: Sequence[Payload], lengths: IntArray, spec: EnvSpec) -> None:
    changed = np.concatenate([part.changed for part in parts])
    if changed[:, -1].any() and (changed[:, -1] & ((1 << (-row_words(spec) % 8)) - 1)).any():
        raise CodecError("payload", "marks words behind the end of a row as changed")
    row_counts = np.bitwise_count(changed).sum(axis=1, dtype=np.int64)
    counts = np.add.reduceat(row_counts, _starts(lengths + 1))
    given = np.array([len(part.changes) for part in parts])
    if (counts != given).any():
        raise CodecError("payload", f"holds {given.sum()} changed words where {counts.sum()} are marked")


def _check_finite(encoded: EncodedEpisode, part: Payload, spec: EnvSpec) -> None:
    """A float is not finite if all bits of its exponent are set; a bit that no change has is never set."""
    exponent = EXPONENTS[encoded.encoding]
    if int(np.bitwise_or.reduce(part.changes)) & exponent != exponent:
        return
    finite = np.isfinite(unpack_rows(part, spec))
    split = spec.n_agents * spec.obs_size
    for name, part_finite in (("obs", finite[:, :split]), ("state", finite[:, split:])):
        if not part_finite.all():
            raise CodecError(name, "holds a value that is not finite")


def _check_actions(parts: Sequence[Payload], lengths: IntArray, spec: EnvSpec) -> None:
    """What is chosen is available, and after the last step, where nothing is chosen, something is."""
    actions = np.concatenate([part.actions for part in parts])
    if int(actions.max()) >= spec.n_actions:
        raise CodecError("actions", f"{int(actions.max())} is not one of {spec.n_actions} actions")
    avail = unpack_avail_actions(parts, spec)
    last = np.cumsum(lengths + 1) - 1
    if not avail[last].any(axis=-1).all():
        raise CodecError("avail_actions", "an agent has no available action")
    stepped = np.delete(np.arange(len(avail)), last)
    if not avail[stepped[:, None], np.arange(spec.n_agents), actions].all():
        raise CodecError("actions", "an action was chosen that is not available")


def _check_returns(parts: Sequence[Payload], lengths: IntArray, claimed: npt.NDArray[np.float64]) -> None:
    rewards = np.concatenate([part.reward for part in parts])
    with np.errstate(invalid="ignore"):
        totals = np.add.reduceat(rewards, _starts(lengths), dtype=np.float64)
        wrong = ~(np.abs(totals - claimed) <= RETURN_TOLERANCE * (1.0 + np.abs(totals)))
    if not np.isfinite(totals).all():
        raise CodecError("reward", "holds a value that is not finite")
    if wrong.any():
        given, total = claimed[wrong][0], totals[wrong][0]
        raise CodecError("episode_return", f"{given} is not the sum of the rewards, {total}")


def _half(rows: FloatArray, obs_words: int) -> npt.NDArray[np.uint16]:
    with np.errstate(over="ignore"):
        words: npt.NDArray[np.uint16] = rows.astype("<f2").view("<u2")
    exponent = EXPONENTS[pb.ENCODING_DELTA_HALF]
    beyond = (words & exponent == exponent).any(axis=0)
    if beyond.any():
        field = "obs" if beyond[:obs_words].any() else "state"
        raise CodecError(field, "a value is not finite, or beyond the range of half precision, 65504")
    return words


def _unpack(payload: bytes | memoryview, largest: int) -> bytes:
    try:  # a block that would grow past `largest` fails here instead of filling the memory
        block: bytes = lz4.block.decompress(payload, uncompressed_size=largest)
    except lz4.block.LZ4BlockError as error:
        raise CodecError("payload", f"is no lz4 block of at most {largest} bytes ({error})") from error
    return block


def _fixed_size(spec: EnvSpec, length: int) -> int:
    """Bytes of everything but the changes."""
    return (
        4 * length + (length + 1) * (_bytes_of(row_words(spec)) + _avail_bytes(spec)) + length * spec.n_agents
    )


def _avail_bytes(spec: EnvSpec) -> int:
    return _bytes_of(spec.n_agents * spec.n_actions)


def _bytes_of(bits: int) -> int:
    return (bits + 7) // 8


def _starts(sizes: IntArray) -> IntArray:
    starts: IntArray = np.cumsum(sizes) - sizes
    return starts
