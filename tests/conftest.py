"""What the tests of the StarCraft II path share; see docs/starcraft.md."""

import importlib.util

import pytest

from tests import sc2_standin

SMAC_TESTS = ["actor/test_smac_env.py", "system/test_smac_maps.py"]
SMAC_IS_INSTALLED = importlib.util.find_spec("pysc2") is not None
collect_ignore = [] if SMAC_IS_INSTALLED else SMAC_TESTS


def pytest_terminal_summary(terminalreporter):
    if not SMAC_IS_INSTALLED:
        terminalreporter.write_line(
            f"Left out, since smac is not installed: {', '.join(SMAC_TESTS)}. `make sc2-python` installs it."
        )


@pytest.fixture(scope="session")
def game_folder(tmp_path_factory):
    """An installed game that is the stand-in."""
    return sc2_standin.install(tmp_path_factory.mktemp("game"))
