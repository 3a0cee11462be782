"""Names of environments. A new one is one more line here."""

import difflib
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from actor.environment import Environment, EnvironmentKind
from actor.lbf import Lbf
from actor.settings import EnvSettings
from actor.smac import Smac
from actor.smax import Smax
from common.errors import BadInputError, FatalError

ENVIRONMENTS: dict[str, type[EnvironmentKind]] = {"smax": Smax, "smac": Smac, "lbf": Lbf}


def check_environment(settings: EnvSettings) -> type[EnvironmentKind]:
    """Raises BadInputError unless environment, map and options exist. Imports no game."""
    kind = ENVIRONMENTS.get(settings.name)
    if kind is None:
        raise BadInputError(_unknown("environment", settings.name, ENVIRONMENTS))
    if settings.map not in kind.maps():
        raise BadInputError(_unknown(f"{settings.name} map", settings.map, kind.maps()))
    try:
        kind.check_options(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"Option {where} of environment {settings.name}: {first['msg']}.") from error
    return kind


def make_environment(settings: EnvSettings, *, copies: int, threads: int) -> Environment:
    """Builds a registered environment, with as many of `copies` as it can have.

    BadInputError: no such one; FatalError: its libraries or its game are missing.
    """
    kind = check_environment(settings)
    kind.check_installed(settings)
    try:
        return kind.open(settings, copies=min(copies, kind.max_copies or copies), threads=threads)
    except ImportError as error:
        raise FatalError(
            f"Environment {settings.name} needs a package that is not installed ({error}): "
            f"pip install 'vdfd[{settings.name}]'."
        ) from error


def describe_maps() -> Mapping[str, Mapping[str, str]]:
    """For help texts: environment -> map -> description."""
    return {name: kind.maps() for name, kind in ENVIRONMENTS.items()}


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)  # 3n is half a 3m
    hint = f"did you mean {close[0]}? " if close else ""
    return f'There is no {what} "{name}": {hint}There are: {", ".join(known)}.'
