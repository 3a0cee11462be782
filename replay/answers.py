"""What the service found out, as the protocol's messages."""

from common import codec
from common.types import EnvSpec
from protos import replay_pb2 as pb
from replay.admission import Rejection
from replay.inserter import Inserted
from replay.stats import InsertStats
from replay.storage import Outcome, RunStatus
from replay.table import TableStatus

OUTCOMES = {
    Outcome.STORED: pb.INSERT_OUTCOME_STORED,
    Outcome.DUPLICATE: pb.INSERT_OUTCOME_DUPLICATE,
    Outcome.RUN_COMPLETE: pb.INSERT_OUTCOME_RUN_COMPLETE,
}


def status_response(spec: EnvSpec | None, status: RunStatus, inserts: InsertStats) -> pb.GetStatusResponse:
    """The state of the run, and what this replica has seen of it."""
    counters = status.counters
    return pb.GetStatusResponse(
        spec=None if spec is None else codec.spec_to_proto(spec),
        counters=codec.counters_to_proto(counters),
        total_env_steps=status.total_env_steps,
        window_episodes=sum(table.available for table in status.tables),
        window_bytes=sum(table.size_bytes for table in status.tables),
        samples_per_insert=counters.samples / counters.episodes if counters.episodes else 0.0,
        weights_lag=inserts.weights_lag,
        evaluations_pending=status.evaluations_pending,
        duplicates=inserts.duplicates,
        rejected=inserts.rejected,
        actors=[
            pb.ActorStatus(
                actor=actor.actor, episodes=actor.episodes, last_insert_age_s=actor.last_insert_age_s
            )
            for actor in inserts.actors
        ],
        train_return=inserts.train_return,
        train_win_rate=inserts.train_win_rate,
        tables=[_table_status(table) for table in status.tables],
    )


def _table_status(table: TableStatus) -> pb.TableStatus:
    return pb.TableStatus(
        table=table.name,
        inserts=table.inserts,
        samples=table.samples,
        window_episodes=table.available,
        window_bytes=table.size_bytes,
        dropped=table.dropped,
        batch_due=table.batch_due,
    )


def insert_response(inserted: Inserted) -> pb.InsertResponse:
    """What became of a group."""
    results = [
        pb.InsertResult(seq=seq, outcome=pb.INSERT_OUTCOME_INVALID, message=outcome.message)
        if isinstance(outcome, Rejection)
        else pb.InsertResult(seq=seq, outcome=OUTCOMES[outcome])
        for seq, outcome in inserted.results
    ]
    return pb.InsertResponse(results=results, counters=codec.counters_to_proto(inserted.counters))
