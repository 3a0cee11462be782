"""Work on a packed batch, a share of its sequences at a time, in several threads.

Compiled functions do not hold Python's lock, so the threads really run at once. torch's own threads wait
awake for a while after each operation and keep a core from these: see `let_idle_threads_sleep`.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch

MOST_SEQUENCES = 224
"""Of a share: a time step of all layers then fits a core's second-level cache."""

Share = tuple[int, int]
"""The first sequence, and the last, not included."""
Sizes = np.ndarray[tuple[int], np.dtype[np.int64]]
"""The rows at each time, none more than before."""


def shares_of(sizes: Sizes) -> list[Share]:
    """Neighbouring sequences, about as many rows in each; as many shares for every one of torch's threads."""
    threads, sequences = torch.get_num_threads(), int(sizes[0])
    count = threads * math.ceil(sequences / threads / MOST_SEQUENCES)
    lengths = np.searchsorted(-sizes, -np.arange(sequences))  # at how many times a sequence has a row
    rows_up_to = np.concatenate(([0], np.cumsum(lengths)))
    wanted = rows_up_to[-1] * np.arange(1, count) / count
    ends = [0, *np.searchsorted(rows_up_to, wanted).tolist(), sequences]
    return [(first, last) for first, last in pairwise(ends) if first < last]


def in_parallel(work: Callable[[Share], None], shares: list[Share]) -> None:
    """Each share once, in this thread and as many others as torch has beside it."""
    todo = iter(shares)  # a list's iterator gives each share to one thread only

    def take() -> None:
        for share in todo:
            work(share)

    others = min(torch.get_num_threads(), len(shares)) - 1
    futures = [_pool(others).submit(take) for _ in range(others)]
    take()
    for future in futures:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sequences")
