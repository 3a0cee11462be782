"""Services over a real Redis, one Redis for all tests of this directory."""

from tests.replay.conftest import prefix, redis_url, replay

__all__ = ["prefix", "redis_url", "replay"]
