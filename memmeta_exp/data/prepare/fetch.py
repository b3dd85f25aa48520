"""Puts datasets into DATA_ROOT: `fetch` downloads them from the addresses of urls.py, `import_files` converts files."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np

from memmeta_exp.config import options
from memmeta_exp.data import cifar100_torchmeta
from memmeta_exp.data.aside import half_made, remove_stale, work_folder
from memmeta_exp.data.prepare.answers import SourceError
from memmeta_exp.data.prepare.archive import is_archive, unpacked
from memmeta_exp.data.prepare.download import Downloader
from memmeta_exp.data.prepare.readers import cifar100, miniimagenet, omniglot, tieredimagenet
from memmeta_exp.data.prepare.urls import PAGES, RELEASES, Release, RemoteFile
from memmeta_exp.data.store import Progress, SplitImages, Store, silent, write_store
from memmeta_exp.data.stored_datasets import store_folder
from memmeta_exp.utils.errors import DataError, FetchError


@dataclass(frozen=True)
class _Format:
    """The format of a dataset's files. readers: the module that reads them. archives: names of archives that contain
    them. shape: of an image, [C, H, W]."""

    readers: ModuleType
    archives: tuple[str, ...]
    shape: tuple[int, int, int]


FORMATS = {
    "cifar100": _Format(cifar100, ("cifar-100-python.tar.gz",), (3, 32, 32)),
    "miniimagenet": _Format(miniimagenet, ("mini-imagenet.tar.gz", "images.zip"), (3, 84, 84)),
    "tieredimagenet": _Format(tieredimagenet, ("tiered-imagenet.tar",), (3, 84, 84)),
    "omniglot": _Format(omniglot, ("images_background.zip", "images_evaluation.zip"), (1, 28, 28)),
}


def fetch(name: str, root: Path, progress: Progress = silent, downloader: type[Downloader] = Downloader) -> Path:
    """Downloads and converts the dataset `name` to `root`, unless it is there already; returns the path of its files.

    Releases are tried in turn, and so are the addresses of each file. Partial downloads stay in ROOT/downloads for the
    next call. Raises FetchError, with all attempts, if no release could be downloaded, and DataError if links or other
    files are in the place of downloads.
    """
    there = present(name, root)
    if there is not None:
        return there
    failures: list[str] = []
    for release in RELEASES[name]:
        folder = _download_folder(root, f"{name}-{release.publisher.replace(' ', '-')}")
        try:
            _download(release, downloader(folder, progress), failures)
            path = _converted(name, folder, root, progress)
        except _NoSource as error:
            failures.extend(error.args)
            _remove_if_empty(folder)
        else:
            shutil.rmtree(folder)
            return path
        finally:
            _remove_if_empty(folder.parent)
    raise FetchError(
        f"{name} could not be fetched: {'; '.join(failures)}. Get its files by hand ({PAGES[name]}) and run "
        f"`memmeta data import {name} PATH data_root={root}`"
    )


class _NoSource(Exception):
    """A release is unusable: a file could not be downloaded, or the text says what is wrong with the files."""


def _download_folder(root: Path, name: str) -> Path:
    folder = root / "downloads" / name
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(f"{folder} is a link or a file, where downloads have a folder of their own: remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _converted(name: str, folder: Path, root: Path, progress: Progress) -> Path:
    try:
        return import_files(name, folder, root, progress)
    except DataError as error:
        raise _NoSource(f"the files of {folder.name}: {error}") from None


def _download(release: Release, downloader: Downloader, failures: list[str]) -> None:
    for file in release.files:
        if not any(_arrived(downloader, file, url, failures) for url in file.urls):
            raise _NoSource


def _arrived(downloader: Downloader, file: RemoteFile, url: str, failures: list[str]) -> bool:
    try:
        downloader.get(file, url)
    except SourceError as error:
        failures.append(f"{file.name} from {urlsplit(url).netloc}: {error}")
        return False
    return True


def present(name: str, root: Path) -> Path | None:
    """The path of a dataset's files under `root`; None if they are missing or damaged (CIFAR-100: or if their hash is
    wrong)."""
    try:
        if name == "cifar100":
            return cifar100_torchmeta.hdf5_path(root) if cifar100_torchmeta.verify(root) else None
        return Store(store_folder(name, root)).folder
    except DataError:
        return None


def import_files(name: str, path: Path, root: Path, progress: Progress = silent) -> Path:
    """Converts the files at `path`, a folder or an archive, to the dataset `name` under `root`; returns its path, which
    appears only when complete. Raises DataError if the files are damaged or in no known format."""
    if not path.exists():
        raise DataError(f"{path} does not exist: name the folder or archive with the files of {name}")
    known = FORMATS[name]
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder: name the one with the files of {name}")
    if path.is_file() and not is_archive(path):
        raise DataError(f"{path} is no archive: name the folder it is in, with {known.readers.EXPECTED}")
    root.mkdir(parents=True, exist_ok=True)
    with _work_folder(root) as work:
        folder = unpacked(path, work, known.archives)
        if name == "cifar100":
            return _import_cifar100(folder, path, root)
        readers = known.readers.readers(folder)
        if readers is None:
            raise DataError(f"{path} holds none of the formats of {name}: expected {known.readers.EXPECTED}")
        target = store_folder(name, root)
        counted = {split: partial(_counted, name, split, read) for split, read in readers.items()}
        write_store(target, counted, known.shape, str(path.resolve()), progress)
        return target


def _counted(name: str, split: str, read: Callable[[], SplitImages]) -> SplitImages:
    """The result of `read`. Raises DataError, before any image is read, if its counts are not those of the dataset."""
    found, facts = read(), options("dataset")[name]().facts()
    counts = np.bincount(found.labels, minlength=len(found.names))
    total, least = facts.total(split), counts.min(initial=len(found.labels))
    if (len(counts), counts.sum()) != (facts.classes[split], total) or least < facts.images_per_class:
        raise DataError(
            f"the {split} split has {len(counts)} classes and {counts.sum()} images, at least {least} each; "
            f"{name} has {facts.classes[split]}, {total}, {facts.images_per_class}: use dataset=folder for other images"
        )
    return found


@contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    remove_stale(half_made(root, "import"))
    with work_folder(root, "import") as folder:
        yield folder


def _import_cifar100(folder: Path, path: Path, root: Path) -> Path:
    if not cifar100.found(folder):
        raise DataError(f"{path} holds no CIFAR-100: expected {cifar100.EXPECTED}")
    with _work_folder(root) as work:
        target = cifar100_torchmeta.hdf5_path(work).parent
        target.mkdir()
        cifar100.write_hdf5(folder, target)
        if not cifar100_torchmeta.verify(work):
            raise DataError(
                f"{path} is not CIFAR-100 as published: get cifar-100-python.tar.gz from {PAGES['cifar100']}"
            )
        cifar100_torchmeta.hdf5_path(root).parent.mkdir(exist_ok=True)
        for file in target.iterdir():
            file.replace(cifar100_torchmeta.hdf5_path(root).parent / file.name)
    return cifar100_torchmeta.hdf5_path(root)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it has content, or is gone
        folder.rmdir()
