"""Episodes as rows of a Parquet file and back, bit for bit. The only file that imports pyarrow.

One row is one episode. Arrays are flat lists in C order; their shapes follow from `length` and the spec:

    obs            float32  (length + 1, n_agents, obs_size)
    state          float32  (length + 1, state_size)
    reward         float32  (length,)
    actions        uint8    (length, n_agents)
    avail_actions  bool     (length + 1, n_agents, n_actions)

Shapes: T steps, N agents, O obs, S state, A actions.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.codec import META_FIELDS
from common.errors import BadInputError, FatalError
from common.payload import EpisodeArrays, raw_size
from common.types import EnvSpec, Episode, EpisodeMeta
from deploy.dataset.manifest import FORMAT, VERSION, spec_values

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise FatalError("Data sets need the package pyarrow: install the extra `dataset` of vdfd.") from error

ROWS_BYTES = 32 * 1024 * 1024
"""A row group is closed when its arrays have reached this size: what a reader must hold at once."""
MAX_ROWS = 1024
"""Per row group."""
MAX_FOOTER_BYTES = 16 * 1024 * 1024

SHAPES = {
    "obs": "(length + 1, n_agents, obs_size)",
    "state": "(length + 1, state_size)",
    "reward": "(length,)",
    "actions": "(length, n_agents)",
    "avail_actions": "(length + 1, n_agents, n_actions)",
}
_ELEMENTS = {
    "obs": pa.float32(),
    "state": pa.float32(),
    "reward": pa.float32(),
    "actions": pa.uint8(),
    "avail_actions": pa.bool_(),
}
_META_TYPES = {
    "session": pa.string(),
    "seq": pa.uint64(),
    "actor": pa.string(),
    "seed": pa.uint64(),
    "weights_version": pa.uint64(),
    "length": pa.uint32(),
    "episode_return": pa.float32(),
    "won": pa.bool_(),
    "terminated": pa.bool_(),
}
_ABOUT_TYPES = {  # for whoever reads a data set; an import does not need them
    "env": pa.string(),
    "map": pa.string(),
    "number": pa.uint64(),
    "env_steps": pa.uint64(),
    "stored_at": pa.timestamp("ms", tz="UTC"),
}
_TYPES = {**_META_TYPES, **_ABOUT_TYPES, **{name: pa.list_(type_) for name, type_ in _ELEMENTS.items()}}
SCHEMA = pa.schema([pa.field(name, type_, nullable=False) for name, type_ in _TYPES.items()])
_NEEDED = [*_META_TYPES, *_ELEMENTS]
_SPEC_KEY = b"vdfd"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One episode and where it stood in its run."""

    episode: Episode
    number: int
    env_steps: int
    stored_at_s: float


class _File(io.FileIO):
    """Can be told to write nothing any more: pyarrow writes a footer also after a failure."""

    off = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything that is bytes
        return memoryview(data).nbytes if self.off else super().write(data)


class ShardWriter:
    """Writes one Parquet file, a row group at a time. Nothing of a row stays in memory after its group."""

    def __init__(self, path: Path, spec: EnvSpec) -> None:
        self._spec = spec
        self._rows: list[Row] = []
        self._bytes = 0
        self._raw = _File(path, "wb")
        self._file = io.BufferedWriter(self._raw)
        about = json.dumps(
            {"format": FORMAT, "version": VERSION, "spec": spec_values(spec), "shapes": SHAPES}
        )
        self._writer = pq.ParquetWriter(
            self._file,
            SCHEMA.with_metadata({_SPEC_KEY: about.encode()}),
            compression="zstd",
            use_dictionary=["session", "actor", "env", "map"],
            write_page_checksum=True,
        )
        self.episodes = self.env_steps = 0

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._file.tell()

    def add(self, row: Row) -> None:
        """Takes one more row."""
        self._rows.append(row)
        self._bytes += raw_size(self._spec, row.episode.meta.length)
        self.episodes += 1
        self.env_steps += row.episode.meta.length
        if self._bytes >= ROWS_BYTES or len(self._rows) >= MAX_ROWS:
            self._flush()

    def close(self) -> None:
        """Writes what is left. The file is whole only after this."""
        if not self._file.closed:
            self._flush()
            self._writer.close()
            self._file.close()

    def abandon(self) -> None:
        """Closes the file as it is, which is no use to anybody."""
        self._raw.off = True
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(_to_table(self._rows, self._spec), row_group_size=MAX_ROWS)
            self._rows, self._bytes = [], 0


