"""The processes of a local cluster, as command lines that the command line itself understands."""

import sys
from pathlib import Path

import grpc.aio
import pytest

from deploy.cli_options import sources_of
from deploy.commands import process_specs
from deploy.config import Sources, load_config, save_config
from deploy.run_dir import Elapsed, RunDir
from deploy.run_status import RunStatus


@pytest.fixture
async def specs_of(tmp_path):
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:

        def specs(*overrides):
            run_dir = RunDir(tmp_path / "a run")
            run_dir.root.mkdir(exist_ok=True)
            config = load_config(Sources(overrides=overrides))
            save_config(config, run_dir.config)
            status = RunStatus(channel, config, run_dir, Elapsed())
            return process_specs(config, run_dir, status, address="127.0.0.1:1234")

        yield specs


def configuration_of(spec):
    """What a child makes of its command line."""
    words = list(spec.command[spec.command.index("deploy.cli") + 2 :])
    options, overrides = {}, [word for word in words if "=" in word]
    for name, value in zip(words[::2], words[1::2], strict=False):
        options[name] = value
    return load_config(sources_of(overrides, config=Path(options["--config"]), address=options["--address"]))


async def test_every_part_has_its_process(specs_of):
    specs = specs_of("run.actors=3")
    assert [spec.name for spec in specs] == [
        "replay",
        "learner",
        "actor-0",
        "actor-1",
        "actor-2",
        "evaluator",
    ]
    assert all(spec.command[0] == sys.executable for spec in specs)
    ends_by_itself = {spec.name for spec in specs if spec.is_done is not None}
    assert ends_by_itself == {spec.name for spec in specs} - {"replay"}


async def test_the_service_is_stopped_last_and_the_learner_before_it(specs_of):
    order = {spec.name: spec.stop_order for spec in specs_of("run.actors=1")}
    assert order["actor-0"] == order["evaluator"] < order["learner"] < order["replay"]


async def test_children_get_the_run_s_configuration_and_the_address(specs_of):
    for spec in specs_of("run.seed=7"):
        config = configuration_of(spec)
        assert (config.run.seed, config.rpc.address) == (7, "127.0.0.1:1234")


async def test_runs_that_share_a_redis_have_their_own_keys(specs_of):
    replay, *_ = specs_of("replay.redis_url=redis://shared:6379/0")
    assert configuration_of(replay).replay.redis_prefix == "vdfd.a_run"
    own, *_ = specs_of()
    assert configuration_of(own).replay.redis_prefix == "vdfd"


async def test_processes_that_serve_metrics_share_no_port(specs_of):
    specs = specs_of("run.actors=2", "metrics.serve=true", "metrics.port=9300")
    ports = {spec.name: configuration_of(spec).metrics.port for spec in specs}
    assert ports == {"replay": 9300, "learner": 9301, "actor-0": 9302, "actor-1": 9303, "evaluator": 9304}


async def test_a_run_on_a_data_set_imports_it_before_it_trains(specs_of):
    specs = specs_of("run.dataset=/a/set", "learner.table=big", "replay.tables.big.sampler=uniform")
    assert [(spec.name, spec.others_wait) for spec in specs] == [
        ("replay", False),
        ("import", True),
        ("learner", False),
    ]
    command = specs[1].command
    assert command[command.index("import") + 1] == "/a/set"
    assert command[command.index("--table") + 1] == "big"
