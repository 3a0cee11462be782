from pathlib import Path

import pytest

from tests.deploy.made_secrets import make_secrets


@pytest.fixture(scope="module")
def secrets(tmp_path_factory) -> Path:
    return make_secrets(tmp_path_factory.mktemp("secrets"))
