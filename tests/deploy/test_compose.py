"""docker-compose.yml, the images and .env, as far as they can be judged without an engine."""

import re
from pathlib import Path

import pytest
import yaml

from actor.settings import ActorSettings
from deploy.config import Sources, load_config
from deploy.image_requirements import requirements
from deploy.settings import ENVIRONMENT_PREFIX

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
MAKE_VARIABLES = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env").read_text(), re.MULTILINE))


def normal(package):
    return package.lower().replace("_", "-")


def filled_in(value):
    """A value of the file as compose reads it when nothing is set."""
    while (plain := re.sub(r"\$\{[A-Z_]+(?::?-([^${}]*))?\}", r"\1", str(value))) != str(value):
        value = plain
    return str(value)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_restricted(name):
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "ulimits" not in service


def test_only_dashboards_are_published_and_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"grafana"}
    assert all(filled_in(port).startswith("127.0.0.1:") for port in published["grafana"])
    assert COMPOSE["networks"]["cluster"]["internal"] is True


def test_parts_see_no_other_part_s_secrets():
    for name, service in SERVICES.items():
        seen = {
            volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith("secrets-")
        }
        expected = set() if name in ("prometheus", "alertmanager") else {f"secrets-{name}"}
        if name != "secrets":
            assert seen == expected, name
            assert all(":ro" in volume for volume in service.get("volumes", ()) if "secrets-" in volume)
    made = {volume.split(":")[0] for volume in SERVICES["secrets"]["volumes"]}
    assert made == {volume for volume in COMPOSE["volumes"] if volume.startswith("secrets-")}


def test_what_makes_the_secrets_may_write_every_one_of_its_volumes():
    """A volume takes its owner from the image's folder; one that is not there would be root's."""
    folders = re.search(r"for part in ([a-z ]+); do", DOCKERFILE)[1].split()
    mounted = [volume.split(":")[1] for volume in SERVICES["secrets"]["volumes"]]
    assert sorted(mounted) == sorted(f"/made/{folder}" for folder in folders)


def test_nothing_secret_stands_in_the_files():
    for file in ("docker-compose.yml", ".env", "deploy/docker/Dockerfile", "deploy/docker/redis.conf"):
        text = (ROOT / file).read_text()
        assert not re.search(r"(?i)(password|token|secret)\w*\s*[:=]\s*['\"]?\w{8,}", text), file


@pytest.mark.parametrize(
    "name", [name for name, part in SERVICES.items() if "VDFD_RPC__ADDRESS" in str(part)]
)
def test_the_configuration_of_every_part_is_understood(name):
    service = SERVICES[name]
    role, *words = [filled_in(word) for word in service["command"]]
    options = dict(zip(words[::2], words[1::2], strict=True))
    config = load_config(
        Sources(
            environment={key: filled_in(value) for key, value in service["environment"].items()},
            options={"learner.algorithm": options["--algo"], "rpc.address": options.get("--address")},
        )
    )
    assert role == name and config.rpc.encrypted and config.metrics.serve
    assert (config.env.map, config.learner.algorithm) == ("3m", "vdfd")
    assert bool(config.replay.tokens_file) == (name == "replay")


def test_env_names_what_the_file_asks_for():
    compose = (ROOT / "docker-compose.yml").read_text()
    asked = set(re.findall(r"\$\{([A-Z_0-9]+)", compose)) - {"TAG"}
    extra = {"COMPOSE_FILE", "SC2_PATH", "PYTHON_IMAGE", "SMAC_SOURCE"}
    assert asked <= MAKE_VARIABLES <= asked | extra
    assert not any(name.startswith(ENVIRONMENT_PREFIX) for name in MAKE_VARIABLES)


def test_the_window_is_bounded_well_below_redis():
    """Else Redis is full first, and a full one refuses everything."""
    redis, replay = SERVICES["redis"]["command"], SERVICES["replay"]["environment"]
    memory = int(filled_in(redis[redis.index("--maxmemory") + 1]).removesuffix("gb")) * 1024**3
    assert int(filled_in(replay["VDFD_REPLAY__WINDOW_BYTES"])) <= memory / 2
    shipped = dict(
        re.findall(r"^(REDIS_MEMORY|WINDOW_BYTES)=(.*)$", (ROOT / ".env").read_text(), re.MULTILINE)
    )
    assert int(shipped["WINDOW_BYTES"]) <= int(shipped["REDIS_MEMORY"].removesuffix("gb")) * 1024**3 / 2


def test_volumes_are_all_used_and_all_there():
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    }
    assert used == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_a_stopped_actor_has_time_to_drain():
    grace_s = int(SERVICES["actor"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > ActorSettings().drain_timeout_s + 5  # for its last step, and the end of its game


def test_images_run_as_an_ordinary_user_and_have_their_own_parts_only():
    final = DOCKERFILE[DOCKERFILE.rindex("AS runtime") :]
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE)[-1] == "10001:10001"
    replay = " ".join(requirements(ROOT / "pyproject.toml", ["replay"]))
    assert "redis" in replay and "torch" not in replay and "jax" not in replay
    assert "torch" in " ".join(requirements(ROOT / "pyproject.toml", ["learner"]))


def test_versions_of_images_are_pinned():
    for service in SERVICES.values():
        image = filled_in(service["image"])
        assert ":" in image and not image.endswith(":latest")
    pinned = (ROOT / "deploy/docker/constraints.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    names = {normal(line.split("==")[0]) for line in pinned}
    for requirement in requirements(ROOT / "pyproject.toml", ["replay", "policy", "smax", "learner"]):
        name, extras = re.fullmatch(r"([\w.-]+)(?:\[(.*)\])?[^\[]*", requirement).groups()
        # The one extra that is asked for is called like the package that it brings.
        assert {normal(name)} | {normal(extra) for extra in (extras or "").split(",") if extra} <= names
