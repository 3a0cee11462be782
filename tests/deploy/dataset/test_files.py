"""A data set as files: what goes in comes out bit for bit, others can read it, and damage is found."""

import dataclasses
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import BadInputError, FatalError
from deploy.dataset import manifest, table
from deploy.dataset.reader import open_dataset, verified
from deploy.dataset.writer import writing
from deploy.run_dir import locked_directory
from tests.deploy.dataset.made import change_manifest, resign, rows, same, write
from tests.episodes import SPEC

LIMIT = {"max_episode_bytes": 10**6}


def check(root):
    dataset = open_dataset(root, **LIMIT)
    return dataset, list(verified(dataset, **LIMIT))


def test_many_row_groups_and_shards_come_back_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "MAX_ROWS", 3)
    given = list(rows(20, won=True, seed=2**64 - 1, weights_version=2**63, actor="é" * 64))
    given[3].episode.obs.flat[:3] = [-0.0, np.finfo(np.float32).tiny / 2, np.finfo(np.float32).max]
    made = write(tmp_path / "set", given, shard_bytes=10_000)
    assert len(made.shards) > 2
    dataset, counted = check(tmp_path / "set")
    read = list(dataset.episodes())
    assert counted == list(range(1, 21))
    assert all(same(row.episode, episode) for row, episode in zip(given, read, strict=True))


def test_equal_episodes_make_equal_files(tmp_path):
    one, two = write(tmp_path / "one", rows(5)), write(tmp_path / "two", rows(5))
    assert one == two


def test_pandas_reads_the_directory(tmp_path):
    given = list(rows(20))
    write(tmp_path / "set", given, shard_bytes=10_000)
    frame = pandas.read_parquet(tmp_path / "set")
    assert list(frame.seq) == list(range(1, 21))
    assert set(frame["map"]) == {SPEC.map}
    assert list(frame.env_steps) == list(frame.length.cumsum())
    assert frame.stored_at.iloc[0] == pandas.Timestamp(1.7e9 + 1, unit="s", tz="UTC")
    told = json.loads((tmp_path / "set" / manifest.NAME).read_text())
    for row, last in zip(given, frame.itertuples(), strict=True):
        for name, shape in told["columns"].items():
            sizes = eval(shape, dict(told["spec"]), {"length": last.length})
            np.testing.assert_array_equal(getattr(last, name).reshape(sizes), getattr(row.episode, name))


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "set", SPEC) as writer:
        writer.add(next(rows(1)))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_replaced(tmp_path):
    left = tmp_path / ".set.partial"
    left.mkdir()
    (left / "episodes-00007.parquet").write_bytes(b"half")
    write(tmp_path / "set", rows(2))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "_manifest.json",
        "episodes-00000.parquet",
        "set",
    ]


def test_two_writers_and_a_name_that_is_taken(tmp_path):
    (tmp_path / ".set.partial").mkdir()
    with (
        locked_directory(tmp_path / ".set.partial", "test"),
        pytest.raises(FatalError, match="Another vdfd replay export"),
    ):
        write(tmp_path / "set", rows(1))
    (tmp_path / "set").mkdir()
    with pytest.raises(BadInputError, match="exists already"):
        write(tmp_path / "set", rows(1))
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match="cannot be written"):
        write(tmp_path / "file" / "set", rows(1))


def _truncate(root):
    file = root / "episodes-00000.parquet"
    file.write_bytes(file.read_bytes()[:-100])


def _flip(root):
    file = root / "episodes-00000.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _flip_and_resign(root):
    _flip(root)
    resign(root)


def _truncate_and_resign(root):
    _truncate(root)
    resign(root)


def _cut_manifest(root):
    path = root / manifest.NAME
    path.write_text(path.read_text()[:-20])


def _rewritten(**columns):
    """Another content of columns, with a manifest to match."""

    def change(root):
        file = root / "episodes-00000.parquet"
        content = pq.read_table(file)
        for name, make in columns.items():
            values = content[name].to_pylist()
            place = content.schema.get_field_index(name)
            content = content.set_column(
                place, content.schema.field(name), pa.array(make(values), content.schema.field(name).type)
            )
        pq.write_table(content, file)
        resign(root)

    return change


