"""The C library's allocator, told to keep what a training step frees for the next one.

Every step asks for the same hundreds of blocks of a megabyte and more. glibc gives blocks of that size back
to the kernel at once, and the next step pays a page fault for every 4 KiB.
"""

import ctypes

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 2**31 - 1, 2**30
_MOST_MMAP_BYTES = 2**25
"""The most that an older glibc accepts; training is as fast with it."""


def keep_freed_memory() -> None:
    """Once per process, before the first large tensor. Does nothing where there is no glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(_MMAP_THRESHOLD, _MMAP_BYTES):
            mallopt(_MMAP_THRESHOLD, _MOST_MMAP_BYTES)
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
