"""Loads the configuration from its sources, each of which wins over those before it.

preset < data set < configuration file < environment variables < KEY=VALUE overrides < dedicated options
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from actor.registry import check_environment
from common.durable import replace_file
from common.errors import BadInputError
from deploy import yaml_text
from deploy.keys import check_keys, nearest_key, nearest_name, takes_text
from deploy.preset import DEFAULT_PRESET, preset_layers, preset_names, read_mapping
from deploy.settings import ENVIRONMENT_PREFIX, Config
from learner.algorithms import ALGORITHM_NAMES


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a configuration comes from."""

    preset: str | None = None
    """Name of the preset; None: the one named like the algorithm that was asked for, or else the default."""
    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables such as VDFD_ENV__MAP=2s3z; those without the prefix are nobody's business."""
    overrides: tuple[str, ...] = ()
    """Such as learner.optimiser.learning_rate=1e-3."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Dotted key and value of dedicated command-line options; None: not given."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Nested values that a command puts below everything else."""
    of_dataset: Mapping[str, Any] = field(default_factory=dict)
    """Nested values that follow from a data set: they win over the preset, not over what is given."""


def load_config(sources: Sources) -> Config:
    """What the sources make together; raises BadInputError on anything that is wrong in one."""
    merged: dict[str, Any] = {}
    for source, values in _layers(sources):
        check_keys(values, source)
        merged = _merge(merged, values)
    config = _build(_with_preset_name(merged, sources))
    check_environment(config.env)
    _check_algorithm(config.learner.algorithm)
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes the whole configuration; loading the file gives an equal one."""
    replace_file(path, config_text(config))


def config_text(config: Config) -> str:
    """The whole configuration as YAML."""
    return yaml_text.dump(config.model_dump(mode="json"))


def _layers(sources: Sources) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "default", sources.defaults
    yield from preset_layers(_chosen_preset(sources))
    yield "data set", sources.of_dataset
    if sources.file is not None:
        yield f"configuration file {sources.file}", read_mapping(sources.file)
    for name, text in sorted(sources.environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            yield f"environment variable {name}", _from_text(key, text, f"environment variable {name}")
    for override in sources.overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise BadInputError(
                f"{override!r} is not understood: overrides look like KEY=VALUE, for example run.seed=2."
            )
        yield f"override {override}", _from_text(key, text, f"override {override}")
    for key, value in sources.options.items():
        if value is not None:
            yield "option", _nested(key, value)


def _chosen_preset(sources: Sources) -> str:
    if sources.preset is not None:
        return sources.preset
    algorithm = sources.options.get("learner.algorithm")
    return str(algorithm) if algorithm in preset_names() else DEFAULT_PRESET


def _with_preset_name(values: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    """Ablations share their algorithm's name, so the preset's is kept; a file of a run has it already."""
    algorithm = values.get("learner", {}).get("algorithm", DEFAULT_PRESET)
    preset = _chosen_preset(sources)
    named = values.get("run", {}).get("preset", "")
    # An algorithm that was changed afterwards is not what the preset says.
    for name in (named, preset):
        if name and (name not in preset_names() or _preset_algorithm(name) == algorithm):
            return _merge(values, _nested("run.preset", name))
    return _merge(values, _nested("run.preset", algorithm))


def _preset_algorithm(name: str) -> str:
    layers = (values.get("learner", {}).get("algorithm") for _, values in preset_layers(name))
    return str([algorithm for algorithm in layers if algorithm][-1])


def _from_text(key: str, text: str, source: str) -> dict[str, Any]:
    if takes_text(key):
        return _nested(key, text)
    try:
        return _nested(key, yaml_text.load(text))
    except yaml.YAMLError as error:
        raise BadInputError(f"{source}: the value is not YAML: {' '.join(str(error).split())}.") from error


def _nested(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in top.items():
        below = merged.get(name)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(below or {}, value) if nested else value
    return merged


def _build(values: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise BadInputError(_sentence(error)) from error


def _check_algorithm(name: str) -> None:
    if name not in ALGORITHM_NAMES:
        raise BadInputError(
            f'There is no algorithm "{name}": did you mean {nearest_name(name, ALGORITHM_NAMES)}? '
            f"There are: {', '.join(ALGORITHM_NAMES)}."
        )


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:
        return f"{first['msg'].removeprefix('Value error, ')}."
    if first["type"] == "extra_forbidden":
        return f"There is no configuration key {key}; the nearest is {nearest_key(key)}."
    reason = first["msg"].removeprefix("Input ")
    return f"{key} cannot be {first['input']!r}: it {reason}."