def _one_group(root):
    """All rows in one row group, more than a writer makes."""
    file = root / "episodes-00000.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(file)] * 300), file)
    resign(root)


def _a_column_less(root):
    file = root / "episodes-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["reward"]), file)
    resign(root)


def _spec(**fields):
    return lambda root: change_manifest(root, spec=manifest.spec_values(SPEC) | fields)


DAMAGE = {
    "truncated": (_truncate, "is damaged: it has .* bytes, the manifest says"),
    "a flipped bit": (_flip, "is damaged: its SHA-256"),
    "truncated, manifest to match": (_truncate_and_resign, "cannot be used"),
    "a flipped bit, manifest to match": (_flip_and_resign, "cannot be used"),
    "a shard is missing": (
        lambda root: (root / "episodes-00000.parquet").unlink(),
        "cannot be read: No such",
    ),
    "no manifest": (lambda root: (root / manifest.NAME).unlink(), "is no data set"),
    "half a manifest": (_cut_manifest, "_manifest.json cannot be used"),
    "no JSON object": (
        lambda root: (root / manifest.NAME).write_text("[1]"),
        "_manifest.json cannot be used",
    ),
    "a later version": (lambda root: change_manifest(root, version=2), "version: Input should be 1"),
    "an unknown field": (lambda root: change_manifest(root, more=1), "more: Extra inputs"),
    "wrong totals": (lambda root: change_manifest(root, episodes=7), "episodes is not the sum"),
    "a path elsewhere": (
        lambda root: change_manifest(
            root,
            shards=[{"file": "../x", "size_bytes": 1, "sha256": "0" * 64, "episodes": 6, "env_steps": 1}],
        ),
        r"shards\.0\.file: String should match",
    ),
    "another environment": (_spec(map="other"), "its environment is not that of the manifest"),
    "an impossible environment": (_spec(n_agents=0), "n_agents must be at least 1"),
    "a gigantic environment": (_spec(n_agents=2**31), "episode_limit: an episode that long has"),
    "an agent count as text": (_spec(n_agents="3"), "cannot be used"),
    "a hostile length": (
        _rewritten(length=lambda old: [2**32 - 1, *old[1:]]),
        "obs has .* values in an episode",
    ),
    "a short array": (_rewritten(obs=lambda old: [old[0][:-1], *old[1:]]), "obs has .* values in an episode"),
    "a missing value": (_rewritten(reward=lambda old: [[None] * 2, *old[1:]]), "reward has missing values"),
    "NaN": (_rewritten(obs=lambda old: [[float("nan")] * len(old[0]), *old[1:]]), "obs: holds a value"),
    "an action not available": (
        _rewritten(actions=lambda old: [[200] * len(old[0]), *old[1:]]),
        "episode 1 of session-1: actions: 200",
    ),
    "episodes out of order": (
        _rewritten(seq=lambda old: [9, *old[1:]]),
        "episode 2 of session-1 stands after 9",
    ),
    "too large a row group": (_one_group, "a row group has more than"),
    "a column less": (_a_column_less, "its columns are not"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_sentence(tmp_path, name):
    damage, said = DAMAGE[name]
    write(tmp_path / "set", rows(6))
    damage(tmp_path / "set")
    with pytest.raises(BadInputError, match=said) as raised:
        check(tmp_path / "set")
    assert "\n" not in str(raised.value)


def test_a_shard_of_another_data_set(tmp_path):
    write(tmp_path / "one", rows(6))
    write(
        tmp_path / "two",
        rows(6, spec=dataclasses.replace(SPEC, state_size=2)),
        spec=dataclasses.replace(SPEC, state_size=2),
    )
    (tmp_path / "two" / "episodes-00000.parquet").replace(tmp_path / "one" / "episodes-00000.parquet")
    resign(tmp_path / "one")
    with pytest.raises(BadInputError, match="its environment is not"):
        check(tmp_path / "one")
