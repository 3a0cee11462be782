"""The command line: help, the configuration it makes, and bad input, after which nothing is there."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import EXIT_BAD_INPUT, EXIT_FAILURE
from deploy import cli
from deploy.config import Sources, load_config, save_config
from deploy.preset import preset_names

COMMANDS = (
    "train",
    "replay",
    "learner",
    "actor",
    "evaluator",
    "evaluate",
    "experiment",
    "plot",
    "config",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("VDFD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def vdfd(monkeypatch, capsys):
    def run(*arguments):
        """(exit code, standard output, standard error)"""
        monkeypatch.setattr(sys, "argv", ["vdfd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(vdfd, command):
    code, output, _ = vdfd(command, "--help")
    assert code == 0
    assert f"vdfd {command}" in output
    assert output.count(f"vdfd {command}") >= 2, "the help has no example"


def test_the_help_names_every_command_and_preset(vdfd):
    _, output, _ = vdfd("--help")
    assert all(command in output for command in COMMANDS)
    _, output, _ = vdfd("train", "--help")
    unwrapped = output.translate(dict.fromkeys(map(ord, "│ \n")))
    assert ",".join(preset_names()) in unwrapped


def test_config_prints_what_all_sources_make(vdfd, monkeypatch, tmp_path):
    monkeypatch.setenv("VDFD_RUN__SEED", "5")
    code, output, _ = vdfd("config", "--algo", "qmix", "--map", "2s3z", "--actors", 4, "learner.gamma=0.5")
    assert code == 0
    (tmp_path / "made.yaml").write_text(output)
    made = load_config(Sources(file=tmp_path / "made.yaml"))
    assert (made.learner.algorithm, made.env.map, made.run.actors) == ("qmix", "2s3z", 4)
    assert (made.learner.gamma, made.run.seed) == (0.5, 5)


def test_config_explains_keys(vdfd):
    _, output, _ = vdfd("config", "--explain")
    assert "run.env_steps: The run ends when" in output


BAD_INPUT = {
    "preset": (["train", "--preset", "vdfdd"], '"vdfdd": did you mean vdfd?'),
    "algorithm": (["train", "--algo", "qmixx"], '"qmixx": did you mean qmix?'),
    "environment": (["train", "--env", "smaxx"], '"smaxx": did you mean smax?'),
    "map": (["train", "--map", "5m_vs_7m"], '"5m_vs_7m": did you mean 5m_vs_6m?'),
    "key": (["train", "learner.batchsize=3"], "nearest is learner.batch_size"),
    "value": (["train", "--steps", "0"], "run.env_steps cannot be 0"),
    "no value": (["train", "resume"], "KEY=VALUE"),
    "file": (["train", "--config", "absent.yaml"], "absent.yaml"),
    "address": (["actor", "--address", "nowhere"], "host:port"),
    "port 0": (["learner", "--address", "127.0.0.1:0"], "--address HOST:PORT"),
    "resumed directory": (["train", "--resume", "absent"], "absent is not a run directory"),
    "data set": (["train", "--dataset", "absent"], "absent is no data set"),
    "data set and resume": (["train", "--resume", "a", "--dataset", "b"], "leave --dataset out"),
    "imported data set": (["replay", "import", "absent"], "absent is no data set"),
    "exported run": (["replay", "export", "new", "--run-dir", "absent"], "absent is not a run directory"),
    "two directories": (["train", "--resume", "a", "--run-dir", "b"], "leave --run-dir out"),
    "checkpoint": (["evaluate", "absent"], "absent is no checkpoint"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_sentence_and_starts_nothing(vdfd, tmp_path, name):
    arguments, said = BAD_INPUT[name]
    code, output, error = vdfd(*arguments)
    assert code == EXIT_BAD_INPUT
    assert error.startswith("vdfd: ")
    assert said in error
    assert error.count("\n") == 1
    assert output == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_environment_variable_is_named(vdfd, monkeypatch, tmp_path):
    monkeypatch.setenv("VDFD_ENV__MPA", "3m")
    code, _, error = vdfd("train")
    assert code == EXIT_BAD_INPUT
    assert "VDFD_ENV__MPA" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "name"), [((), "{host}-{pid}"), (("--name", "a-{pid}-{host}"), "a-{pid}-{host}")]
)
def test_an_actor_has_a_name_of_its_own_unless_it_is_given_one(vdfd, monkeypatch, arguments, name):
    """Actors of one name would play the same battles."""
    started = []
    monkeypatch.setattr("actor.main.run_actor", lambda **options: started.append(options["name"]))
    monkeypatch.setattr(cli, "prepare", lambda: None)
    assert vdfd("actor", *arguments)[0] == 0
    assert started == [name.format(host=socket.gethostname(), pid=os.getpid())]


def test_a_taken_port_starts_nothing(vdfd, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, _, error = vdfd("train", "--address", address)
    assert code == EXIT_FAILURE
    assert address in error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def finished_run(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    save_config(load_config(Sources(overrides=("run.env_steps=1000",))), run_dir / "config.yaml")
    (run_dir / "summary.json").write_text("{}")
    return run_dir


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give more by --steps"),
        (["--steps", "999"], "cannot lower run.env_steps from 1000 to 999"),
        (["--steps", "2000", "--map", "8m"], "cannot change env"),
        (["--steps", "2000", "--algo", "qmix"], "cannot change learner.algorithm"),
        (["--steps", "2000", "--seed", "2"], "cannot change run.seed"),
        (["--steps", "2000", "agent.hidden_size=8"], "cannot change agent"),
        (["learner.world_model.horizon=2"], "cannot change learner.world_model.horizon"),
        (["learner.world_model.optimiser.name=rmsprop"], "cannot change learner.world_model.optimiser.name"),
        (["learner.world_model.optimiser.learning_rate=1e-4"], "give more by --steps"),
        (["learner.optimiser.max_grad_norm=1"], "give more by --steps"),
        (["--preset", "qmix"], "leave --preset and --config out"),
    ],
)
def test_a_run_goes_on_as_what_it_is(vdfd, finished_run, arguments, said):
    before = sorted(path.name for path in finished_run.iterdir())
    code, _, error = vdfd("train", "--resume", finished_run, *arguments)
    assert code == EXIT_BAD_INPUT
    assert said in error
    assert sorted(path.name for path in finished_run.iterdir()) == before


def test_a_learner_alone_keeps_its_configuration_for_plots_and_evaluations(vdfd, tmp_path):
    run_dir = tmp_path / "run"
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        for name in ("2s3z", "3m"):
            code, _, error = vdfd(
                *("learner", "--address", address, "--run-dir", run_dir, "--map", name),
                "rpc.connect_timeout_s=0.1",
            )
            assert (code, error.count("\n")) == (EXIT_FAILURE, 1), error
    assert load_config(Sources(file=run_dir / "config.yaml")).env.map == "2s3z"
    (run_dir / "checkpoints").mkdir()
    code, _, error = vdfd("train", "--resume", run_dir)
    assert code == EXIT_BAD_INPUT
    assert "goes on where its replay service is" in error


def test_a_learner_that_cannot_keep_its_configuration_says_so(vdfd, tmp_path):
    (tmp_path / "config.yaml.partial").mkdir()  # permissions would not hold the superuser back
    code, _, error = vdfd("learner", "--address", "127.0.0.1:1", "--run-dir", tmp_path)
    assert code == EXIT_FAILURE
    assert f"{tmp_path} cannot be written to" in error


def test_redis_that_cannot_be_reached_ends_the_run_before_it_begins(tmp_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{reserved.getsockname()[1]}/0"
        command = [sys.executable, "-m", "deploy.cli", "train", f"replay.redis_url={url}"]
        command += ["replay.redis_connect_timeout_s=0.2", "--run-dir", str(tmp_path / "run")]
        ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == EXIT_FAILURE
    assert "replay failed: " in ended.stderr
    assert url.removesuffix("/0").removeprefix("redis://") in ended.stderr
    assert not (tmp_path / "run" / "logs" / "learner.log").exists()


def test_the_installed_program_is_this_command_line():
    program = shutil.which("vdfd", path=str(Path(sys.executable).parent))
    assert subprocess.run([program, "config"], capture_output=True).returncode == 0
