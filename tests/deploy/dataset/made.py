"""Data sets of synthetic episodes, made without a service."""

import dataclasses
import json

import numpy as np

from deploy.dataset import manifest
from deploy.dataset.table import Row
from deploy.dataset.writer import writing
from tests.episodes import SPEC, make_episode


def travelled(seq, *, spec=SPEC, **meta):
    """An episode as it comes out of a service, where returns have 32 bits."""
    episode = make_episode(spec, seq=seq, length=1 + seq % spec.episode_limit, **meta)
    exact = float(np.float32(episode.meta.episode_return))
    return dataclasses.replace(episode, meta=dataclasses.replace(episode.meta, episode_return=exact))


def rows(count, *, spec=SPEC, **meta):
    env_steps = 0
    for seq in range(1, count + 1):
        episode = travelled(seq, spec=spec, **meta)
        env_steps += episode.meta.length
        yield Row(episode=episode, number=seq - 1, env_steps=env_steps, stored_at_s=1.7e9 + seq)


def write(root, rows, *, spec=SPEC, **options):
    with writing(root, spec, **options) as writer:
        for row in rows:
            writer.add(row)
        return writer.finish(left_out=0, run_env_steps=1, run_weights_version=1)


def same(one, other):
    """Whether two episodes are, bit for bit."""
    arrays = ("obs", "state", "reward", "actions", "avail_actions")
    pairs = [(np.asarray(getattr(one, name)), np.asarray(getattr(other, name))) for name in arrays]
    return one.meta == other.meta and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


def resign(root):
    """Has the manifest say what its files are now: damage that no digest shows."""
    path = root / manifest.NAME
    values = json.loads(path.read_text())
    for shard in values["shards"]:
        file = root / shard["file"]
        shard |= {"size_bytes": file.stat().st_size, "sha256": manifest.sha256_of(file)}
    path.write_text(json.dumps(values))


def change_manifest(root, **fields):
    path = root / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
