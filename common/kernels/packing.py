"""An episode's arrays as a block.

Positions: `at` and `*_at` are places in an array of bytes. Shapes: W words of a slot.
"""

import numpy as np

from common.kernels.blocks import BYTES, GROUP, HALF_WORDS, ONE, WORDS, ZERO, Bytes, Integer, Words, bytes_of
from common.kernels.compiled import compiled, part
from common.kernels.machine import LANES, differing, load_u64, store_u32, store_u64, trailing_zeros

SLACK = 8
"""Bytes behind the largest block that `pack` may write over."""
_GATHER = np.uint64(0x0102040810204080)
"""Times eight bytes that are 0 or 1 it has them as the bits of its highest byte."""


@part
def _copy(source: Bytes, number: int, block: Bytes, at: int) -> int:
    for place in range(number):
        block[at + place] = source[place]
    return at + number


@part
def _pack_flags(flags: Bytes, begin: int, number: int, block: Bytes, at: int) -> int:
    """Bytes that are 0 or 1 as bits."""
    for offset in range(0, number, 8):
        bits = np.uint64(0)
        if offset + 8 <= number:
            bits = load_u64(flags, begin + offset) * _GATHER >> np.uint64(56)
        else:
            for place in range(number - offset):
                bits |= np.uint64(flags[begin + offset + place]) << np.uint64(place)
        block[at] = np.uint8(bits)
        at += 1
    return at


@part
def _store_marks(marks: Integer, number: int, block: Bytes, at: int) -> int:
    for _ in range(bytes_of(number)):
        block[at] = np.uint8(marks & np.uint64(0xFF))
        marks >>= np.uint64(8)
        at += 1
    return at


@part
def _differing(words: Words, now: int, before: Words, then: int, number: int) -> Integer:
    """Which of the next `number` words differ."""
    if now + LANES <= len(words):
        return differing(words, now, before, then) & ((ONE << np.uint64(number)) - ONE)
    marks = np.uint64(0)
    for lane in range(number):
        marks |= np.uint64(words[now + lane] != before[then + lane]) << np.uint64(lane)
    return marks


@part
def _pack_changes(
    words: Words, size: int, block: Bytes, marks_at: int, at: int, widths: Bytes, count: int
) -> tuple[int, int]:
    """Marks, changes and widths of every slot's W words; where the changes end, and how many there are."""
    nothing = np.zeros(size + LANES, words.dtype)
    narrow_bits = np.uint32(8 * (words.itemsize - 1))
    for begin in range(0, len(words), size):
        before, before_at = (words, begin - size) if begin else (nothing, 0)
        for offset in range(0, size, GROUP):
            number = min(GROUP, size - offset)
            now, then = begin + offset, before_at + offset
            marks = _differing(words, now, before, then, number)
            marks_at = _store_marks(marks, number, block, marks_at)
            wide, found = np.uint64(0), 0
            while marks:
                lane = trailing_zeros(marks)
                marks &= marks - ONE
                change = np.uint32(words[now + lane] ^ before[then + lane])
                store_u32(block, at, change)
                is_wide: Integer = np.uint64((change >> narrow_bits) != 0)
                at += words.itemsize - 1 + (is_wide != 0)
                wide |= is_wide << np.uint64(found)
                found += 1
            place = count >> 3
            store_u64(widths, place, np.uint64(widths[place]) | (wide << np.uint64(count & 7)))
            count += found
    return at, count


@compiled(
    f"int64({WORDS}, {WORDS}, {BYTES}, {BYTES}, {BYTES}, int64, uint8[::1])",
    f"int64({HALF_WORDS}, {HALF_WORDS}, {BYTES}, {BYTES}, {BYTES}, int64, uint8[::1])",
)
def pack(
    obs: Words, state: Words, reward: Bytes, avail_actions: Bytes, actions: Bytes, slots: int, block: Bytes
) -> int:
    """Writes an episode's block; how many bytes it has. There must be room for the largest one and SLACK."""
    obs_size, state_size, avail_size = len(obs) // slots, len(state) // slots, len(avail_actions) // slots
    state_marks = slots * bytes_of(obs_size)
    at = state_marks + slots * bytes_of(state_size)
    widths = np.empty(bytes_of(len(obs) + len(state)) + 8, np.uint8)
    widths[0] = 0
    at, count = _pack_changes(obs, obs_size, block, ZERO, at, widths, ZERO)
    at, count = _pack_changes(state, state_size, block, state_marks, at, widths, count)
    at = _copy(widths, bytes_of(count), block, at)
    at = _copy(reward, len(reward), block, at)
    for slot in range(slots):
        at = _pack_flags(avail_actions, slot * avail_size, avail_size, block, at)
    return _copy(actions, len(actions), block, at)
