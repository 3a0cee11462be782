"""What the pages of docs/ show is what the configuration takes."""

import re
from pathlib import Path

import pytest
import yaml

from deploy.config import Sources, load_config
from deploy.settings import Config

DOCS = Path(__file__).parents[2] / "docs"


def _settings_shown():
    """Blocks whose every top-level key is one of the configuration's."""
    for page in sorted(DOCS.glob("*.md")):
        for number, block in enumerate(re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S)):
            try:
                shown = yaml.safe_load(block)
            except yaml.YAMLError:
                continue
            if isinstance(shown, dict) and set(shown) <= Config.model_fields.keys():
                yield pytest.param(block, id=f"{page.stem}-{number}")


SHOWN = list(_settings_shown())


def test_there_are_some():
    assert len(SHOWN) >= 2


@pytest.mark.parametrize("block", SHOWN)
def test_shown_settings_can_be_used(block, tmp_path):
    path = tmp_path / "shown.yaml"
    path.write_text(block)
    load_config(Sources(file=path))
