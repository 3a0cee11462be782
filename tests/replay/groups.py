"""What is given to storages; they do not look into blobs."""

import uuid

from common.types import Evaluation
from replay.storage import Group, NewEpisode
from tests.episodes import make_episode


def episode(seq, *, session="a", length=10, size=100) -> NewEpisode:
    meta = make_episode(seq=seq, session=session, length=length).meta
    return NewEpisode(meta=meta, blob=blob(session, seq, size))


def blob(session, seq, size=100) -> bytes:
    return f"{session}/{seq}".encode().ljust(size, b".")


def group(*seqs, session="a", length=10, size=100) -> Group:
    episodes = tuple(episode(seq, session=session, length=length, size=size) for seq in seqs)
    return Group(id=uuid.uuid4().hex, episodes=episodes)


def evaluation(env_steps, **changes) -> Evaluation:
    fields = {"weights_version": 1, "episodes": 4, "wins": 2, "mean_return": 10.5, "mean_length": 20.25}
    return Evaluation(**{"env_steps": env_steps} | fields | changes)
