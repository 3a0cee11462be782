"""DeepMind's Reverb under the load of replay_speed.py, as a program of its own environment.

    python -m tests.bench.replay_reverb SHAPE

An item is a whole episode. Modes of writing, each with its table: "steps" appends every time step and makes
an item over all of them, which is how Reverb is meant to be used; "whole" appends the episode as one step,
the cheapest way. Both wait for acknowledgements, with up to IN_FLIGHT items unconfirmed (flush). Modes of
sampling: Client.sample, and TrajectoryDataset with one worker or as many as it chooses, batches fetched
ahead; all end with NumPy arrays per episode and field.
"""

import sys
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import reverb
import tensorflow as tf

from tests.bench.replay_episodes import SHAPES, Arrays, make_arrays
from tests.bench.replay_workers import (
    BATCH,
    EPISODES_PER_WRITER,
    FILL_EPISODES,
    MAX_WRITERS,
    SPAWN,
    Worker,
    answer_requests,
)

TABLES = ("steps", "whole")
SAMPLERS = {"client": 0, "dataset": 1, "workers": -1}
"""Workers of the TrajectoryDataset; -1: its own choice."""
IN_FLIGHT = 8
"""They count as done, so Reverb is flattered by as many items per measurement."""


def episode(shape_name: str, seed: int) -> Arrays:
    """T rows of every field, since the columns of an item must be equally long."""
    shape = SHAPES[shape_name]
    return {name: array[: shape.steps] for name, array in make_arrays(shape, seed).items()}


def serve(shape_name: str, port: "Queue[int]", stop: Event) -> None:
    """A server with one table per mode of writing."""
    tables = [
        reverb.Table(
            name,
            sampler=reverb.selectors.Uniform(),
            remover=reverb.selectors.Fifo(),
            max_size=SHAPES[shape_name].window,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        )
        for name in TABLES
    ]
    server = reverb.Server(tables, port=None)
    port.put(server.port)
    stop.wait()
    server.stop()


class Writing:
    """One writer per table."""

    def __init__(self, port: int, shape_name: str, number: int) -> None:
        self._episodes = [episode(shape_name, 100 * number + i) for i in range(EPISODES_PER_WRITER)]
        self._steps = SHAPES[shape_name].steps
        client = reverb.Client(f"127.0.0.1:{port}")
        self._writers = [
            client.trajectory_writer(num_keep_alive_refs=refs, validate_items=False)
            for refs in (self._steps, 1)
        ]
        self._done = 0

    def step(self, mode: int) -> None:
        arrays, writer = self._episodes[self._done % EPISODES_PER_WRITER], self._writers[mode]
        if TABLES[mode] == "steps":
            for t in range(self._steps):
                writer.append({name: array[t] for name, array in arrays.items()})
            self._item(mode, self._steps)
            writer.end_episode()
        else:
            writer.append(arrays)
            self._item(mode, 1)
        self._done += 1

    def done(self) -> int:
        return self._done

    def _item(self, mode: int, rows: int) -> None:
        writer = self._writers[mode]
        columns = {name: column[-rows:] for name, column in writer.history.items()}
        writer.create_item(TABLES[mode], 1.0, columns)
        writer.flush(block_until_num_items=IN_FLIGHT)


class Sampling:
    """All modes of sampling; the mode's number is 2 * sampler + table."""

    def __init__(self, port: int, shape_name: str) -> None:
        self._client = reverb.Client(f"127.0.0.1:{port}")
        address, example = f"127.0.0.1:{port}", episode(shape_name, 0)
        self._datasets = {
            (name, table): _dataset(address, table, example, workers)
            for name, workers in SAMPLERS.items()
            for table in TABLES
            if workers
        }
        self._done = 0
        for mode in range(len(SAMPLERS) * len(TABLES)):
            self.step(mode)

    def step(self, mode: int) -> None:
        number, table_number = divmod(mode, len(TABLES))
        sampler, table = list(SAMPLERS)[number], TABLES[table_number]
        if SAMPLERS[sampler]:
            next(self._datasets[sampler, table])
        else:
            batch: Any = list(self._client.sample(table, num_samples=BATCH, emit_timesteps=False))
            assert len(batch) == BATCH
        self._done += 1

    def done(self) -> int:
        return self._done


def _dataset(address: str, table: str, example: Arrays, workers: int) -> Any:
    lead = () if table == "steps" else (1,)
    return iter(
        reverb.TrajectoryDataset(
            server_address=address,
            table=table,
            dtypes={name: tf.as_dtype(array.dtype) for name, array in example.items()},
            shapes={name: tf.TensorShape((*lead, *array.shape)) for name, array in example.items()},
            max_in_flight_samples_per_worker=2 * BATCH,
            num_workers_per_iterator=workers,
        )
        .batch(BATCH)
        .prefetch(2)
        .as_numpy_iterator()
    )


def main(shape_name: str) -> None:
    ports, stop = SPAWN.Queue(), SPAWN.Event()
    server = SPAWN.Process(target=serve, args=(shape_name, ports, stop), daemon=True)
    server.start()
    port = ports.get(timeout=120)
    filling = Writing(port, shape_name, 0)
    for mode in range(len(TABLES)):
        for _ in range(FILL_EPISODES):
            filling.step(mode)
    writers = [Worker(Writing, port, shape_name, n + 1) for n in range(MAX_WRITERS)]
    sampler = Worker(Sampling, port, shape_name)
    for worker in (*writers, sampler):
        worker.start()
    for worker in (*writers, sampler):
        worker.await_ready()

    def choose(request: dict[str, Any]) -> dict[str, tuple[list[Worker], int]]:
        *sampling, table_name = request["mode"].split("-")
        table = TABLES.index(table_name)
        mode = len(TABLES) * list(SAMPLERS).index(sampling[0]) + table if sampling else table
        return {
            "writers": (writers[: request["writers"]], table),
            "samplers": ([sampler] if sampling else [], mode),
        }

    try:
        answer_requests(choose, {"service": [server.pid]})
    finally:
        for worker in (*writers, sampler):
            worker.end()
        stop.set()
        server.join(5)
        server.kill()


if __name__ == "__main__":
    main(sys.argv[1])
