"""The configuration's keys in dotted form: which there are, and which is nearest to a wrong one."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from common.errors import BadInputError
from common.settings import Settings
from deploy.settings import Config


def all_fields(section: type[Settings] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting and every section, in the order of their definition."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner = _section_of(field)
        if inner is not None:
            yield from all_fields(inner, f"{prefix}{name}.")
        named = _named_sections_of(field)
        if named is not None:
            yield from all_fields(named, f"{prefix}{name}.NAME.")


def settings_fields() -> Iterator[tuple[str, FieldInfo]]:
    """The same without the sections."""
    return ((key, field) for key, field in all_fields() if _section_of(field) is None)


def check_keys(
    values: Mapping[str, Any], source: str, *, section: type[Settings] = Config, prefix: str = ""
) -> None:
    """Raises BadInputError, naming the nearest valid key, if nested `values` have an unknown one."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in section.model_fields:
            raise BadInputError(
                f"{source}: there is no configuration key {key}; the nearest is {nearest_key(key)}."
            )
        inner = _section_of(section.model_fields[name])
        if inner is not None:
            _check_section(value, source, key, inner)
        named = _named_sections_of(section.model_fields[name])
        if named is not None:
            if not isinstance(value, Mapping):
                raise BadInputError(f"{source}: {key} is not a value, but has a section for each name.")
            for entry, settings in value.items():
                _check_section(settings, source, f"{key}.{entry}", named)


def _check_section(value: object, source: str, key: str, section: type[Settings]) -> None:
    if not isinstance(value, Mapping):
        raise BadInputError(
            f"{source}: {key} is a section, not a value; its keys are {', '.join(section.model_fields)}."
        )
    check_keys(value, source, section=section, prefix=f"{key}.")


def takes_text(key: str) -> bool:
    """Whether a dotted key is a plain string, so that its value is not to be read as YAML."""
    return any(name == key and field.annotation is str for name, field in settings_fields())


def nearest_key(key: str) -> str:
    """The valid dotted key that `key` resembles most, as a whole or in its last part."""
    return max((name for name, _ in all_fields()), key=lambda name: _likeness(key, name))


def nearest_name(name: str, valid: Sequence[str]) -> str:
    """The valid name that `name` resembles most."""
    return max(valid, key=lambda other: difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio())


def _likeness(key: str, name: str) -> float:
    whole = difflib.SequenceMatcher(None, key, name).ratio()
    last = difflib.SequenceMatcher(None, key.rpartition(".")[2], name.rpartition(".")[2]).ratio()
    return max(whole, 0.9 * last) + 0.1 * whole


def _section_of(field: FieldInfo) -> type[Settings] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _named_sections_of(field: FieldInfo) -> type[Settings] | None:
    """The class of the values, where a field maps names to sections."""
    if get_origin(field.annotation) is not dict:
        return None
    value = get_args(field.annotation)[1]
    return value if isinstance(value, type) and issubclass(value, Settings) else None
