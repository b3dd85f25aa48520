"""Checkpoints of plain tensors and numbers. Writing is atomic, and reading verifies a hash and runs no code.

A checkpoint is the zip archive that torch.save writes, with its SHA-256 as the archive's comment. So
torch.load(file, weights_only=True) reads it. A run keeps two: `last.pt`, and `previous.pt`, the one before it. It
also keeps weights alone: of the best validation, and of the iterations in checkpoint_at.
"""

import hashlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from memmeta_exp.training.saved_state import weights_fault
from memmeta_exp.utils.atomic_io import replacing, sync_folder
from memmeta_exp.utils.errors import CheckpointError, ConfigError, DataError
from memmeta_exp.utils.reading import open_regular
from memmeta_exp.utils.reading.arrays import archive_of_tensors

NEXT, LAST, PREVIOUS, BEST = ".next.pt", "last.pt", "previous.pt", "best.pt"
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size  # bytes
_BLOCK = 2**22  # bytes

logger = logging.getLogger("memmeta")


def at_iteration(t: int) -> str:
    """The file of the weights of iteration t, kept by checkpoint_at."""
    return f"iteration-{t}.pt"


def chosen(run: Path, name: str | None, iteration: int | None) -> Path:
    """The checkpoint `name` (best, the default, or last) of the folder `run`, or that of an `iteration` which
    checkpoint_at kept. ConfigError for another name, both, or an iteration that is not kept."""
    folder = run / "checkpoints"
    if name not in (None, "best", "last"):
        raise ConfigError(f"checkpoint={name} is unknown; choose from best, last")
    if iteration is None:
        return folder / f"{name or 'best'}.pt"
    if name is not None:
        raise ConfigError(f"iteration={iteration} and checkpoint={name} name two checkpoints: leave one of them out")
    file = folder / at_iteration(iteration)
    if run.is_dir() and not file.is_file():
        kept = sorted(int(n) for f in folder.glob("iteration-*.pt") if (n := f.stem.partition("-")[2]).isdecimal())
        there = f"it has {', '.join(map(str, kept))}" if kept else "it has none"
        raise ConfigError(
            f"iteration={iteration}: {run} keeps no weights of that iteration ({there}); train with "
            f"checkpoint_at=[{iteration}]"
        )
    return file


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` with its hash, atomically. Raises OSError, and then leaves `path` unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()  # torch's own writer raises another error than OSError on a full disk
    torch.save(state, stream)
    sealed = _seal(stream.getvalue())
    with replacing(path) as file:
        file.write(sealed)


def save_newest(folder: Path, state: dict[str, Any]) -> None:
    """As `save`, to last.pt. The old last.pt becomes previous.pt, so that one checkpoint is whole at any time."""
    save(folder / NEXT, state)
    _rotate(folder)


def _rotate(folder: Path) -> None:
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(folder / NEXT, folder / LAST)
    sync_folder(folder)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. CheckpointError where the file is missing or its hash does not match."""
    try:
        with open_regular(path) as stream:
            return _unpacked(stream, path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist: the run did not get as far as a checkpoint; train it again"
        ) from None
    except DataError as error:
        raise CheckpointError(f"{error}; train the run again") from None


def _unpacked(stream: BinaryIO, path: Path) -> dict[str, Any]:
    if not _is_sealed(stream):
        raise CheckpointError(f"{path} is damaged: its content and its SHA-256 do not agree; train the run again")
    archive_of_tensors(stream, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors that no run writes; they are refused below
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged or hostile pickle can raise anything
        raise CheckpointError(f"{path} is no checkpoint ({type(error).__name__}); train the run again") from None
    problem = weights_fault(state)
    if problem:
        raise CheckpointError(
            f"{path} is damaged, or written by another version of memmeta ({problem}); train the run again"
        )
    return state


def newest(folder: Path, check: Callable[[Path, dict[str, Any]], str | None]) -> dict[str, Any] | None:
    """The newest whole checkpoint in `folder` of which `check` finds no fault; None where there is no checkpoint.

    check: (file, state) -> the fault in one clause, or None. One line warns where previous.pt is used. Raises
    CheckpointError where there are checkpoints and all have faults.
    """
    for file in (folder / name for name in (NEXT, LAST, PREVIOUS)):
        if file.is_dir():
            raise CheckpointError(f"{file} is a folder, where a checkpoint belongs: move it away")
    if (folder / NEXT).exists():  # killed between two renames
        _rotate(folder)
    faults: list[str] = []
    for file in [file for file in (folder / LAST, folder / PREVIOUS) if file.exists()]:
        try:
            state = load(file)
            fault = check(file, state)
        except CheckpointError as error:
            fault = str(error).partition(";")[0]
        else:
            if fault is None:
                if faults:
                    logger.warning("%s; going on from %s, iteration %s", "; ".join(faults), file, state["iteration"])
                return state
        faults.append(fault)
    if faults:
        raise CheckpointError(f"{'; '.join(faults)}: no checkpoint to resume from; start a new run in another folder")
    return None


def restore(model: nn.Module, path: Path) -> int:
    """Loads the weights of the checkpoint at `path` into `model`; returns its iteration.

    Where the run keeps a moving average, the average is loaded, because that is what the run evaluates. A parameter
    that is None in `model` is left out. Raises CheckpointError.
    """
    state = load(path)
    try:
        average = state.get("average")
        weights = state["model"] if average is None else _averaged(average)
        model.load_state_dict({key: value for key, value in weights.items() if _wanted(model, key)})
        return int(state["iteration"])
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(":") or type(error).__name__
        raise CheckpointError(f"{path} is no checkpoint of this model ({reason}); train the run again") from None


def _wanted(model: nn.Module, key: str) -> bool:
    """False where the model's attribute `key` is None."""
    return getattr(model, key, key) is not None


def _averaged(average: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the state of a torch.optim.swa_utils.AveragedModel."""
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in average.items() if key.startswith(prefix)}


def _seal(archive: bytes) -> bytes:
    """The archive with its digest as its comment. `archive` must have no comment."""
    assert archive.endswith(b"\0\0"), "torch.save writes zip archives without a comment"
    comment = _MARK + hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def _is_sealed(stream: BinaryIO) -> bool:
    """Whether a stream ends with the digest of what comes before. It reads the end first."""
    size = stream.seek(0, os.SEEK_END) - _COMMENT - 2
    if size < 0:
        return False
    stream.seek(size)
    end = stream.read()
    if not end.startswith(_COMMENT.to_bytes(2, "little") + _MARK):
        return False
    digest = hashlib.sha256()
    stream.seek(0)
    for at in range(0, size, _BLOCK):
        digest.update(stream.read(min(_BLOCK, size - at)))
    digest.update(b"\0\0")
    return end[-len(digest.hexdigest()) :] == digest.hexdigest().encode()
