"""An actor's sending half in a process of its own: writes episodes until the run is complete.

Keeps two groups on their way. When its replica is gone it sends what was not acknowledged to the next one.
Prints the highest seq that was acknowledged as stored.
"""

import asyncio
import itertools
import sys

import grpc

from protos import replay_pb2 as pb
from tests.replay.running import Client, message

GROUP = 3
KEPT = (pb.INSERT_OUTCOME_STORED, pb.INSERT_OUTCOME_DUPLICATE)


async def write(addresses, session, table):
    stored, acknowledged, places = 0, 0, itertools.cycle(addresses)
    while True:
        client = Client(next(places))
        stream, sent = client.inserting(), acknowledged
        try:
            while True:
                while sent < acknowledged + 2 * GROUP:
                    group = [message(sent + n, session=session) for n in range(1, GROUP + 1)]
                    await stream.send(*group, table=table)
                    sent += GROUP
                response = await stream.receive()
                acknowledged += GROUP
                stored += sum(result.outcome in KEPT for result in response.results)
                if response.results[-1].outcome == pb.INSERT_OUTCOME_RUN_COMPLETE:
                    return stored
        except grpc.aio.AioRpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), error
        finally:
            await client.channel.close()


if __name__ == "__main__":
    print(asyncio.run(write(sys.argv[1].split(","), sys.argv[2], sys.argv[3])))
