"""What is given to storages; they do not look into blobs."""

from common.types import Evaluation
from replay.settings import DEFAULT_TABLE
from replay.storage import Group, NewEpisode
from replay.table import Table
from tests.episodes import make_episode


def episode(seq, *, session="a", length=10, size=100, version=0) -> NewEpisode:
    meta = make_episode(seq=seq, session=session, length=length, weights_version=version).meta
    return NewEpisode(meta=meta, blob=blob(session, seq, size))


def blob(session, seq, size=100) -> bytes:
    return f"{session}/{seq}".encode().ljust(size, b".")


def group(*seqs, session="a", length=10, size=100, version=0, table=DEFAULT_TABLE) -> Group:
    episodes = tuple(episode(seq, session=session, length=length, size=size, version=version) for seq in seqs)
    return Group(table=table, episodes=episodes)


def main(storage, name=DEFAULT_TABLE) -> Table:
    return storage.table(name)


def evaluation(env_steps, **changes) -> Evaluation:
    fields = {"weights_version": 1, "episodes": 4, "wins": 2, "mean_return": 10.5, "mean_length": 20.25}
    return Evaluation(**{"env_steps": env_steps} | fields | changes)
