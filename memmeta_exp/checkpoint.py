"""Checkpoints: plain tensors and numbers, written whole or not at all, read without running code."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memmeta_exp.errors import CheckpointError


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


def restore(model: nn.Module, path: Path, device: torch.device | str = "cpu") -> int:
    """Loads the weights of the checkpoint at `path` into `model`; returns its iteration. Raises CheckpointError."""
    state = load(path, device)
    try:
        model.load_state_dict(state["model"])
        return int(state["iteration"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0].rstrip(":") or type(error).__name__
        raise CheckpointError(f"{path} is no checkpoint of this model ({reason}); train the run again") from None
