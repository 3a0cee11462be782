"""What the images need from pyproject.toml, for pip's command line; and a check of the CPU build of torch.

image_requirements.py EXTRA...    the base dependencies and those of the extras
image_requirements.py cpu-torch   fails if the installed torch is a CUDA build
"""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Does what the first lines of this file say."""
    if arguments == ["cpu-torch"]:
        check_cpu_torch()
    else:
        print(*requirements(Path("pyproject.toml"), arguments))


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Base and extra dependencies; of a torch that is installed already, pip adds what that needs."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return wanted


def check_cpu_torch() -> None:
    """Reads torch's version file; torch itself cannot be imported without its dependencies."""
    found = importlib.util.find_spec("torch")
    assert found is not None and found.origin is not None
    version = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    if re.search(r"^cuda[^=]*= *None", version, re.MULTILINE) is None:
        sys.exit(
            "This torch is a CUDA build of gigabytes: give the index of the CPU builds as TORCH_CPU_INDEX."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
