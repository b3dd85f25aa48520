"""miniImageNet, tieredImageNet and Omniglot from DATA_ROOT/NAME/store, and dataset=folder from a store in the cache.

A store is made once: by `memmeta data fetch` or `import`, or at the first use from torchmeta's files in DATA_ROOT/NAME
or from the folder of images.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from memmeta_exp.config.validation import shown
from memmeta_exp.data import cache_contents, own_files
from memmeta_exp.data.aside import locked
from memmeta_exp.data.cache import cache_folder
from memmeta_exp.data.datasets import FolderConfig
from memmeta_exp.data.episodes import ImageSet
from memmeta_exp.data.folder import folder_files
from memmeta_exp.data.folder_entries import said
from memmeta_exp.data.prepare.progress import ShownProgress
from memmeta_exp.data.prepare.readers import omniglot
from memmeta_exp.data.prepare.readers.layouts import hdf5_readers
from memmeta_exp.data.store import Readers, Store, write_store
from memmeta_exp.utils.errors import DataError
from memmeta_exp.utils.path_keys import home_path

SIZES = {"miniimagenet": (3, 84, 84), "tieredimagenet": (3, 84, 84), "omniglot": (1, 28, 28)}
logger = logging.getLogger("memmeta")


def store_folder(name: str, root: Path) -> Path:
    """The folder of the store of `name`."""
    return root / name / "store"


def open_store(name: str, root: Path) -> Store:
    """The store of a dataset, made from torchmeta's files if there is none. Raises DataError if both are missing."""
    folder = store_folder(name, root)
    if folder.is_dir():
        return _opened(folder, remedy(name, root))
    readers = _torchmeta_readers(name, root)
    if readers is None:
        raise DataError(f"{folder} does not exist: {remedy(name, root)}")
    if not os.access(root / name, os.W_OK):
        folder = cache_folder() / f"{name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}"
    return _made(folder, readers, SIZES[name], root / name)


def require(name: str, root: Path) -> None:
    """Raises DataError unless there is an intact store, or torchmeta's files to make it from."""
    folder = store_folder(name, root)
    if folder.is_dir():
        _opened(folder, remedy(name, root))
    elif _torchmeta_readers(name, root) is None:
        raise DataError(f"{folder} does not exist: {remedy(name, root)}")


def folder_store(config: FolderConfig) -> Store:
    """The store of a folder of images, made at the first use and remade if a file has changed."""
    files = folder_files(config.path, config.split_file)
    root = home_path(str(config.path)).resolve()
    shape = (config.channels, config.image_size, config.image_size)
    target = cache_folder() / cache_contents.FOLDERS / own_files.digest(root, files, shape, config.skip_damaged)
    _warn_left_out(root, said(own_files.left_out(files)))
    return _made(target, own_files.readers(files, config), shape, root, config.skip_damaged)


@cache
def _warn_left_out(root: Path, kinds: str) -> None:
    """Warns once per process."""
    if kinds:
        logger.warning("%s: left out %s, which are not read as images", shown(root), kinds)


def rotated(images: ImageSet) -> ImageSet:
    """The classes of `images`, and their rotations by 90, 180 and 270 degrees as further classes."""
    turned = torch.cat([torch.rot90(images.images, k, (-2, -1)) for k in range(4)])
    names = tuple(f"{name}{suffix}" for suffix in ("", "/90", "/180", "/270") for name in images.class_names)
    return ImageSet(turned, names)


def remedy(name: str, root: Path) -> str:
    """The hint of an error message: how to get the dataset."""
    have = f"convert files that you have with `memmeta data import {name} PATH data_root={root}`"
    return f"download it with `memmeta data fetch {name} data_root={root}`, or {have}"


def _opened(folder: Path, advice: str) -> Store:
    try:
        return Store(folder)
    except DataError as error:
        raise DataError(f"{error}: remove {folder}, then {advice}") from None


def _torchmeta_readers(name: str, root: Path) -> Readers | None:
    if name == "omniglot":
        return omniglot.readers(root / name) if (root / name / "data.hdf5").is_file() else None
    return hdf5_readers(root / name)


def _made(
    folder: Path, readers: Readers, shape: tuple[int, int, int], source: Path, skip_damaged: bool | None = None
) -> Store:
    """The store in `folder`, converted if it is missing. Concurrent processes wait for the first."""
    with suppress(DataError):
        return _held(folder)
    try:
        with _alone(folder):
            with suppress(DataError):
                return _held(folder)
            _tidy(folder)
            logger.info("converting %s once, to %s", shown(source), folder)
            with ShownProgress() as progress:
                write_store(folder, readers, shape, str(source), progress, skip_damaged=skip_damaged)
            store = _held(folder)
        _tidy(folder)
    except OSError as error:
        where = f"{folder} cannot be written ({error.strerror})"
        raise DataError(f"{where}: set MEMMETA_CACHE to a writable folder") from None
    return store


def _held(folder: Path) -> Store:
    cache_contents.hold(folder)
    return Store(folder)


def _tidy(folder: Path) -> None:
    if folder.is_relative_to(cache_folder()):
        for entry in cache_contents.tidy():
            logger.info("the cache is full: removed %s, made of %s", entry.path, shown(entry.made_of))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Runs the block in one process at a time; logs a line if it has to wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with locked(lock, wait=False) as mine:
        if mine:
            yield
            return
    logger.info("waiting for another process that writes %s", folder)
    with locked(lock):
        yield
