"""Arrays behind which no memory may be touched: the process ends with a segmentation fault if it is."""

import ctypes
import mmap

import numpy as np

PROT_NONE = 0


def guarded(array):
    """A copy that ends where a page begins that may be neither read nor written."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    area = mmap.mmap(-1, size + mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(begin + size), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.frombuffer(area, np.uint8, count=array.nbytes, offset=size - array.nbytes)
    copy = copy.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
