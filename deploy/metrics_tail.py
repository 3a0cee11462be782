"""Follows metrics.jsonl while the learner writes it."""

import json
from collections.abc import Mapping
from pathlib import Path

_LOSS = "loss/"


class MetricsTail:
    """The newest figures of the learner; reads only what has been added since it last looked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.learner_step = 0
        """Of the newest record of losses."""
        self.losses: Mapping[str, float] = {}
        """By name, without the prefix; those that are not finite are left out."""

    def refresh(self) -> None:
        """Reads on; a line that is still being written is left for the next time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, record: Mapping[str, float | None]) -> None:
        losses = {
            name.removeprefix(_LOSS): value
            for name, value in record.items()
            if name.startswith(_LOSS) and value is not None
        }
        if losses:
            self.losses = losses
            self.learner_step = int(record["learner_step"] or 0)
