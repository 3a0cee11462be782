"""Messages lose nothing of the data that they carry."""

import dataclasses

import pytest

from common import codec
from common.types import EnvSpec
from tests.episodes import SPEC


def test_spec_round_trip_and_bounds():
    assert codec.spec_from_proto(codec.spec_to_proto(SPEC)) == SPEC
    with pytest.raises(ValueError, match="n_actions"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "n_actions": 256})
    with pytest.raises(ValueError, match="fallback_action"):
        EnvSpec(**{**dataclasses.asdict(SPEC), "fallback_action": 7})
