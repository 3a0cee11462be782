"""Where the configuration comes from, which source wins, and what is said about a wrong one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EXIT_BAD_INPUT, BadInputError
from deploy import yaml_text
from deploy.config import Sources, config_text, load_config, save_config
from deploy.keys import nearest_key, settings_fields
from deploy.preset import preset_layers, preset_names
from deploy.settings import Config
from learner.algorithms import ALGORITHM_NAMES


def test_every_preset_builds_and_names_its_algorithm():
    for name in ALGORITHM_NAMES:
        assert load_config(Sources(preset=name)).learner.algorithm == name
    for name in preset_names():
        config = load_config(Sources(preset=name))
        assert config.learner.algorithm in ALGORITHM_NAMES
        one_step_per_episode = config.replay.samples_per_insert == config.learner.batch_size
        assert one_step_per_episode or config.replay.all_tables[config.learner.table].limiter == "queue"


def test_a_preset_wins_over_what_it_extends():
    sources = [source for source, _ in preset_layers("qmix")]
    assert sources == ["preset _base", "preset qmix"]


def test_an_algorithm_brings_its_preset_unless_another_is_named():
    assert load_config(Sources(options={"learner.algorithm": "qmix"})).learner.algorithm == "qmix"
    both = Sources(preset="vdfd", options={"learner.algorithm": "qmix"})
    assert load_config(both).learner.algorithm == "qmix"


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (Sources(), "vdfd"),
        (Sources(preset="vdfd-no-ac"), "vdfd-no-ac"),
        (Sources(options={"learner.algorithm": "qmix"}), "qmix"),
        (Sources(preset="vdfd-tuned", options={"learner.algorithm": "qmix"}), "qmix"),
        (Sources(preset="vdfd-no-ac", overrides=("run.preset=mine",)), "mine"),
    ],
)
def test_a_run_keeps_the_name_of_what_it_began_with(tmp_path, sources, name):
    config = load_config(sources)
    assert config.run.preset == name
    save_config(config, tmp_path / "config.yaml")
    assert load_config(Sources(file=tmp_path / "config.yaml")) == config
    # A run that is saved and then begun as another algorithm is that algorithm.
    again = Sources(file=tmp_path / "config.yaml", options={"learner.algorithm": "vdn"})
    assert load_config(again).run.preset == ("mine" if name == "mine" else "vdn")


def test_each_source_wins_over_those_before_it(tmp_path):
    file = tmp_path / "mine.yaml"
    names = ("env_steps", "actors", "seed", "name")
    file.write_text("run: {env_steps: 11, actors: 11, seed: 11, name: file}")
    environment = {f"VDFD_RUN__{name.upper()}": "22" for name in names[1:]}
    overrides = ("run.seed=33", "run.name=33")
    sources = Sources(
        file=file, environment=environment, overrides=overrides, options={"run.name": "44", "env.map": None}
    )
    run = load_config(sources).run
    assert (run.env_steps, run.actors, run.seed, run.name) == (11, 22, 33, "44")


def test_defaults_of_a_command_lie_below_the_preset():
    sources = Sources(defaults={"rpc": {"address": "127.0.0.1:0"}, "learner": {"algorithm": "qmix"}})
    config = load_config(sources)
    assert (config.rpc.address, config.learner.algorithm) == ("127.0.0.1:0", "vdfd")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("learner.optimiser.learning_rate=1e-3", 1e-3),
        ("run.env_steps=2e6", 2_000_000),
        ("learner.world_model.kl_balance=null", None),
        ("learner.double_q=false", False),
        ("env.options.episode_limit=30", 30),
        ("replay.redis_url=redis://host:1/0", "redis://host:1/0"),
        ("run.name=1e3", "1e3"),
    ],
)
def test_values_of_overrides_have_the_type_of_their_setting(override, value):
    found = load_config(Sources(overrides=(override,))).model_dump()
    for part in override.partition("=")[0].split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_a_saved_configuration_gives_the_same_again(tmp_path):
    overrides = ("run.name=1e3", "learner.optimiser.rmsprop_eps=1e-7", "env.options.episode_limit=null")
    config = load_config(Sources(preset="qmix", overrides=overrides))
    path = tmp_path / "config.yaml"
    save_config(config, path)
    assert load_config(Sources(file=path)) == config
    assert yaml_text.load(config_text(config)).keys() == Config.model_fields.keys()


@settings(deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False), st.lists)
)
def test_yaml_reads_back_what_it_writes(value):
    again = yaml_text.load(yaml_text.dump(value))
    assert again == value
    assert type(again) is type(value)


BAD_FILES = {
    "env: [": "not YAML",
    "- 1": "must hold sections",
    "env: 3m": "env is a section",
    "env: {mapp: 3m}": "env.map",
    "!!python/object:os.system {}": "not YAML",
    "run: {seed: -1}": "run.seed cannot be -1",
}


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (Sources(preset="vdfdd"), 'no preset "vdfdd": did you mean vdfd?'),
        (Sources(preset="_base"), "There are: " + ", ".join(preset_names())),
        (Sources(options={"learner.algorithm": "qmixx"}), "did you mean qmix?"),
        (Sources(options={"env.name": "smaxx"}), "did you mean smax?"),
        (Sources(options={"env.map": "5m_vs_7m"}), "did you mean 5m_vs_6m?"),
        (
            Sources(options={"run.actors": 0}),
            "run.actors cannot be 0: it should be greater than or equal to 1",
        ),
        (Sources(overrides=("learner.optimizer.learning_rate=1",)), "nearest is learner.optimiser"),
        (Sources(overrides=("map=3m",)), "nearest is env.map"),
        (Sources(overrides=("run.seed",)), "KEY=VALUE"),
        (Sources(overrides=("learner.gamma=[",)), "not YAML"),
        (Sources(overrides=("learner.gamma=1.5",)), "learner.gamma cannot be 1.5"),
        (Sources(overrides=("learner.gamma=.nan",)), "learner.gamma cannot be nan"),
        (Sources(overrides=("learner.optimiser.name=sgd",)), "'rmsprop' or 'adam'"),
        (
            Sources(overrides=("learner.batch_size=100", "replay.window_episodes=50")),
            "replay.window_episodes",
        ),
        (
            Sources(overrides=("replay.tables.default.samplr=fifo",)),
            r"nearest is replay\.tables\.NAME\.sampler",
        ),
        (Sources(overrides=("replay.tables.default=fifo",)), "replay.tables.default is a section"),
        (Sources(overrides=("replay.tables=fifo",)), "a section for each name"),
        (Sources(overrides=("replay.tables.Bad Name.alpha=0",)), "Bad Name"),
        (Sources(overrides=("replay.tables.default.limiter=queue",)), "needs sampler=fifo"),
        (Sources(overrides=("replay.tables.default.max_age_versions=3",)), "limiter=queue"),
        (Sources(overrides=("replay.tables.default.max_times_sampled=8",)), "samples_per_insert is 32"),
        (Sources(overrides=("replay.tables.recent.window_episodes=8",)), "table recent"),
        (Sources(overrides=("replay.tables.default.min_episodes=5001",)), "min_episodes"),
        (Sources(overrides=("learner.table=recent",)), "learner.table is recent.*has default"),
        (
            Sources(
                overrides=(
                    "replay.tables.default.limiter=queue",
                    "replay.tables.default.sampler=fifo",
                    "replay.tables.default.max_age_versions=3",
                )
            ),
            "publish_every_steps is 10",
        ),
        (Sources(overrides=("actor.drain_timeout_s=10",)), r"actor_stop_s \(10\) has to be longer"),
        (Sources(overrides=("actor.lockstep=true",)), "run.actors=1"),
        (
            Sources(preset="coma", overrides=("actor.lockstep=true", "actor.copies=1", "run.actors=1")),
            "limiter=queue",
        ),
        (Sources(overrides=("env.options.speed=3",)), "speed"),
        (Sources(environment={"VDFD_ENV__MPA": "3m"}), "VDFD_ENV__MPA: .*nearest is env.map"),
        (Sources(environment={"VDFD_RUN__SEED": "x"}), "run.seed cannot be 'x'"),
    ],
)
def test_bad_input_is_told_in_one_sentence(sources, said):
    with pytest.raises(BadInputError, match=said) as raised:
        load_config(sources)
    assert raised.value.code == EXIT_BAD_INPUT
    assert "\n" not in str(raised.value)


LOCKSTEP = {
    "actor.lockstep": "true",
    "actor.copies": 1,
    "run.actors": 1,
    "replay.insert_lead_episodes": 0,
    "learner.publish_every_steps": 1,
}


def in_lockstep(changed):
    return Sources(overrides=tuple(f"{key}={value}" for key, value in {**LOCKSTEP, **changed}.items()))


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"run.actors": 2, "actor.copies": 3}, "run.actors=1, actor.copies=1"),
        ({"learner.publish_every_steps": 2}, "learner.publish_every_steps=1"),
        ({"learner.batch_size": 64}, "replay.tables.default.samples_per_insert=64"),
        ({"replay.tables.default.samples_per_insert": 16}, "replay.tables.default.samples_per_insert=32"),
        ({"replay.insert_lead_episodes": 1}, "replay.tables.default.insert_lead_episodes=0"),
        ({"replay.tables.default.min_episodes": 33}, "replay.tables.default.min_episodes=0"),
        ({"replay.tables.default.max_times_sampled": 32}, "replay.tables.default.max_times_sampled=0"),
        ({"replay.tables.other.alpha": 0, "learner.table": "other"}, "actor.table=other"),
    ],
)
def test_lockstep_without_a_published_step_per_episode_is_told_what_to_set(changed, missing):
    """It would wait for ever for a step that is not due, or that nobody sees."""
    load_config(in_lockstep({}))
    with pytest.raises(BadInputError, match=rf"per episode, so set {re.escape(missing)}\.$"):
        load_config(in_lockstep(changed))
    load_config(in_lockstep({**changed, **dict(setting.split("=") for setting in missing.split(", "))}))


def test_lockstep_is_no_matter_of_a_run_on_a_data_set():
    load_config(in_lockstep({"replay.samples_per_insert": 100, "run.dataset": "episodes.parquet"}))


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_is_told_in_one_sentence(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=BAD_FILES[text]) as raised:
        load_config(Sources(file=path))
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or "cannot be" in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"absent\.yaml"):
        load_config(Sources(file=tmp_path / "absent.yaml"))


@pytest.mark.parametrize("key", [key for key, _ in settings_fields()])
def test_the_nearest_key_of_a_key_with_a_typing_error_is_that_key(key):
    assert nearest_key(key[:-2] + key[-1]) == key


def test_every_key_has_a_meaning():
    assert [key for key, field in settings_fields() if not field.description] == []


def test_what_a_table_leaves_open_is_as_for_all(tmp_path):
    overrides = ("replay.window_episodes=70", "replay.tables.recent.window_episodes=90")
    config = load_config(Sources(overrides=(*overrides, "replay.tables.recent.sampler=fifo")))
    tables = config.replay.all_tables
    assert list(tables) == ["default", "recent"]
    assert [table.window_episodes for table in tables.values()] == [70, 90]
    assert [table.samples_per_insert for table in tables.values()] == [32.0, 32.0]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(Sources(file=tmp_path / "config.yaml")) == config
