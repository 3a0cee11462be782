"""Errors that end a process with one sentence instead of a traceback."""

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 130
"""Ctrl-C or SIGTERM came before the end."""


class FatalError(Exception):
    """What a person must know and do, in one sentence; the command line prints it and exits with `code`."""

    def __init__(self, sentence: str, *, code: int = EXIT_FAILURE) -> None:
        super().__init__(sentence)
        self.code = code


class BadInputError(FatalError):
    """Something the person typed cannot be used; nothing was started."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, code=EXIT_BAD_INPUT)
