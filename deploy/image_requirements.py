"""What the images need from pyproject.toml, for pip's command line.

image_requirements.py EXTRA...    the base dependencies and those of the extras
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Base and extra dependencies; of a torch that is installed already, pip adds what that needs."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return wanted


if __name__ == "__main__":
    print(*requirements(Path("pyproject.toml"), sys.argv[1:]))
