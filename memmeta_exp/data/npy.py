"""uint8 arrays in .npy files, memory-mapped."""

import hashlib
import math
import shutil
from pathlib import Path

import numpy as np

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading import open_regular
from memmeta_exp.utils.reading.arrays import npy_header

_BLOCK = 2**24


def new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new memory-mapped uint8 .npy file. Raises DataError if the disk has too little free space."""
    _require_room(path.parent, math.prod(shape))
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder.parent} has {free / 2**30:.1f} GiB free and the next split needs {needed / 2**30:.1f}: free disk "
            "space, or choose another data_root"
        )


def pixels_sha256(path: Path) -> str:
    """SHA-256 of the pixels of a .npy file, without its header."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        file.seek(header(path)[1])
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def header(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of a .npy file and the byte offset of its data. Raises ValueError unless it holds uint8 in C order."""
    with open_regular(path) as file:
        shape, fortran, dtype = npy_header(file)
        if fortran or dtype != np.uint8:
            raise ValueError(f"{dtype}, expected uint8")
        return shape, file.tell()
