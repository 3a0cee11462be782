"""Channels and servers as everything here makes them."""

import asyncio

import grpc
import pytest

from common import rpc
from common.settings import RpcSettings

TIMEOUT_S = 10.0


@pytest.fixture
def proxied(monkeypatch):
    """As on a machine that reaches the world through a proxy only."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_a_service_is_reached_without_the_proxy_that_is_for_the_world(proxied):
    server = rpc.aio_server(RpcSettings())
    settings = RpcSettings(address=f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    try:
        async with rpc.aio_channel(settings) as channel:
            await asyncio.wait_for(channel.channel_ready(), TIMEOUT_S)
        with rpc.channel(settings) as channel:
            await asyncio.to_thread(grpc.channel_ready_future(channel).result, TIMEOUT_S)
    finally:
        await server.stop(None)
