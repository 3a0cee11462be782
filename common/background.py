"""Threads that work beside a process's main loop, and how their calls try again."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from common import rpc
from common.handshake import check_certificates
from common.settings import RpcSettings

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 5.0


class Background:
    """A daemon thread. What ends it with an exception is raised in the thread that asks, never lost."""

    def __init__(self, name: str, work: Callable[[], None], *, on_end: Callable[[], None]) -> None:
        self._work = work
        self._on_end = on_end
        self._failure: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def ended(self) -> bool:
        """Whether the work is over, well or not; true before `on_end` is called."""
        return self._ended

    def start(self) -> None:
        """Begins the work."""
        self._thread.start()

    def check(self) -> None:
        """Raises what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def join(self) -> None:
        """Waits until the work is over; whoever calls has told it to end."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as failure:
            self._failure = failure
        self._ended = True
        self._on_end()


def worth_retrying(error: BaseException) -> bool:
    """Whether the service may answer when it is asked again."""
    return rpc.is_retryable(error) or isinstance(error, ConnectionError)


def reason(error: BaseException) -> str:
    """Why a call failed, for people."""
    return rpc.describe(error) if isinstance(error, grpc.RpcError) else str(error)


def cancel(call: "grpc.Call | grpc.Future[Any]") -> None:
    """Ends a call from another thread; one that is over already stays as it is."""
    call.cancel()


def retrying(closing: threading.Event, what: str, settings: RpcSettings) -> Retrying:
    """Calls again what failed and is worth it, after a random and growing pause.

    The call returns None when `closing` is set before it has succeeded. Other failures are raised.
    FatalError: the service and this process do not accept each other's certificates.
    """

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if state.attempt_number == 1 and error is not None:
            log.warning("%s: %s; trying again", what, reason(error))
        check_certificates(settings)

    return Retrying(
        retry=retry_if_exception(worth_retrying),
        wait=wait_random_exponential(multiplier=FIRST_RETRY_S, max=LONGEST_RETRY_S),
        sleep=sleep_using_event(closing),
        stop=stop_when_event_set(closing),
        before_sleep=note,
        retry_error_callback=lambda _state: None,
    )
