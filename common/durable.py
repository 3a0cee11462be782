"""Files that are there as a whole or not at all, after a power failure too."""

import os
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Writes `text` into `path`, whole and on the disk before it returns; raises OSError."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Has the disk keep a file's content, or a directory's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
