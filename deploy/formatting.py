"""Numbers as people read them."""

from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float]) -> str:
    """A curve of values between 0 and 1, one character each."""
    return "".join(_LEVELS[round(min(1.0, max(0.0, value)) * (len(_LEVELS) - 1))] for value in values)


def duration(seconds: float | None) -> str:
    """Such as 4:05 or 1:02:03; "--" if it is not known."""
    if seconds is None:
        return "--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
