"""Reads HDF5 files. The type and size of a dataset are checked before any of it is read.

Soft and external links, datasets stored in other files and oversized chunks are rejected.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.reading.files import open_regular

_CHUNK_LIMIT = 2**28  # bytes of a chunk, which reading one image decompresses
_BLOCK = 2**24  # bytes read at a time
_BROKEN = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError, ArithmeticError)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file at `path`, opened for reading. Raises FileNotFoundError, and DataError, also for damage found
    within the block."""
    with open_regular(path) as stream:
        stream.read(1)  # one that cannot be read, or not yet, is refused here: libhdf5 would wait
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except _BROKEN as error:
        raise _damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from None


def group_names(file: h5py.File, name: str = "/") -> list[str]:
    """The names in a group, sorted. Raises DataError if there is no such group."""
    return sorted(_found(file, name, h5py.Group, "group"))


def images_in(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    """The dataset `name`, uint8 [N, *shape]. Raises DataError if it is missing or has another type or shape."""
    dataset = _found(file, name, h5py.Dataset, "dataset")
    if dataset.dtype != np.uint8 or dataset.ndim != len(shape) + 1 or dataset.shape[1:] != shape:
        found = f"{dataset.dtype} {dataset.shape}"
        raise _damaged(Path(file.filename), f"'{name}' is {found}, expected uint8 {('N', *shape)}".replace("'N'", "N"))
    return _readable(dataset)


def encoded_in(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset `name` of N encoded images, uint8 of variable length. Raises DataError as `images_in`."""
    dataset = _found(file, name, h5py.Dataset, "dataset")
    if h5py.check_vlen_dtype(dataset.dtype) != np.uint8 or dataset.ndim != 1:
        found = f"{dataset.dtype} {dataset.shape}"
        raise _damaged(Path(file.filename), f"'{name}' is {found}, expected the bytes of N images")
    return _readable(dataset)


def is_encoded(file: h5py.File, name: str) -> bool:
    """Whether the dataset `name` holds encoded images, not pixels. Raises DataError if it is missing."""
    return _found(file, name, h5py.Dataset, "dataset").dtype.kind == "O"


def blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yields the content in blocks of a few images."""
    step = 1 if dataset.dtype.kind == "O" else max(1, _BLOCK // max(1, math.prod(dataset.shape[1:])))
    for at in range(0, len(dataset), step):
        yield dataset[at : at + step]


def _found(file: h5py.File, name: str, kind: type, word: str) -> Any:
    """The object `name`, reached by hard links only; other links may lead to other files or in a circle."""
    found: Any = file
    for part in [part for part in name.split("/") if part]:
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) and _is_name(part) else None
        if not isinstance(link, h5py.HardLink):
            raise _damaged(Path(file.filename), f"no {word} '{name}'" if link is None else f"'{name}' is a link")
        found = found[part]
    if not isinstance(found, kind):
        raise _damaged(Path(file.filename), f"no {word} '{name}'")
    return found


def _is_name(part: str) -> bool:
    return "\0" not in part and part != "."


def _readable(dataset: h5py.Dataset) -> h5py.Dataset:
    path = Path(dataset.file.filename)
    if dataset.external or dataset.is_virtual:
        raise _damaged(path, f"'{dataset.name}' is kept in another file")
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > _CHUNK_LIMIT:
        raise _damaged(path, f"'{dataset.name}' has chunks of more than {_CHUNK_LIMIT} bytes")
    return dataset


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged ({why})")
