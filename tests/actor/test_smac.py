"""What is missing for SMAC is told in one sentence, before anything is started. Needs no smac."""

import sys

import pytest

from actor.registry import check_environment
from actor.settings import EnvSettings
from actor.smac import MAPS, Smac
from common.errors import BadInputError, FatalError
from tests import sc2_standin


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages in which the right smac is."""
    (tmp_path / "smac" / "env" / "starcraft2").mkdir(parents=True)
    (tmp_path / "smac" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "smac", raising=False)
    return tmp_path


def check(map_name="3m"):
    Smac.check_installed(EnvSettings(name="smac", map=map_name))


def test_everything_there(packages, game_folder, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(game_folder))
    for map_name in MAPS:
        check(map_name)


def test_the_other_package_of_that_name_is_recognised_without_importing_it(packages):
    (packages / "smac" / "env" / "starcraft2").rmdir()
    with pytest.raises(FatalError, match=r"AutoML's SMAC3.*pip uninstall smac.*make sc2-python"):
        check()


def test_no_package(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "smac", raising=False)
    with pytest.raises(FatalError, match=r"not installed: make sc2-python\.$") as raised:
        check()
    assert "pip install" not in str(raised.value)


def test_no_game(packages, tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    with pytest.raises(FatalError, match=r"not in .*nowhere: set SC2PATH.*make sc2"):
        check()


def test_without_sc2path_the_game_is_looked_for_at_home(packages, tmp_path, monkeypatch):
    monkeypatch.delenv("SC2PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FatalError, match=f"not in {tmp_path}/StarCraftII"):
        check()
    sc2_standin.install(tmp_path / "StarCraftII")
    check()


def test_a_missing_map_is_named(packages, tmp_path, monkeypatch):
    game = sc2_standin.install(tmp_path / "game")
    (game / "Maps" / "SMAC_Maps" / "MMM2.SC2Map").unlink()
    monkeypatch.setenv("SC2PATH", str(game))
    check("3m")
    with pytest.raises(FatalError, match=r"MMM2.SC2Map is missing.*make sc2"):
        check("MMM2")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"map": "3m_vs_3m"}, ['smac map "3m_vs_3m"', "corridor"]),
        ({"options": {"difficulty": "11"}}, ["difficulty", "smac"]),
        ({"options": {"episode_limit": 10}}, ["episode_limit", "smac"]),
    ],
)
def test_unknown_maps_and_options(settings, words):
    with pytest.raises(BadInputError) as raised:
        check_environment(EnvSettings(name="smac", **settings))
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_all_maps_are_described():
    assert len(Smac.maps()) == 23
    assert Smac.maps()["corridor"] == "6 zealots against 24 zerglings, 400 steps"
