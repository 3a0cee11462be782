"""Why a call to the replay service fails; service.py turns each kind into its gRPC status."""

from collections.abc import Iterable


class RequestError(Exception):
    """A call that ends with an error status. The message is for the caller."""


class InvalidRequestError(RequestError):
    """The input is malformed; the message begins with the field's name."""


class UnknownTableError(RequestError):
    """There is no such table."""

    def __init__(self, name: str, tables: Iterable[str]) -> None:
        super().__init__(f"table: there is no {name!r:.40}; there are {', '.join(tables)}")


class StateConflictError(RequestError):
    """The input is well-formed but does not fit the state of the run."""


class UnavailableError(RequestError):
    """The storage cannot be reached, or the service is draining; the call may be repeated."""


class DrainingError(UnavailableError):
    """The service is ending: what waits does not wait any longer."""

    def __init__(self) -> None:
        super().__init__("the replay service is shutting down; try again")


class RunMismatchError(Exception):
    """The storage holds a run that was started with other parameters."""

    def __init__(self, field: str, held: str, given: str) -> None:
        super().__init__(f"{field} is {held} in the stored run, but {given} was given")
        self.field = field
