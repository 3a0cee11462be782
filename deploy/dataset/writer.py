"""Writes a data set that is there as a whole or not at all.

Shards go into a directory of another name beside it. The manifest is written last, everything is synced, and
the directory gets its name. What a killed writer leaves behind is removed by the next one.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.durable import sync
from common.errors import BadInputError, FatalError
from common.payload import raw_size
from common.types import EnvSpec
from deploy.dataset import manifest
from deploy.dataset.manifest import Manifest, Shard
from deploy.dataset.table import SHAPES, Row, ShardWriter
from deploy.run_dir import locked_directory

SHARD_BYTES = 256 * 1024 * 1024
"""A shard is closed when its file has reached this size."""


class DatasetWriter:
    """A data set in the making; see `writing`."""

    def __init__(self, root: Path, spec: EnvSpec, shard_bytes: int) -> None:
        self._root = root
        self._spec = spec
        self._shard_bytes = shard_bytes
        self._shards: list[Shard] = []
        self._open: ShardWriter | None = None
        self._unpacked_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Of all files so far."""
        return sum(shard.size_bytes for shard in self._shards) + (self._open.size_bytes if self._open else 0)

    def add(self, row: Row) -> None:
        """Appends an episode."""
        if self._open is None:
            self._open = ShardWriter(self._path(), self._spec)
        self._open.add(row)
        self._unpacked_bytes += raw_size(self._spec, row.episode.meta.length)
        if self._open.size_bytes >= self._shard_bytes:
            self._close_shard()

    def finish(self, *, left_out: int, run_env_steps: int, run_weights_version: int) -> Manifest:
        """Writes the manifest; without it the directory is no data set."""
        self._close_shard()
        made = Manifest(
            format="vdfd-episodes",
            version=1,
            spec=manifest.spec_values(self._spec),
            episodes=sum(shard.episodes for shard in self._shards),
            env_steps=sum(shard.env_steps for shard in self._shards),
            unpacked_bytes=self._unpacked_bytes,
            left_out=left_out,
            run_env_steps=run_env_steps,
            run_weights_version=run_weights_version,
            columns=SHAPES,
            shards=self._shards,
        )
        path = self._root / manifest.NAME
        path.write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
        sync(path)
        return made

    def abandon(self) -> None:
        """Closes what is open."""
        if self._open is not None:
            self._open.abandon()

    def _path(self) -> Path:
        return self._root / f"episodes-{len(self._shards):05}.parquet"

    def _close_shard(self) -> None:
        if self._open is None:
            return
        shard, path = self._open, self._path()
        shard.close()
        sync(path)
        self._shards.append(
            Shard(
                file=path.name,
                size_bytes=path.stat().st_size,
                sha256=manifest.sha256_of(path),
                episodes=shard.episodes,
                env_steps=shard.env_steps,
            )
        )
        self._open = None


@contextlib.contextmanager
def writing(root: Path, spec: EnvSpec, *, shard_bytes: int = SHARD_BYTES) -> Iterator[DatasetWriter]:
    """A writer whose data set is at `root` after a block that ends without an exception, and nothing else.

    Raises BadInputError if `root` exists, FatalError if it cannot be written or another export writes it.
    """
    check_free(root)
    partial = root.with_name(f".{root.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with locked_directory(partial, "vdfd replay export"):
            writer = DatasetWriter(partial, spec, shard_bytes)
            try:
                _clear(partial)
                yield writer
                (partial / ".lock").unlink()
                sync(partial)
                partial.rename(root)
                sync(root.parent)
            except BaseException:
                writer.abandon()
                if partial.exists():
                    shutil.rmtree(partial)
                raise
    except OSError as error:
        raise FatalError(f"The data set {root} cannot be written: {error}.") from error


def check_free(root: Path) -> None:
    """Raises BadInputError if there is something at `root`."""
    if root.exists() or root.is_symlink():
        raise BadInputError(f"{root} exists already: choose another name for the data set.")


def _clear(partial: Path) -> None:
    for left in partial.iterdir():
        if left.name != ".lock":
            left.unlink()
