"""What a data set says of itself: `_manifest.json`, written last, without which a directory is no data set.

A data set is a directory of Parquet files (shards) and this file. The underscore has readers of Parquet
directories pass over it.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from common.codec import SPEC_FIELDS
from common.errors import BadInputError
from common.settings import PositiveInt, Settings
from common.types import EnvSpec

NAME = "_manifest.json"
FORMAT = "vdfd-episodes"
VERSION = 1
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
_HASH_PIECE_BYTES = 1024 * 1024

NaturalInt = Annotated[int, Field(ge=0, lt=2**63)]


class Shard(Settings):
    """One file of episodes."""

    file: Annotated[str, Field(pattern=r"^episodes-[0-9]{5}\.parquet$")]
    size_bytes: PositiveInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    episodes: PositiveInt
    env_steps: PositiveInt


class Manifest(Settings):
    """The whole data set."""

    format: Literal["vdfd-episodes"]
    version: Literal[1]
    spec: dict[str, str | int]
    """EnvSpec, field by field."""
    episodes: PositiveInt
    env_steps: PositiveInt
    """Of these episodes."""
    unpacked_bytes: PositiveInt
    """Of all arrays, as the service unpacks them."""
    left_out: NaturalInt
    """Episodes that left the window while it was read."""
    run_env_steps: NaturalInt
    """Of the run when its window was read, older episodes included."""
    run_weights_version: NaturalInt
    """Newest weights of the run at that time."""
    columns: dict[str, str]
    """Shape of every array column, in names of `spec` and of columns."""
    shards: Annotated[list[Shard], Field(min_length=1, max_length=100_000)]
    """In the order of their episodes."""


def spec_values(spec: EnvSpec) -> dict[str, str | int]:
    """An EnvSpec as plain values."""
    return {name: getattr(spec, name) for name in SPEC_FIELDS}


def sha256_of(path: Path) -> str:
    """Digest of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def read_manifest(root: Path) -> Manifest:
    """The manifest of a data set. Raises BadInputError, in one sentence, if it is none or makes no sense."""
    path = root / NAME
    if not path.is_file():
        raise BadInputError(f"{root} is no data set of `vdfd replay export`: it has no {NAME}.")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BadInputError(f"{path} cannot be used: it has more than {MAX_MANIFEST_BYTES} bytes.")
        values: Any = json.loads(path.read_bytes())
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "its content"
        raise BadInputError(f"{path} cannot be used: {field}: {first['msg']}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path} cannot be used: {error}.") from error
    _check_totals(path, manifest)
    return manifest


def spec_of(manifest: Manifest, root: Path) -> EnvSpec:
    """The environment of a data set. Raises BadInputError if no environment can be so."""
    try:
        return EnvSpec(**manifest.spec)  # type: ignore[arg-type] # checked by its own rules
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{root / NAME} cannot be used: spec: {error}.") from error


def _check_totals(path: Path, manifest: Manifest) -> None:
    for name in ("episodes", "env_steps"):
        total = sum(getattr(shard, name) for shard in manifest.shards)
        if total != getattr(manifest, name):
            raise BadInputError(f"{path} cannot be used: {name} is not the sum of its shards, {total}.")
    if len({shard.file for shard in manifest.shards}) < len(manifest.shards):
        raise BadInputError(f"{path} cannot be used: it names a shard twice.")
