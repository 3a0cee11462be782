"""`vdfd profile`, from the command line to tables and traces."""

import json
import re

import pytest
import torch

from actor.registry import ENVIRONMENTS
from common.errors import EXIT_BAD_INPUT
from deploy import cli
from tests.actor.toy_environment import Toy

SMALL = ("agent.hidden_size=8", "learner.batch_size=4", "actor.copies=3", "learner.device=cpu")
WORLD_MODEL = ("learner.world_model.latent_size=4", "learner.world_model.hidden_size=6")


@pytest.fixture
def vdfd(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(ENVIRONMENTS, "toy", Toy)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def run(*arguments):
        """(exit code, standard output, standard error)"""
        monkeypatch.setattr("sys.argv", ["vdfd", "profile", "--env", "toy", "--map", "tiny", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    yield run
    torch.set_num_threads(threads)


def shares(output):
    """Part -> share, of what is not beside the steps."""
    lines = re.sub(r"beside it.*?\n(  .*\n|\w.*%\n)*", "", output).splitlines()
    return {
        m[1].strip(): float(m[2]) for line in lines if (m := re.match(r"(.+?) +[\d.]+ .* ([\d.]+)%$", line))
    }


def labels(path):
    return {event["name"] for event in json.loads(path.read_text())["traceEvents"]}


def test_the_learner_s_table_and_trace_name_its_parts(vdfd, tmp_path):
    code, output, _ = vdfd(
        "--algo", "vdfd", "--actor-steps", "0", "--learner-steps", "2", *SMALL, *WORLD_MODEL
    )
    assert code == 0
    parts = {
        "learner step",
        "wait for the batch",
        "copy to device",
        "agent",
        "target agent",
        "world model",
        "action-conditioned branch",
        "action-free branch",
        "static branch",
        "imagination",
        "rollout GRU",
        "mixer",
        "target mixer",
        "backward",
        "backward of agent",
        "backward of action-free branch",
        "backward of mixer",
        "optimiser",
    }
    assert parts <= shares(output).keys()
    assert sum(shares(output).values()) == pytest.approx(100, abs=2)  # of rounded figures
    assert "\n  copy to device" in output, "it is a part of the step itself"
    assert "decode" in output[output.index("beside it") :]
    assert {part for part in parts if "backward of" not in part} | {"decode"} <= labels(
        tmp_path / "profiles" / "learner.json"
    )
    assert not (tmp_path / "profiles" / "actor.json").exists()


def test_the_actor_s_table_and_trace_name_its_parts(vdfd, tmp_path):
    code, output, _ = vdfd("--learner-steps", "0", "--actor-steps", "40", "--out", "there", *SMALL)
    assert code == 0
    parts = {
        "actor step",
        "policy",
        "environment step",
        "beginning of episodes",
        "wait for room in the queue",
    }
    assert parts <= shares(output).keys()
    assert sum(shares(output).values()) == pytest.approx(100, abs=2)
    beside = output[output.index("beside it") :]
    assert "encoding" in beside and "sending" in beside
    assert parts | {"encoding", "sending"} <= labels(tmp_path / "there" / "actor.json")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--learner-steps", "0", "--actor-steps", "0"), "There is nothing to profile"),
        (("--out", "taken/below"), "--out taken/below cannot be made a directory"),
        (("learner.device=cuda:77",), "torch sees"),
        (("--map", "huge"), 'There is no toy map "huge"'),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(vdfd, tmp_path, arguments, sentence):
    (tmp_path / "taken").write_text("")
    code, output, error = vdfd(*arguments)
    assert (code, output) == (EXIT_BAD_INPUT, "")
    assert sentence in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
