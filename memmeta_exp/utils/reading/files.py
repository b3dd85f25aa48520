"""Opens and reads files: regular files only, and no more bytes than the caller allows.

FIFOs may block and devices may have no end, so neither is opened. Symbolic links to regular files are accepted.
"""

import io
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from memmeta_exp.utils.errors import DataError

MIB = 2**20
TEXT_LIMIT = 64 * MIB  # bytes of a text file, unless the caller says otherwise
_BLOCK = MIB  # bytes read at once
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """A stream of the bytes of `path`. Raises FileNotFoundError where there is none, DataError where it is no regular
    file; the stream's reading raises DataError where that fails."""
    return io.BufferedReader(_Regular(path))


class ReadError(DataError, OSError):
    """A file that opens and cannot be read. An OSError too: libraries expect one from a stream."""


class _Regular(io.FileIO):
    """Reading a file that opens may still fail: its disk is broken, or it is one of the kernel's that has nothing to
    say yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_handle(path, os.O_RDONLY), "rb")
        self._path = path

    def readinto(self, buffer: Any, /) -> int:
        count = self._tried(super().readinto, buffer)
        if count is None:
            raise ReadError(f"{self._path} cannot be read: it has nothing to be read yet")
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._tried(super().seek, offset, whence)

    def _tried(self, act: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def readall(self) -> bytes:
        return b"".join(iter(partial(io.RawIOBase.read, self, _BLOCK), b""))


def open_handle(path: Path, flags: int, mode: int = 0o644) -> int:
    """os.open for regular files only; never blocks. Raises OSError, and DataError for anything but a regular file.

    The kind is checked before opening, since opening a device can have effects, and again on the open file.
    """
    try:
        _require_regular(path, os.stat(path).st_mode)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    except DataError:
        raise
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{str(path)!r} is not a file name: {error}") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise
        raise _unreadable(path, error) from None
    try:
        _require_regular(path, os.fstat(handle).st_mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise DataError(f"{path} is {kind}, and a regular file is expected: remove it, or restore the file")


def _unreadable(path: Path, error: OSError) -> ReadError:
    return ReadError(f"{path} cannot be read: {error.strerror or error}")


def tail(path: Path, count: int) -> str:
    """The last `count` bytes of a file as text, with invalid bytes replaced; empty if there is no such file."""
    try:
        with open_regular(path) as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - count))
            return stream.read(count).decode(errors="replace")
    except (FileNotFoundError, DataError):
        return ""


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes. Raises as `open_regular`, and DataError for a larger file."""
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise DataError(f"{path} is too large: {size} bytes, and at most {limit} are expected")
    return content
