"""Reads a data set, and checks all of it before anything is done with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.codec import episode_to_proto
from common.errors import BadInputError
from common.payload import encode_episode
from common.types import EnvSpec, Episode
from deploy.dataset.manifest import Manifest, Shard, read_manifest, sha256_of, spec_of
from deploy.dataset.table import read_shard
from protos import replay_pb2 as pb
from replay.admission import Rejection, admit, checked_spec
from replay.errors import InvalidRequestError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A directory with a manifest that makes sense."""

    root: Path
    manifest: Manifest
    spec: EnvSpec

    def episodes(self) -> Iterator[Episode]:
        """In the order in which they were stored."""
        for shard in self.manifest.shards:
            yield from read_shard(self.root / shard.file, self.spec)


def open_dataset(root: Path, *, max_episode_bytes: int) -> Dataset:
    """Reads the manifest alone. Raises BadInputError if it is none or names an impossible environment."""
    manifest = read_manifest(root)
    spec = spec_of(manifest, root)
    try:
        checked_spec(pb.EnvSpec(**manifest.spec), max_episode_bytes)  # type: ignore[arg-type] # EnvSpec has checked
    except (InvalidRequestError, ValueError, TypeError) as error:
        raise BadInputError(f"The environment of {root} cannot be used: {error}.") from error
    return Dataset(root=root, manifest=manifest, spec=spec)


def verified(dataset: Dataset, *, max_episode_bytes: int) -> Iterator[int]:
    """Checks every byte and every episode, as the service would; yields how many are checked so far.

    Raises BadInputError, in one sentence that names the file, at the first thing that is wrong.
    """
    last_seq: dict[str, int] = {}
    checked = 0
    for shard in dataset.manifest.shards:
        path = dataset.root / shard.file
        _check_file(path, shard)
        before, env_steps = checked, 0
        for episode in read_shard(path, dataset.spec):
            _check_episode(path, episode, dataset.spec, max_episode_bytes)
            _check_order(path, episode, last_seq)
            checked, env_steps = checked + 1, env_steps + episode.meta.length
            yield checked
        if (checked - before, env_steps) != (shard.episodes, shard.env_steps):
            raise BadInputError(f"{path} cannot be used: it has not the episodes that the manifest says.")


def _check_file(path: Path, shard: Shard) -> None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != shard.size_bytes:
            raise BadInputError(
                f"{path} is damaged: it has {size_bytes} bytes, the manifest says {shard.size_bytes}."
            )
        if sha256_of(path) != shard.sha256:
            raise BadInputError(f"{path} is damaged: its SHA-256 is not that of the manifest.")
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}.") from error


def _check_episode(path: Path, episode: Episode, spec: EnvSpec, max_episode_bytes: int) -> None:
    message = episode_to_proto(encode_episode(episode)).SerializeToString()
    (outcome,) = admit([memoryview(message)], spec, max_episode_bytes)
    if isinstance(outcome, Rejection):
        meta = episode.meta
        raise BadInputError(
            f"{path} cannot be used: episode {meta.seq} of {meta.session}: {outcome.message}."
        )


def _check_order(path: Path, episode: Episode, last_seq: dict[str, int]) -> None:
    """The service would take an episode that comes after a later one of its session for a duplicate."""
    meta = episode.meta
    if meta.seq <= last_seq.get(meta.session, 0):
        raise BadInputError(
            f"{path} cannot be used: episode {meta.seq} of {meta.session} stands after "
            f"{last_seq[meta.session]}; episodes of a session have to rise."
        )
    last_seq[meta.session] = meta.seq
