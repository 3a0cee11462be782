"""What everyone who reads a block needs.

Blocks come from anywhere. `open_block` looks at a block's sizes before anything is taken out of it, and from
then on this holds: marks, widths and changes lie within the block, and so do the 7 bytes behind any of them,
because reward, avail_actions and actions of at least one step and one agent are 7 bytes. So marks and widths
can be loaded 64 at a time, and changes as 32 bits whatever their width.

Positions: `at` and `*_at` are places in an array of bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from common.kernels.compiled import part
from common.kernels.machine import count_ones, load_u32, load_u64, trailing_zeros

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Sizes = tuple[int, int, int, int]
"""Agents, actions, obs words of a slot, state words of a slot."""

BYTES = "Array(uint8, 1, 'C', readonly=True)"
"""The type of an array of bytes that is not written."""
WORDS, HALF_WORDS = BYTES.replace("uint8", "uint32"), BYTES.replace("uint8", "uint16")
BLOCKS = f"{BYTES}, int64[::1], int64[::1], int64[::1], UniTuple(int64, 4)"
"""Types of what readers begin with: blocks one after the other, their ends, lengths and `narrow`; sizes."""

GROUP = 56
"""Marks that are looked at together: so many can be loaded at once from the middle of a byte on."""
ONE = np.uint64(1)

Integer = Any
"""Of a size; in compiled functions it goes with int, in Python's types it does not."""
ZERO: Integer = np.int64(0)
"""A bare 0 has a type of its own when numba first looks, and what it is given to would be compiled twice."""


@part
def bytes_of(bits: int) -> int:
    """Bytes that hold so many bits."""
    return (bits + 7) >> 3


@part
def change_row(
    row: Words, block: Bytes, marks_at: int, at: int, widths_at: int, count: int
) -> tuple[int, int]:
    """Makes a slot's words the next one's; where its changes end, and how many there are so far."""
    narrow = row.itemsize - 1
    narrow_bits, high_bits = np.uint32((1 << 8 * narrow) - 1), np.uint32(0xFF << 8 * narrow)
    for offset in range(0, len(row), GROUP):
        number = min(GROUP, len(row) - offset)
        marks = load_u64(block, marks_at + (offset >> 3)) & ((ONE << np.uint64(number)) - ONE)
        if not marks:
            continue
        wide = load_u64(block, widths_at + (count >> 3)) >> np.uint64(count & 7)
        while marks:
            place = np.uint64(offset) + np.uint64(trailing_zeros(marks))
            marks &= marks - ONE
            is_wide: Integer = np.uint32(wide & ONE)
            wide >>= ONE
            row[place] ^= row.dtype.type(load_u32(block, at) & (narrow_bits | (is_wide * high_bits)))
            at += narrow + (is_wide != 0)
            count += 1
    return at, count


@part
def _count_marks(block: Bytes, at: int, rows: int, size: int) -> int:
    """Bits that are set in rows of `size`; more than any block has if one is behind the end of a row."""
    row_bytes = bytes_of(size)
    end = at + rows * row_bytes
    if size & 7:
        for last in range(at + row_bytes - 1, end, row_bytes):
            if block[last] >> np.uint8(size & 7):
                return 8 * len(block) + 1
    count = 0
    while at + 8 <= end:
        count += count_ones(load_u64(block, at))
        at += 8
    while at < end:
        count += count_ones(np.uint64(block[at]))
        at += 1
    return count


@part
def open_block(
    block: Bytes, begin: int, end: int, length: int, narrow: int, sizes: Sizes
) -> tuple[int, int, int]:
    """Where changes, widths and rewards begin; -1 for the rewards if sizes are not what the marks say.

    `narrow`: bytes of a change without its highest one.
    """
    agents, actions, obs_size, state_size = sizes
    slots = length + 1
    state_marks = begin + slots * bytes_of(obs_size)
    at = state_marks + slots * bytes_of(state_size)
    reward_at = end - 4 * length - slots * bytes_of(agents * actions) - length * agents
    if reward_at < at:
        return at, at, -1
    count = _count_marks(block, begin, slots, obs_size) + _count_marks(block, state_marks, slots, state_size)
    widths_at = reward_at - bytes_of(count)
    if widths_at < at:
        return at, at, -1
    if widths_at - at != narrow * count + _count_marks(block, widths_at, 1, count):
        return at, at, -1
    return at, widths_at, reward_at
