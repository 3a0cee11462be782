"""`vdfd replay stats`: what the service says, as a screen and as JSON."""

import asyncio
import io
import json

import pytest
from rich.console import Console

from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from deploy.replay_stats import rates_between, render, show_stats
from protos import replay_pb2 as pb
from tests.replay.running import TIMEOUT_S, message, serving


def shown(stats, rates):
    console = Console(width=120, file=io.StringIO())
    console.print(render({"default": stats}, {"default": rates}))
    return console.file.getvalue()


async def test_the_screen_and_the_json_say_what_the_service_says(capsys):
    async with serving(insert_lead_episodes=10**6, window_episodes=8, tables={"other": {}}) as client:
        await client.register()
        await client.insert(*(message(seq, length=seq, won=seq > 8) for seq in range(1, 11)))
        settings = RpcSettings(address=client.address)
        await asyncio.to_thread(show_stats, settings, StopSignal(), interval_s=0.01, as_json=True)
        told = json.loads(capsys.readouterr().out)
        stats = await client.stub.GetStats(pb.GetStatsRequest(), timeout=TIMEOUT_S)
    assert list(told["tables"]) == ["default", "other"]
    table = told["tables"]["default"]
    assert (table["episodes"], table["inserts"], told["counters"]["env_steps"]) == (8, 10, 55)
    assert table["age_env_steps"]["max"] == sum(range(4, 11))
    assert (table["inserts_per_s"], told["tables"]["other"]["inserts"]) == (0, 0)
    assert told["replica"]["duplicates"] == 0
    text = shown(stats, table)
    assert "8 of 8 episodes" in text
    assert "10 episodes, 0.0/s" in text
    assert "55 of 1,000,000,000" in text
    assert "won 25 %" in text
    assert "does not write to disk" in text


def test_an_empty_window_is_shown():
    assert "The window is empty" in shown(
        pb.GetStatsResponse(), rates_between(*[pb.GetStatsResponse()] * 2, 1.0)
    )


def test_rates_are_of_the_time_between():
    before = pb.GetStatsResponse(table={"inserts": 10, "samples": 100})
    now = pb.GetStatsResponse(table={"inserts": 30, "samples": 40})
    assert rates_between(before, now, 2.0) == {
        "inserts_per_s": 10,
        "samples_per_s": 0,
    }


def test_no_service_is_one_sentence():
    with pytest.raises(FatalError, match="does not answer"):
        show_stats(RpcSettings(address="127.0.0.1:1"), StopSignal(), interval_s=0.01, as_json=False)
