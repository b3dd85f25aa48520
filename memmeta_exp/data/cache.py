"""Arrays kept between runs, in one .npz file that is rebuilt whenever it is not exactly what is expected."""

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
    """The arrays of `path` if it is intact and was made by `recipe`, else `build()`, which is then stored there.

    The file appears at once and whole (written aside, then renamed), so processes may race. Where it cannot be
    written, the arrays are returned all the same.
    """
    arrays = read(path, recipe)
    if arrays is not None:
        with suppress(OSError):
            os.utime(path)  # last used
    else:
        arrays = build()
        with suppress(OSError, DataError):
            _write(path, recipe, arrays)
    return arrays


def read(path: Path, recipe: str) -> Arrays | None:
    """The arrays of an intact file of that recipe, else None."""
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
    """SHA-256 over the recipe and every array's name, type, shape and bytes."""
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