def read_shard(path: Path, spec: EnvSpec) -> Iterator[Episode]:
    """The episodes of a file in their order; holds a row group at a time.

    Raises BadInputError, in one sentence, if the file is not what ShardWriter writes for this spec. What the
    arrays hold is not looked at.
    """
    try:
        with pq.ParquetFile(
            path,
            page_checksum_verification=True,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=MAX_FOOTER_BYTES,
        ) as file:
            _check_file(path, file, spec)
            for group in range(file.num_row_groups):
                _check_group_size(path, file.metadata.row_group(group), spec)
                yield from _to_episodes(path, file.read_row_group(group, columns=_NEEDED), spec)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unusable(path, " ".join(str(error).split())) from error


def _to_table(rows: Sequence[Row], spec: EnvSpec) -> pa.Table:
    columns: dict[str, Any] = {
        name: pa.array([getattr(row.episode.meta, name) for row in rows], type_)
        for name, type_ in _META_TYPES.items()
    }
    columns["env"] = pa.array([spec.env] * len(rows), pa.string())
    columns["map"] = pa.array([spec.map] * len(rows), pa.string())
    columns["number"] = pa.array([row.number for row in rows], pa.uint64())
    columns["env_steps"] = pa.array([row.env_steps for row in rows], pa.uint64())
    stored_at_ms = [round(row.stored_at_s * 1000) for row in rows]
    columns["stored_at"] = pa.array(stored_at_ms, pa.int64()).cast(_ABOUT_TYPES["stored_at"])
    for name in SHAPES:
        arrays = [np.ravel(getattr(row.episode, name)) for row in rows]
        offsets = np.cumsum([0, *(array.size for array in arrays)], dtype=np.int32)
        values = pa.array(np.concatenate(arrays), _ELEMENTS[name])
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), values)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _to_episodes(path: Path, table: pa.Table, spec: EnvSpec) -> Iterator[Episode]:
    for name in _NEEDED:
        if table[name].null_count:
            raise _unusable(path, f"{name} has missing values")
    meta = table.select(META_FIELDS).to_pylist()
    lists = {name: _lists(path, name, table[name].combine_chunks()) for name in SHAPES}
    for row, fields in enumerate(meta):
        arrays = {name: values[starts[row] : starts[row + 1]] for name, (values, starts) in lists.items()}
        length = fields["length"]
        for name, shape in shapes(spec, length).items():
            if arrays[name].size != np.prod(shape, dtype=object):
                raise _unusable(
                    path, f"{name} has {arrays[name].size} values in an episode of {length} steps"
                )
            arrays[name] = arrays[name].reshape(shape)
        yield Episode(meta=EpisodeMeta(**fields), **arrays)


def shapes(spec: EnvSpec, length: int) -> dict[str, tuple[int, ...]]:
    """Of the arrays of an episode of so many steps."""
    slots, n = length + 1, spec.n_agents
    return {
        "obs": (slots, n, spec.obs_size),
        "state": (slots, spec.state_size),
        "reward": (length,),
        "actions": (length, n),
        "avail_actions": (slots, n, spec.n_actions),
    }


def episode_of(meta: EpisodeMeta, arrays: EpisodeArrays) -> Episode:
    """An episode of decoded arrays."""
    return Episode(meta=meta, **{name: getattr(arrays, name) for name in SHAPES})


def _lists(path: Path, name: str, column: pa.ListArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """All values of a column of lists, and where each row begins in them."""
    values = column.values
    if values.null_count:
        raise _unusable(path, f"{name} has missing values")
    return values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()


def _check_file(path: Path, file: pq.ParquetFile, spec: EnvSpec) -> None:
    if not file.schema_arrow.equals(SCHEMA, check_metadata=False):
        raise _unusable(path, "its columns are not those of a data set of this version")
    try:
        about = json.loads((file.schema_arrow.metadata or {}).get(_SPEC_KEY, b"null"))
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"its description is not JSON ({error})") from error
    if not isinstance(about, dict) or about.get("spec") != spec_values(spec):
        raise _unusable(path, "its environment is not that of the manifest")


def _check_group_size(path: Path, group: pq.RowGroupMetaData, spec: EnvSpec) -> None:
    """What is said to come out of a row group has to fit what a writer puts into one."""
    at_most = 2 * (ROWS_BYTES + raw_size(spec, spec.episode_limit))
    values = sum(group.column(column).num_values for column in range(group.num_columns))
    if group.num_rows > MAX_ROWS or group.total_byte_size > at_most or values > at_most:
        raise _unusable(path, f"a row group has more than {MAX_ROWS} episodes or {at_most} bytes")


def _unusable(path: Path, problem: str) -> BadInputError:
    return BadInputError(f"{path} cannot be used: {problem}.")
