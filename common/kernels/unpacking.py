"""Blocks as a batch's arrays.

Positions: `at` and `*_at` are places in an array of bytes. Shapes: R rows, P steps, T times, as in a batch
(learner/batching.py): slot t of the episode of rank r is row row_starts_T[t] + r, its step t is step
step_starts_T[t] + r. N agents, A actions, O obs, S state.
"""

import numpy as np

from common.kernels.blocks import (
    BLOCKS,
    ZERO,
    Bytes,
    IntArray,
    Sizes,
    Words,
    bytes_of,
    change_row,
    open_block,
)
from common.kernels.compiled import compiled, part
from common.kernels.machine import load_u32, store_u64

_IN_ALL_BYTES = np.uint64(0x0101010101010101)
_BIT_OF_BYTE = np.uint64(0x8040201008040201)
_BELOW_HIGHEST = np.uint64(0x7F7F7F7F7F7F7F7F)


@part
def _write_floats(words: Words, floats: Words) -> None:
    """Words as floats' bits. 2**112 is between the biases of half and whole precision."""
    if words.itemsize == 4:
        for column in range(len(words)):
            floats[column] = words[column]
        return
    numbers = floats.view(np.float32)
    for column in range(len(words)):
        floats[column] = np.uint32(words[column] & 0x7FFF) << np.uint32(13)
    for column in range(len(words)):
        numbers[column] *= np.float32(2.0**112)
    for column in range(len(words)):
        floats[column] |= np.uint32(words[column] & 0x8000) << np.uint32(16)


@part
def _unpack_floats(
    row: Words,
    floats: Words,
    starts: IntArray,
    rank: int,
    block: Bytes,
    marks_at: int,
    at: int,
    widths_at: int,
    count: int,
) -> tuple[int, int]:
    """Writes an episode's rows; where their changes end, and how many there are so far."""
    row[:] = 0
    for start in starts:
        at, count = change_row(row, block, marks_at, at, widths_at, count)
        marks_at += bytes_of(len(row))
        begin = (start + rank) * len(row)
        _write_floats(row, floats[begin : begin + len(row)])
    return at, count


@part
def _unpack_flags(block: Bytes, at: int, number: int, flags: Bytes, begin: int) -> int:
    """Bits as bytes that are 0 or 1: each byte keeps its own bit, and a carry says whether that is set."""
    for offset in range(0, number, 8):
        own_bit = np.uint64(block[at]) * _IN_ALL_BYTES & _BIT_OF_BYTE
        eight = ((own_bit + _BELOW_HIGHEST) >> np.uint64(7)) & _IN_ALL_BYTES
        at += 1
        if offset + 8 <= number:
            store_u64(flags, begin + offset, eight)
        else:
            for place in range(number - offset):
                flags[begin + offset + place] = np.uint8((eight >> np.uint64(8 * place)) & np.uint64(1))
    return at


@compiled(
    f"boolean({BLOCKS}, int64, int64[::1], int64[::1], "
    "uint32[::1], uint32[::1], uint32[::1], uint8[::1], int64[::1])"
)
def unpack(
    block: Bytes,
    ends: IntArray,
    lengths: IntArray,
    narrow: IntArray,
    sizes: Sizes,
    rank: int,
    row_starts_T: IntArray,
    step_starts_T: IntArray,
    obs_RNO: Words,
    state_RS: Words,
    reward_P: Words,
    avail_actions_RNA: Bytes,
    actions_PN: IntArray,
) -> bool:
    """Writes the episodes, of this rank and the next ones, into flat arrays; False if one is malformed."""
    agents, actions, obs_size, state_size = sizes
    obs, state = np.empty(obs_size, np.uint32), np.empty(state_size, np.uint32)
    half_obs, half_state = np.empty(obs_size, np.uint16), np.empty(state_size, np.uint16)
    begin = ZERO
    for number, end in enumerate(ends):
        length = lengths[number]
        at, widths_at, reward_at = open_block(block, begin, end, length, narrow[number], sizes)
        if reward_at < 0:
            return False
        rows, steps = row_starts_T[: length + 1], step_starts_T[:length]
        state_marks = begin + len(rows) * bytes_of(obs_size)
        if narrow[number] == 3:
            at, count = _unpack_floats(obs, obs_RNO, rows, rank, block, begin, at, widths_at, ZERO)
            _unpack_floats(state, state_RS, rows, rank, block, state_marks, at, widths_at, count)
        else:
            at, count = _unpack_floats(half_obs, obs_RNO, rows, rank, block, begin, at, widths_at, ZERO)
            _unpack_floats(half_state, state_RS, rows, rank, block, state_marks, at, widths_at, count)
        at = reward_at
        for start in steps:
            reward_P[start + rank] = load_u32(block, at)
            at += 4
        for start in rows:
            place = (start + rank) * agents * actions
            at = _unpack_flags(block, at, agents * actions, avail_actions_RNA, place)
        for start in steps:
            for agent in range(agents):
                actions_PN[(start + rank) * agents + agent] = block[at]
                at += 1
        begin, rank = end, rank + 1
    return True
