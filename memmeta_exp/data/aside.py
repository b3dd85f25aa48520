"""Work folders of concurrent processes: locks between them, and removal of what a killed process left."""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

_TOKEN = r"[a-z0-9_]{8}"


@contextmanager
def locked(file: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock on `file` for the block; the file exists only during the block.

    If another process holds the lock, it waits, or yields False if `wait` is false. The system releases the lock when
    its process ends, however it ends.
    """
    handle = _lock(file, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)
            handle.close()


def _lock(file: Path, wait: bool) -> IO[str] | None:
    while True:
        handle = file.open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            handle.close()
            return None
        if is_still(handle, file):  # else the process that held the lock has removed the file
            return handle
        handle.close()


def is_still(handle: IO[Any], file: Path) -> bool:
    """Whether the open file `handle` is still the file at the path `file`."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    return False


@contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder `.NAME-TOKEN` in `parent`, removed after the block. `remove_stale` leaves it alone until then."""
    work = parent / f".{name}-{secrets.token_hex(4)}"
    with locked(_lock_of(work)):
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def put(work: Path, folder: Path) -> None:
    """Renames the finished folder `work` to `folder`. A folder that is already there is replaced and removed."""
    with work_folder(folder.parent, folder.name) as old:
        for number in count():
            with suppress(FileNotFoundError):
                os.rename(folder, old / str(number))
            try:
                return os.rename(work, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster: replace its folder
                    raise


def half_made(parent: Path, name: str = r"\w+") -> list[Path]:
    """The folders in `parent` that `work_folder` made for `name`, a regular expression."""
    form = re.compile(rf"\.{name}-{_TOKEN}(-old)?")
    with suppress(OSError):
        return sorted(p for p in parent.iterdir() if form.fullmatch(p.name) and p.is_dir() and not p.is_symlink())
    return []


def loop_status(folder: Path) -> bool:
    """Whether the process that made a folder of `half_made` is still running."""
    with locked(_lock_of(folder), wait=False) as stale:
        return not stale


def remove_stale(folders: list[Path]) -> list[Path]:
    """Removes those of `folders` whose process has ended; returns the others."""
    kept = []
    for folder in folders:
        with locked(_lock_of(folder), wait=False) as stale:
            if stale:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                kept.append(folder)
    return kept


def _lock_of(work: Path) -> Path:
    return work.with_name(work.name + ".lock")
