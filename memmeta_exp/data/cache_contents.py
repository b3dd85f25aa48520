"""What the cache folder holds: listed, bounded and emptied. Only files that this package made are touched."""

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
FOLDERS = "folders"  # stores of dataset=folder, by digest
_DIGEST, _NAMED = r"[0-9a-f]{16}", r"[a-z]+-[0-9a-f]{8}"  # the latter: of a data_root that cannot be written
_OLD_S = 3600.0  # an array file that is not finished by then never will be
_held: dict[Path, IO[bytes]] = {}


@dataclass(frozen=True)
class Entry:
    """size: in bytes; made_of: in words; last_used: seconds since 1970; in_use: by a process now."""

    path: Path
    size: int
    made_of: str
    last_used: float
    in_use: bool = False


def hold(store: Path) -> None:
    """Marks a store of the cache as used now, and as in use until this process ends. Any other folder is left alone."""
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
    """Of the cache, in bytes: $MEMMETA_CACHE_GIB, else LIMIT_GIB; ConfigError where that is no size."""
    text = os.environ.get(LIMIT_VARIABLE) or str(LIMIT_GIB)
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE}={text} is no size: use a number of GiB, such as {LIMIT_GIB:g}")
    return int(gib * 2**30)


def entries() -> list[Entry]:
    """Stores and arrays, the one that was not used for longest first."""
    root = cache_folder()
    stores = [*_matching(root / FOLDERS, _DIGEST), *_matching(root, _NAMED)]
    arrays = [p for p in _matching(root, r"glyphs\.npz") if p.is_file()]
    found = [_store(path) for path in stores if path.is_dir() and not path.is_symlink()]
    found += [Entry(p, p.stat().st_size, "dataset=glyphs", p.stat().st_mtime) for p in arrays]
    return sorted(found, key=lambda entry: entry.last_used)


def unfinished() -> list[Path]:
    """What conversions at work, or killed, have made so far."""
    root = cache_folder()
    return [*half_made(root / FOLDERS, _DIGEST), *half_made(root, _NAMED)]


def tidy() -> list[Entry]:
    """Removes what killed processes left, and entries that are not in use, longest unused first, until the rest is
    within the limit; returns those entries."""
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
    """Whether it could be removed: not where a process uses it."""
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
    """Whether no process holds the store; none can begin to during the block. One without its index is of no use."""
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
        made_of, used = "damaged: made again when it is needed", path.stat().st_mtime
    with _alone_with(path) as mine:
        return Entry(path, size, made_of, used, not mine)
