"""Calls that wait for something to come: newer weights, an evaluation that is due."""

import asyncio

from common.types import Counters, Weights
from replay.changes import Event, Topic
from replay.errors import DrainingError, InvalidRequestError
from replay.storage import Claim, Storage

MAX_WAIT_MS = 30_000


def wait_seconds(wait_ms: int) -> float:
    """How long a request may wait. Raises InvalidRequestError if it asks for more than is allowed."""
    if wait_ms > MAX_WAIT_MS:
        raise InvalidRequestError(f"wait_ms: {wait_ms} is more than {MAX_WAIT_MS}")
    return wait_ms / 1000


async def fetch_weights(
    storage: Storage, have: Weights, min_version: int, wait_s: float
) -> tuple[Weights, Counters]:
    """The newest weights (no data if `have` are the newest) once they are wanted or the time is over."""
    deadline_s = asyncio.get_running_loop().time() + wait_s
    while True:
        published = storage.changes.event(Topic.WEIGHTS)
        newest, counters = await storage.newest_weights(have)
        wanted = newest.version >= min_version if min_version else bool(newest.data)
        if wanted or not await _wait_until(storage, published, deadline_s):
            return newest, counters


async def claim_evaluation(storage: Storage, wait_s: float) -> Claim:
    """Leases an evaluation as soon as one can be had, or says that there is none when the time is over."""
    deadline_s = asyncio.get_running_loop().time() + wait_s
    while True:
        changed = storage.changes.event(Topic.EVALUATIONS)
        claim = await storage.claim_evaluation()
        if claim.env_steps is not None or claim.run_complete:
            return claim
        if not await _wait_until(storage, changed, deadline_s, claim.retry_after_s):
            return claim


async def _wait_until(
    storage: Storage, changed: Event, deadline_s: float, at_most_s: float | None = None
) -> bool:
    """False when the time is over, or when the service drains: then the caller gets what there is."""
    left_s = deadline_s - asyncio.get_running_loop().time()
    if left_s <= 0:
        return False
    try:
        await storage.changes.wait(changed, timeout_s=left_s if at_most_s is None else min(left_s, at_most_s))
    except DrainingError:
        return False
    return True
