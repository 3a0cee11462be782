"""What cannot be played is told in one sentence, before anything is started."""

import builtins
import sys

import pytest

from actor.registry import check_environment, describe_maps, make_environment
from actor.settings import EnvSettings
from common.errors import BadInputError, FatalError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EnvSettings(name="smaxx"), ['environment "smaxx"', "did you mean smax", "smax, smac, lbf, toy"]),
        (EnvSettings(map="3n"), ['smax map "3n"', "did you mean 3m", "3m, 8m, 25m", "6h_vs_8z"]),
        (EnvSettings(map="corridor!"), ['map "corridor!"', "There are: 3m"]),
        (EnvSettings(options={"episode_limt": 3}), ["episode_limt", "smax"]),
        (EnvSettings(options={"episode_limit": 0}), ["episode_limit", "greater than or equal to 1"]),
    ],
)
def test_unknown_names_and_options(settings, words):
    with pytest.raises(BadInputError) as raised:
        check_environment(settings)
    assert raised.value.code == 2
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without_the_simulator(name, *arguments):
        if name == "actor.smax_env":
            raise ImportError("No module named 'jaxmarl'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_the_simulator)
    with pytest.raises(FatalError, match=r"jaxmarl.*pip install 'vdfd\[smax\]'"):
        make_environment(EnvSettings(), copies=1, threads=1)


def test_checking_imports_no_simulator(monkeypatch):
    monkeypatch.delitem(sys.modules, "actor.smax_env", raising=False)
    check_environment(EnvSettings(map="27m_vs_30m"))
    assert "actor.smax_env" not in sys.modules


def test_maps_are_described_for_help_texts():
    assert describe_maps()["smax"]["5m_vs_6m"] == "5 marines against 6 marines, 70 steps"
