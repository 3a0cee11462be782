"""Presets: named sets of settings, one YAML file each, which may extend another."""

from pathlib import Path
from typing import Any

import yaml

from common.errors import BadInputError
from deploy import yaml_text
from deploy.keys import nearest_name

DEFAULT_PRESET = "vdfd"
_FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names that can be given; those that begin with an underscore are only extended by others."""
    return sorted(path.stem for path in _FOLDER.glob("[!_]*.yaml"))


def preset_layers(name: str) -> list[tuple[str, dict[str, Any]]]:
    """(source, nested values) of a preset and of all that it extends, the most general first."""
    if name not in preset_names():
        raise BadInputError(
            f'There is no preset "{name}": did you mean {nearest_name(name, preset_names())}? '
            f"There are: {', '.join(preset_names())}."
        )
    layers: list[tuple[str, dict[str, Any]]] = []
    following: str | None = name
    while following is not None:
        values = read_mapping(_FOLDER / f"{following}.yaml")
        layers.insert(0, (f"preset {following}", values))
        following = values.pop("extends", None)
    return layers


def read_mapping(path: Path) -> dict[str, Any]:
    """The nested values of a configuration file."""
    try:
        values = yaml_text.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"Configuration file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise BadInputError(
            f"Configuration file {path} is not YAML: {' '.join(str(error).split())}."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise BadInputError(
            f"Configuration file {path} must hold sections such as 'env:', not {values!r:.60}."
        )
    return values
