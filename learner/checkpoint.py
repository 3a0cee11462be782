"""Checkpoints that are complete or absent.

    run_dir/checkpoints/step_00001000/
        algorithm.safetensors   all that training needs to go on: networks, optimiser, counters, generators
        agent.safetensors       the agent network alone, as it is published; enough to play
        state.json              step, session, spec, agent and learner settings
        DONE                    SHA-256 of the files above; written last

A checkpoint is written under another name and renamed when all of it is on the disk, so a directory called
step_* that holds DONE is whole. Nothing in it is pickled.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from common.durable import sync
from common.errors import FatalError
from common.settings import AgentSettings
from common.types import EnvSpec, Weights
from learner.settings import LearnerSettings

ALGORITHM, AGENT, STATE, DONE = "algorithm.safetensors", "agent.safetensors", "state.json", "DONE"
FORMAT = 1
UNFINISHED = "unfinished-"


class CheckpointError(FatalError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A learner after `step` steps."""

    step: int
    spec: EnvSpec
    agent: AgentSettings
    settings: LearnerSettings
    weights: Weights
    algorithm: dict[str, Tensor]
    """Algorithm.state_dict(), on the CPU when loaded."""


def save(run_dir: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`. Returns its directory."""
    root = run_dir / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(root)
    final = root / f"step_{checkpoint.step:08d}"
    if not is_complete(final):
        if final.exists():
            _remove(final)
        _write(final, _serialise(checkpoint))
    for old in _complete(root)[:-keep]:
        _remove(old)
    return final


def latest(run_dir: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    complete = _complete(run_dir / "checkpoints")
    return complete[-1] if complete else None


def is_complete(directory: Path) -> bool:
    """Whether a checkpoint was written to its end."""
    return (directory / DONE).is_file()


def load(directory: Path) -> Checkpoint:
    """Reads a checkpoint back. Raises CheckpointError unless every file is as it was written."""
    files = _read(directory, (STATE, AGENT, ALGORITHM))
    try:
        state = json.loads(files[STATE])
        spec, agent, weights = _agent(state, files[AGENT])
        settings = LearnerSettings.model_validate(state["settings"])
        return Checkpoint(
            step=state["step"],
            spec=spec,
            agent=agent,
            settings=settings,
            weights=weights,
            algorithm=safetensors.torch.load(files[ALGORITHM]),
        )
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise _unusable(directory, f"its contents do not fit this version ({error})") from error


def load_agent(directory: Path) -> tuple[EnvSpec, AgentSettings, Weights]:
    """What it takes to play: the environment's sizes, the agent network's settings and its weights.

    Raises CheckpointError unless the files are as they were written.
    """
    files = _read(directory, (STATE, AGENT))
    try:
        return _agent(json.loads(files[STATE]), files[AGENT])
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(directory, f"its contents do not fit this version ({error})") from error


def _agent(state: dict[str, Any], data: bytes) -> tuple[EnvSpec, AgentSettings, Weights]:
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, not {FORMAT}")
    weights = Weights(session=state["session"], version=state["version"], data=data)
    return EnvSpec(**state["spec"]), AgentSettings.model_validate(state["agent"]), weights


def _serialise(checkpoint: Checkpoint) -> dict[str, bytes]:
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "session": checkpoint.weights.session,
        "version": checkpoint.weights.version,
        "spec": asdict(checkpoint.spec),
        "agent": checkpoint.agent.model_dump(mode="json"),
        "settings": checkpoint.settings.model_dump(mode="json"),
    }
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in checkpoint.algorithm.items()
    }
    return {
        ALGORITHM: safetensors.torch.save(tensors),
        AGENT: checkpoint.weights.data,
        STATE: _to_json(state),
    }


def _write(final: Path, files: dict[str, bytes]) -> None:
    unfinished = final.with_name(f"{UNFINISHED}{final.name}")
    unfinished.mkdir()
    marker = _to_json({name: _digest(data) for name, data in files.items()})
    for name, data in {**files, DONE: marker}.items():
        with (unfinished / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync(unfinished)
    unfinished.rename(final)
    sync(final.parent)


def _read(directory: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The files' bytes, checked against the marker."""
    if not is_complete(directory):
        raise CheckpointError(f"{directory} is no complete checkpoint: it has no file {DONE}")
    try:
        digests = json.loads((directory / DONE).read_bytes())
        files = {name: (directory / name).read_bytes() for name in names}
    except (OSError, ValueError) as error:
        raise _unusable(directory, str(error)) from error
    for name, data in files.items():
        if digests.get(name) != _digest(data):
            raise _unusable(directory, f"{name} is not as it was written")
    return files


def _unusable(directory: Path, problem: str) -> CheckpointError:
    one_line = " ".join(problem.split())
    advice = "remove the directory to use the checkpoint before it"
    return CheckpointError(f"the checkpoint {directory} cannot be used: {one_line}; {advice}")


def _complete(root: Path) -> list[Path]:
    """Complete checkpoints by ascending step."""
    found = [path for path in root.glob("step_*") if path.name[5:].isdecimal() and is_complete(path)]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _remove(directory: Path) -> None:
    """Renames first, so that a half-removed checkpoint is never taken for a whole one."""
    unfinished = directory.with_name(f"{UNFINISHED}{directory.name}")
    directory.rename(unfinished)
    shutil.rmtree(unfinished)


def _remove_unfinished(root: Path) -> None:
    for leftover in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
