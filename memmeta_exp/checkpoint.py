"""Checkpoints: plain tensors and numbers, written whole or not at all, read without running code."""

import os
from pathlib import Path
from typing import Any

import torch


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; its text is one line for the user."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` to a temporary file beside `path`, syncs it and renames it: a reader sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote, on `device`; CheckpointError where the file is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: the run did not get as far as a checkpoint; train it again")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); train the run again") from error
