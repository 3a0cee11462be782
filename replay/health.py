"""The standard gRPC health service: SERVING while the storage can be reached."""

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio  # type: ignore[attr-defined] # the stubs lack it

from protos import replay_pb2 as pb
from replay.changes import Topic
from replay.errors import DrainingError
from replay.storage import Storage

SERVICES = ("", pb.DESCRIPTOR.services_by_name["Replay"].full_name)


async def report_health(storage: Storage, health: aio.HealthServicer) -> None:
    """Follows the storage until the service drains."""
    try:
        while True:
            changed = storage.changes.event(Topic.HEALTH)
            serving = health_pb2.HealthCheckResponse.SERVING
            status = serving if storage.reachable else health_pb2.HealthCheckResponse.NOT_SERVING
            for service in SERVICES:
                await health.set(service, status)
            await storage.changes.wait(changed)
    except DrainingError:
        await health.enter_graceful_shutdown()
