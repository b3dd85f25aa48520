"""Lists, limits and empties the cache folder. Files that this package did not make are left alone."""

import fcntl
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memmeta_exp.data.aside import half_made, is_still, remove_stale, work_folder
from memmeta_exp.data.cache import cache_folder
from memmeta_exp.data.store import INDEX, Store
from memmeta_exp.utils.atomic_io import PARTIAL
from memmeta_exp.utils.errors import ConfigError, DataError

LIMIT_GIB = 50.0
LIMIT_VARIABLE = "MEMMETA_CACHE_GIB"
FOLDERS = "folders"  # subfolder with the stores of dataset=folder, named by digest
_DIGEST, _NAMED = r"[0-9a-f]{16}", r"[a-z]+-[0-9a-f]{8}"  # _NAMED: stores of a data_root that is read-only
_OLD_S = 3600.0  # seconds after which an unfinished array file counts as abandoned
_held: dict[Path, IO[bytes]] = {}


@dataclass(frozen=True)
class Entry:
    """A store or array file in the cache. size: bytes; made_of: its source, in words; last_used: seconds since 1970;
    in_use: a running process uses it."""

    path: Path
    size: int
    made_of: str
    last_used: float
    in_use: bool = False


def hold(store: Path) -> None:
    """Marks a store in the cache as used now, and as in use until this process ends. Does nothing to other folders."""
    index = store / INDEX
    if not store.is_relative_to(cache_folder()):
        return
    with suppress(OSError):
        if index not in _held or not is_still(_held[index], index):
            handle = index.open("rb")
            fcntl.flock(handle, fcntl.LOCK_SH)
            _held[index] = handle
        os.utime(index)


def limit() -> int:
    """Size limit of the cache in bytes, from $MEMMETA_CACHE_GIB or LIMIT_GIB. Raises ConfigError for an invalid one."""
    text = os.environ.get(LIMIT_VARIABLE) or str(LIMIT_GIB)
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE}={text} is not a size: use a number of GiB, such as {LIMIT_GIB:g}")
    return int(gib * 2**30)


def entries() -> list[Entry]:
    """All stores and array files, least recently used first."""
    root = cache_folder()
    stores = [*_matching(root / FOLDERS, _DIGEST), *_matching(root, _NAMED)]
    arrays = [p for p in _matching(root, r"glyphs\.npz") if p.is_file()]
    found = [_store(path) for path in stores if path.is_dir() and not path.is_symlink()]
    found += [Entry(p, p.stat().st_size, "dataset=glyphs", p.stat().st_mtime) for p in arrays]
    return sorted(found, key=lambda entry: entry.last_used)


def unfinished() -> list[Path]:
    """The work folders of running and of killed conversions."""
    root = cache_folder()
    return [*half_made(root / FOLDERS, _DIGEST), *half_made(root, _NAMED)]


def tidy() -> list[Entry]:
    """Removes what killed processes left, then unused entries, least recently used first, until the cache is within its
    limit. Returns the removed entries."""
    remove_stale(unfinished())
    for path in _matching(cache_folder(), rf"\.glyphs\.npz\..*{re.escape(PARTIAL)}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_S:
                path.unlink()
    found, most = entries(), limit()
    total, removed = sum(entry.size for entry in found), []
    for entry in found:
        if total > most and remove(entry):
            total -= entry.size
            removed.append(entry)
    return removed


def remove(entry: Entry) -> bool:
    """Removes `entry` unless a process uses it; returns whether it did."""
    try:
        if entry.path.is_file():
            entry.path.unlink()
            return True
        with _alone_with(entry.path) as mine, work_folder(entry.path.parent, entry.path.name) as old:
            if mine:
                os.rename(entry.path, old / "store")
            return mine
    except OSError:
        return False


@contextmanager
def _alone_with(store: Path) -> Iterator[bool]:
    """Yields whether no process holds the store; if so, none can start to during the block. A store without an index is
    unusable, so it counts as free."""
    try:
        handle = (store / INDEX).open("r+b")
    except FileNotFoundError:
        yield True
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _matching(folder: Path, form: str) -> list[Path]:
    with suppress(OSError):
        return [path for path in folder.iterdir() if re.fullmatch(form, path.name)]
    return []


def _store(path: Path) -> Entry:
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    try:
        store = Store(path)
        shape = " x ".join(map(str, next(iter(store.splits.values())).shape[1:]))
        made_of, used = f"{store.source}, images {shape}", (path / INDEX).stat().st_mtime
    except (DataError, StopIteration, OSError):
        made_of, used = "damaged: rebuilt when it is needed", path.stat().st_mtime
    with _alone_with(path) as mine:
        return Entry(path, size, made_of, used, not mine)
