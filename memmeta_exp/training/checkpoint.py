"""Checkpoints: plain tensors and numbers, written whole or not at all, verified before they are read, read without
running code.

A checkpoint is what torch.save writes, a zip archive, with the SHA-256 of that archive as the archive's comment: one
file, which torch.load(file, weights_only=True) reads as any other. A run keeps two, `last.pt` and the one before it.
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
from memmeta_exp.utils.errors import CheckpointError, DataError
from memmeta_exp.utils.reading import open_regular
from memmeta_exp.utils.reading.arrays import archive_of_tensors

COMING, NEWEST, BEFORE, BEST = ".next.pt", "last.pt", "previous.pt", "best.pt"
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 2 * hashlib.sha256().digest_size  # bytes
_BLOCK = 2**22  # bytes

logger = logging.getLogger("memmeta")


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`, sealed, whole or not at all. Raises OSError, `path` then being what it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()  # torch's own writer would hide a full disk behind an error of its own
    torch.save(state, stream)
    sealed = _seal(stream.getvalue())
    with replacing(path) as file:
        file.write(sealed)


def save_newest(folder: Path, state: dict[str, Any]) -> None:
    """As `save`, to last.pt; what was there becomes previous.pt, so that there is a whole one at every moment."""
    save(folder / COMING, state)
    _rotate(folder)


def _rotate(folder: Path) -> None:
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / BEFORE)
    os.replace(folder / COMING, folder / NEWEST)
    sync_folder(folder)


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU; CheckpointError where the file is missing or not exactly what was written."""
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
            warnings.simplefilter("ignore")  # of tensors that no run writes, which are refused below
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - what a damaged or hostile pickle raises has no end
        raise CheckpointError(f"{path} is no checkpoint ({type(error).__name__}); train the run again") from None
    inexact = weights_fault(state)
    if inexact:
        raise CheckpointError(
            f"{path} is damaged, or written by another version of memmeta ({inexact}); train the run again"
        )
    return state


def newest(folder: Path, check: Callable[[Path, dict[str, Any]], str | None]) -> dict[str, Any] | None:
    """The newest of the last two checkpoints in `folder` that is whole and in which `check` finds no fault (None; a
    fault is one clause), with one warning line where that is not the newest; None where there is neither.

    Raises CheckpointError where there is one and none will do.
    """
    for file in (folder / name for name in (COMING, NEWEST, BEFORE)):
        if file.is_dir():
            raise CheckpointError(f"{file} is a folder, where a checkpoint belongs: move it away")
    if (folder / COMING).exists():  # killed between two renames
        _rotate(folder)
    faults: list[str] = []
    for file in [file for file in (folder / NEWEST, folder / BEFORE) if file.exists()]:
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
        raise CheckpointError(f"{'; '.join(faults)}: nothing to go on from; start the run anew in another folder")
    return None


def restore(model: nn.Module, path: Path) -> int:
    """Loads the weights of the checkpoint at `path` into `model`; returns its iteration.

    Where the run keeps a moving average, the average is loaded, because the run evaluates that. A parameter that is
    None in `model` is left out. Raises CheckpointError.
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
    """False where the model has a place for `key`, and nothing there."""
    return getattr(model, key, key) is not None


def _averaged(average: Mapping[str, Any]) -> dict[str, Any]:
    """The model's part of the state of a torch.optim.swa_utils.AveragedModel."""
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in average.items() if key.startswith(prefix)}


def _seal(archive: bytes) -> bytes:
    """The archive, which ends with a comment of length 0, with its digest as the comment."""
    assert archive.endswith(b"\0\0"), "torch.save writes zip archives without a comment"
    comment = _MARK + hashlib.sha256(archive).hexdigest().encode()
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def _is_sealed(stream: BinaryIO) -> bool:
    """Whether a stream ends with the digest of what is before it. The end is looked at first."""
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
