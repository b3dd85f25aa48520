"""A cache of arrays in one .npz file, which is rebuilt if it is missing, damaged or out of date."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from memmeta_exp.utils.atomic_io import replacing
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.path_keys import home_path
from memmeta_exp.utils.reading.arrays import read_npz

Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """$MEMMETA_CACHE, else ~/.cache/memmeta."""
    return home_path(os.environ.get("MEMMETA_CACHE") or "~/.cache/memmeta")


def cached(path: Path, recipe: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of `path`, if it is intact and was made by `recipe`; else the result of `build()`, which is stored.

    The file is written aside and renamed, so concurrent processes are safe. If it cannot be written, the arrays are
    returned anyway.
    """
    arrays = read(path, recipe)
    if arrays is not None:
        with suppress(OSError):
            os.utime(path)  # the modification time is the time of last use
    else:
        arrays = build()
        with suppress(OSError, DataError):
            _write(path, recipe, arrays)
    return arrays


def read(path: Path, recipe: str) -> Arrays | None:
    """The arrays of `path`, or None if it is not an intact file made by `recipe`."""
    try:
        arrays = read_npz(path)
        sealed = str(arrays.pop("seal"))
    except (FileNotFoundError, DataError, KeyError):
        return None
    return arrays if sealed == _seal(recipe, arrays) else None


def _write(path: Path, recipe: str, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, seal=np.array(_seal(recipe, arrays)), **arrays)  # pyright: ignore[reportArgumentType]


def _seal(recipe: str, arrays: Arrays) -> str:
    """SHA-256 of the recipe and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
