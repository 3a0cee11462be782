"""YAML as people expect it (the core schema of YAML 1.2): 1e-3 is a number, "on" and "no" are words."""

import re
from typing import Any

import yaml

_RESOLVERS = {
    "tag:yaml.org,2002:null": (r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    "tag:yaml.org,2002:bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "tag:yaml.org,2002:int": (r"^[-+]?[0-9]+$", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Decimal always: YAML 1.1 reads 010 as eight."""
        return int(self.construct_scalar(node))


class _Dumper(yaml.SafeDumper):
    """The same for writing, so that what is written reads back as the same values."""


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _RESOLVERS.items():
    _starts = ["" if character == "\0" else character for character in _first]
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def load(text: str) -> Any:  # noqa: ANN401
    """The value of a YAML text; raises yaml.YAMLError if it is none."""
    return yaml.load(text, Loader=_Loader)  # _Loader is a SafeLoader


def dump(value: object) -> str:
    """A YAML text that `load` reads back as `value`; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
