import numpy as np
import pytest

from actor.registry import ENVIRONMENTS, make_environment
from actor.settings import EnvSettings
from tests.actor.toy_environment import Toy

COPIES = 4


@pytest.fixture(scope="session", autouse=True)
def toy_registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENTS, "toy", Toy)
        yield


@pytest.fixture(scope="session")
def open_environment(toy_registered):
    """name -> environment of its first map in four copies, built once: compiling takes seconds."""
    opened = {}

    def open_once(name):
        if name not in opened:
            settings = EnvSettings(name=name, map=next(iter(ENVIRONMENTS[name].maps())))
            opened[name] = make_environment(settings, copies=COPIES, threads=1)
        return opened[name]

    yield open_once
    for environment in opened.values():
        environment.close()
        environment.close()  # harmless


@pytest.fixture(params=sorted({"toy", *(name for name, kind in ENVIRONMENTS.items() if not kind.max_copies)}))
def environment(request, open_environment):
    """Every registered simulator, in four copies; a game client has a suite of its own."""
    return open_environment(request.param)


@pytest.fixture
def smax(open_environment):
    return open_environment("smax")


@pytest.fixture
def rng():
    return np.random.default_rng(7)
