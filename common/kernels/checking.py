"""What is wrong with blocks.

Positions: `at` and `*_at` are places in an array of bytes.
"""

import numpy as np
import numpy.typing as npt

from common.kernels.blocks import (
    BLOCKS,
    ONE,
    ZERO,
    Bytes,
    IntArray,
    Integer,
    Sizes,
    Words,
    bytes_of,
    change_row,
    open_block,
)
from common.kernels.compiled import compiled, part
from common.kernels.machine import load_f32, load_u64, trailing_zeros

FINE, BAD_SIZE, BAD_OBS, BAD_STATE = 0, 1, 2, 3
BAD_ACTION, UNAVAILABLE, NOTHING_AVAILABLE, BAD_REWARD, BAD_RETURN = 4, 5, 6, 7, 8
EXPONENT, HALF_EXPONENT = 0x7F800000, 0x7C00
"""Bits of a float that are all set in infinities and NaN alone."""
RETURN_TOLERANCE = 1e-3


@part
def _may_be_infinite(block: Bytes, at: int, widths_at: int, reward_at: int, narrow: int) -> bool:
    """Whether the highest bytes of all changes have between them what an infinity's highest byte has.

    A bit that no change has is never set in a word. Narrow changes have no highest byte.
    """
    highest = np.uint8(0)
    for place in range(widths_at, reward_at, 8):
        wide = load_u64(block, place)
        if reward_at - place < 8:
            wide &= (ONE << np.uint64(8 * (reward_at - place))) - ONE
        change = 8 * (place - widths_at)
        while wide:
            highest |= block[at + narrow * (change + trailing_zeros(wide) + 1)]
            wide &= wide - ONE
            at += 1
    exponent = np.uint8((EXPONENT if narrow == 3 else HALF_EXPONENT) >> 8 * narrow)
    return bool(highest & exponent == exponent)


@part
def _are_finite(
    row: Words, slots: int, block: Bytes, marks_at: int, at: int, widths_at: int, count: int
) -> tuple[bool, int, int]:
    """Whether all words of all slots are; where their changes end, and how many there are so far."""
    exponent = row.dtype.type(EXPONENT if row.itemsize == 4 else HALF_EXPONENT)
    row[:] = 0
    finite = True
    for _ in range(slots):
        at, count = change_row(row, block, marks_at, at, widths_at, count)
        marks_at += bytes_of(len(row))
        for word in row:
            finite &= (word & exponent) != exponent
    return finite, at, count


@part
def _check_floats(
    obs: Words, state: Words, block: Bytes, begin: int, at: int, widths_at: int, slots: int
) -> int:
    """`obs` and `state`: room for a slot's words."""
    state_marks = begin + slots * bytes_of(len(obs))
    finite, at, count = _are_finite(obs, slots, block, begin, at, widths_at, ZERO)
    if not finite:
        return BAD_OBS
    finite, at, count = _are_finite(state, slots, block, state_marks, at, widths_at, count)
    return FINE if finite else BAD_STATE


@part
def _bit(block: Bytes, at: int, number: int) -> bool:
    return bool((block[at + (number >> 3)] >> np.uint8(number & 7)) & np.uint8(1))


@part
def _check_actions(block: Bytes, avail_at: int, length: int, agents: int, actions: int) -> tuple[int, float]:
    """What is chosen is available, and after the last step, where nothing is chosen, something is."""
    row_bytes = bytes_of(agents * actions)
    last = avail_at + length * row_bytes
    at = last + row_bytes
    for step in range(length):
        for agent in range(agents):
            action: Integer = np.int64(block[at])
            at += 1
            if action >= actions:
                return BAD_ACTION, float(action)
            if not _bit(block, avail_at + step * row_bytes, agent * actions + action):
                return UNAVAILABLE, float(action)
    for agent in range(agents):
        some = False
        for action in range(actions):
            some |= _bit(block, last, agent * actions + action)
        if not some:
            return NOTHING_AVAILABLE, 0.0
    return FINE, 0.0


@part
def _check_block(
    block: Bytes, begin: int, end: int, length: int, narrow: int, sizes: Sizes, claimed: float
) -> tuple[int, float]:
    at, widths_at, reward_at = open_block(block, begin, end, length, narrow, sizes)
    if reward_at < 0:
        return BAD_SIZE, 0.0
    fault = FINE
    if _may_be_infinite(block, at, widths_at, reward_at, narrow):
        if narrow == 3:
            obs, state = np.empty(sizes[2], np.uint32), np.empty(sizes[3], np.uint32)
            fault = _check_floats(obs, state, block, begin, at, widths_at, length + 1)
        else:
            halves = np.empty(sizes[2], np.uint16), np.empty(sizes[3], np.uint16)
            fault = _check_floats(halves[0], halves[1], block, begin, at, widths_at, length + 1)
    if fault != FINE:
        return fault, 0.0
    fault, action = _check_actions(block, reward_at + 4 * length, length, sizes[0], sizes[1])
    if fault != FINE:
        return fault, action
    total = 0.0
    for step in range(length):
        total += load_f32(block, reward_at + 4 * step)
    if not np.isfinite(total):
        return BAD_REWARD, total
    near = abs(total - claimed) <= RETURN_TOLERANCE * (1.0 + abs(total))
    return FINE if near else BAD_RETURN, total


@compiled(f"Tuple((int64[::1], float64[::1]))({BLOCKS}, float64[::1])")
def check(
    block: Bytes,
    ends: IntArray,
    lengths: IntArray,
    narrow: IntArray,
    sizes: Sizes,
    returns: npt.NDArray[np.float64],
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """What is wrong with each of the blocks, and the number that is: an action, or the sum of the rewards."""
    faults, wrong = np.empty(len(ends), np.int64), np.empty(len(ends), np.float64)
    begin = ZERO
    for number, end in enumerate(ends):
        faults[number], wrong[number] = _check_block(
            block, begin, end, lengths[number], narrow[number], sizes, returns[number]
        )
        begin = end
    return faults, wrong
